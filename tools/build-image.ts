/**
 * Builds build/vireo.elf: AssemblyScript -> WebAssembly -> C -> one freestanding ELF64. Called by
 * `make image`. Every step's inputs are in the tree or pinned by package-lock.json, no step writes
 * a time or a path into its output, and so two builds of one commit are byte-identical.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { symbolsAssembly, symbolsOf } from "./symbols";

const BUILD = "build";
const IMAGE_BYTES_MAX = 128 * 1024;

const COMPILE = [
  "-std=gnu11",
  "-ffreestanding",
  "-fno-pic",
  "-fno-pie",
  "-mcmodel=small",
  "-mno-red-zone",
  "-fno-stack-protector",
  "-fno-asynchronous-unwind-tables",
  "-fcf-protection=none",
  "-fno-tree-loop-distribute-patterns",
  "-ffunction-sections",
  "-Iboot",
  `-I${BUILD}`,
];
const WARN = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"];
/** Generated code has unused helpers and variables; its semantics are wasm2c's business. */
const WARN_GENERATED = ["-Wall", "-Werror", "-Wno-unused", "-Wno-unused-but-set-variable"];

function run(program: string, args: string[]): string {
  try {
    return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    const { stderr = "", stdout = "" } = error as { stderr?: string; stdout?: string };
    throw new Error(`${program} ${args.join(" ")}\n${stderr}${stdout}`);
  }
}

/**
 * Gives linear memory its constant base: the one line of wasm2c's output that computes an address.
 * Fails unless there is exactly one such line, so that a change of wasm2c cannot go unnoticed.
 */
export function useConstantBase(source: string): string {
  const line = "#define MEM_ADDR(mem, addr, n) &((mem)->data[addr])";
  const parts = source.split(`${line}\n`);
  if (parts.length !== 2) {
    throw new Error(
      `wasm2c's output has ${parts.length - 1} lines "${line}", expected 1: ` +
        "check tools/build-image.ts against this version of wabt",
    );
  }
  return parts.join(
    "#define MEM_ADDR(mem, addr, n) ((uint8_t*)(LINEAR_BASE + (uint64_t)(addr)))\n",
  );
}

function compileWasm(): void {
  run("node_modules/.bin/asc", ["--config", "asconfig.json", "--target", "release"]);
  const generated = `${BUILD}/vireo.wasm.c`;
  run("node_modules/.bin/wasm2c", ["-n", "vireo", "-o", generated, `${BUILD}/vireo.wasm`]);
  writeFileSync(generated, useConstantBase(readFileSync(generated, "utf8")));
}

function compileObjects(): void {
  for (const name of ["entry", "traps"]) {
    run("gcc", [...COMPILE, "-c", `boot/${name}.S`, "-o", `${BUILD}/${name}.o`]);
  }
  for (const name of ["ring0", "services"]) {
    const options = [...COMPILE, ...WARN, "-Os", "-mgeneral-regs-only"];
    run("gcc", [...options, "-c", `boot/${name}.c`, "-o", `${BUILD}/${name}.o`]);
  }
  run("gcc", [...COMPILE, ...WARN_GENERATED, "-O2", "-c", "boot/host.c", "-o", `${BUILD}/host.o`]);
  const script = run("gcc", ["-E", "-P", "-x", "c", "-Iboot", "boot/image.ld"]);
  writeFileSync(`${BUILD}/image.ld`, script);
}

function link(output: string, symbols: string): void {
  writeFileSync(`${BUILD}/symbols.S`, symbols);
  run("gcc", ["-c", `${BUILD}/symbols.S`, "-o", `${BUILD}/symbols.o`]);
  const objects = ["entry", "traps", "ring0", "services", "host", "symbols"];
  // Run inside build/, because the linker script names the objects.
  execFileSync(
    "ld",
    [
      ...["-nostdlib", "-static", "--gc-sections", "-z", "max-page-size=4096", "-z", "noexecstack"],
      ...["--build-id=none", "--no-warn-rwx-segments", "-T", "image.ld", "-o", output],
      ...objects.map((name) => `${name}.o`),
    ],
    { cwd: BUILD, stdio: ["ignore", "inherit", "inherit"] },
  );
}

/** Links twice: the table of function names is made from the first link, which it does not move. */
function linkImage(): void {
  link("first.elf", symbolsAssembly([]));
  const symbols = symbolsOf(run("nm", ["-n", `${BUILD}/first.elf`]));
  link("vireo.elf", symbolsAssembly(symbols));
  const map = run("nm", ["-n", `${BUILD}/vireo.elf`]);
  if (JSON.stringify(symbolsOf(map)) !== JSON.stringify(symbols)) {
    throw new Error("the table of function names moved the functions: check boot/image.ld");
  }
  writeFileSync(`${BUILD}/vireo.map`, map);
  run("strip", ["--strip-all", `${BUILD}/vireo.elf`]);
}

function report(): void {
  const bytes = statSync(`${BUILD}/vireo.elf`).size;
  const sections = run("size", ["-A", "-d", `${BUILD}/vireo.elf`])
    .split("\n")
    .filter((line) => /^\.(ring0|ring0\.bss|text|rodata|data|bss)\s/.test(line))
    .map((line) => line.trim().split(/\s+/).slice(0, 2));
  for (const [name = "", size = ""] of sections) {
    console.log(`  ${name.padEnd(12)}${size.padStart(8)} bytes`);
  }
  console.log(`  ${"file".padEnd(12)}${String(bytes).padStart(8)} bytes  build/vireo.elf`);
  if (bytes > IMAGE_BYTES_MAX) {
    throw new Error(`the image has ${bytes} bytes, the limit is ${IMAGE_BYTES_MAX}`);
  }
}

mkdirSync(BUILD, { recursive: true });
try {
  compileWasm();
  compileObjects();
  linkImage();
  report();
} catch (error) {
  console.error(`build failed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
