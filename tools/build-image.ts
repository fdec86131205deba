/**
 * Builds build/vireo.elf: AssemblyScript -> WebAssembly -> C -> one freestanding ELF64, of
 * which ring 3's part is packed. The same unpacked, with symbols, is build/vireo/last.elf. Called by
 * `make image`, and by tests with the arguments NAME and ASCONFIG for an image of another module
 * (build/NAME.elf). Every step's inputs are in the tree or pinned by package-lock.json, no step
 * writes a time or a path into its output, and so two builds of one commit are byte-identical.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { coldDeclarations } from "./cold";
import { packData } from "./data-segments";
import { packedImage } from "./packed-image";
import { symbolsAssembly, symbolsOf } from "./symbols";

const BUILD = "build";
const [name = "vireo", config = "asconfig.json"] = process.argv.slice(2);
/** Where the steps leave their intermediate files, one folder an image. */
const WORK = `${BUILD}/${name}`;
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
  `-I${WORK}`,
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
  const wasm = `${BUILD}/${name}.wasm`;
  run("node_modules/.bin/asc", ["--config", config, "--target", "release", "--outFile", wasm]);
  const generated = `${WORK}/vireo.wasm.c`;
  run("node_modules/.bin/wasm2c", ["-n", "vireo", "-o", generated, wasm]);
  const source = readFileSync(generated, "utf8");
  writeFileSync(generated, packData(useConstantBase(source)));
  writeFileSync(`${WORK}/cold.h`, coldDeclarations(source));
}

function compileObjects(): void {
  for (const file of ["entry", "traps"]) {
    run("gcc", [...COMPILE, "-c", `boot/${file}.S`, "-o", `${WORK}/${file}.o`]);
  }
  for (const file of ["ring0", "services"]) {
    const options = [...COMPILE, ...WARN, "-Os", "-mgeneral-regs-only"];
    run("gcc", [...options, "-c", `boot/${file}.c`, "-o", `${WORK}/${file}.o`]);
  }
  run("gcc", [...COMPILE, ...WARN, "-O2", "-c", "boot/unpack.c", "-o", `${WORK}/unpack.o`]);
  run("gcc", [...COMPILE, ...WARN_GENERATED, "-O2", "-c", "boot/host.c", "-o", `${WORK}/host.o`]);
  const script = run("gcc", ["-E", "-P", "-x", "c", "-Iboot", "boot/image.ld"]);
  writeFileSync(`${WORK}/image.ld`, script);
}

function link(output: string, symbols: string): void {
  writeFileSync(`${WORK}/symbols.S`, symbols);
  run("gcc", ["-c", `${WORK}/symbols.S`, "-o", `${WORK}/symbols.o`]);
  const objects = ["entry", "traps", "ring0", "services", "unpack", "host", "symbols"];
  // Run where the objects are, because the linker script names them.
  execFileSync(
    "ld",
    [
      ...["-nostdlib", "-static", "--gc-sections", "-z", "max-page-size=4096"],
      ...["-z", "noexecstack", "--build-id=none", "--no-warn-rwx-segments"],
      ...["-T", "image.ld", "-o", output, ...objects.map((object) => `${object}.o`)],
    ],
    { cwd: WORK, stdio: ["ignore", "inherit", "inherit"] },
  );
}

/** Links twice: the table of function names is made from the first link, which it does not move. */
function linkImage(): void {
  link("first.elf", symbolsAssembly([]));
  const symbols = symbolsOf(run("nm", ["-n", `${WORK}/first.elf`]));
  link("last.elf", symbolsAssembly(symbols));
  const map = run("nm", ["-n", `${WORK}/last.elf`]);
  if (JSON.stringify(symbolsOf(map)) !== JSON.stringify(symbols)) {
    throw new Error("the table of function names moved the functions: check boot/image.ld");
  }
  writeFileSync(`${BUILD}/${name}.map`, map);
  writeFileSync(`${BUILD}/${name}.elf`, packedImage(readFileSync(`${WORK}/last.elf`), map));
}

function report(): void {
  const bytes = statSync(`${BUILD}/${name}.elf`).size;
  const sections = run("size", ["-A", "-d", `${WORK}/last.elf`])
    .split("\n")
    .filter((line) => /^\.(ring0|ring0\.bss|unpack|text|rodata|data|bss)\s/.test(line))
    .map((line) => line.trim().split(/\s+/).slice(0, 2));
  for (const [section = "", size = ""] of sections) {
    console.log(`  ${section.padEnd(12)}${size.padStart(8)} bytes`);
  }
  console.log(`  ${"file".padEnd(12)}${String(bytes).padStart(8)} bytes  build/${name}.elf`);
  if (bytes > IMAGE_BYTES_MAX) {
    throw new Error(`the image has ${bytes} bytes, the limit is ${IMAGE_BYTES_MAX}`);
  }
}

mkdirSync(WORK, { recursive: true });
try {
  compileWasm();
  compileObjects();
  linkImage();
  report();
} catch (error) {
  console.error(`build failed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
