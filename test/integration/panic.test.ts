/**
 * What a crash looks like from outside: one `panic` line with cause, CPU and function, then the
 * `exit` event, status 35. The image is test/fixtures/crash/crash.ts on the boot code that ships.
 */
import { execFileSync } from "node:child_process";
import { assert, suite } from "qemu-test-harness";

const test = suite("panic", { timeoutMs: 30_000 });

interface Crash {
  name: string;
  /** The first letter chooses the crash, the digit the CPU. */
  commandLine: string;
  cause: string;
  message: string;
  function: string;
}

const CRASH = "test/fixtures/crash/crash/crash";
const CRASHES: Crash[] = [
  {
    name: "an access outside linear memory is a wasm trap",
    commandLine: "outside0",
    cause: "wasm trap",
    message: "out of bounds memory access",
    function: CRASH,
  },
  {
    name: "the line names the CPU that crashed",
    commandLine: "outside1",
    cause: "wasm trap",
    message: "out of bounds memory access",
    function: CRASH,
  },
  {
    name: "unreachable is a wasm trap",
    commandLine: "unreachable0",
    cause: "wasm trap",
    message: "unreachable",
    function: CRASH,
  },
  {
    name: "a division by zero is a wasm trap",
    commandLine: "divide0",
    cause: "wasm trap",
    message: "integer divide by zero",
    function: CRASH,
  },
  {
    name: "endless recursion is a wasm trap",
    commandLine: "stack0",
    cause: "wasm trap",
    message: "call stack exhausted",
    function: "test/fixtures/crash/crash/recurse",
  },
  {
    name: "a port that ring 3 may not use is a CPU exception",
    commandLine: "port0",
    cause: "cpu exception",
    message: "general protection fault",
    function: CRASH,
  },
  {
    name: "device memory that was not mapped is a CPU exception",
    commandLine: "mmio1",
    cause: "cpu exception",
    message: "page fault",
    function: CRASH,
  },
  {
    name: "a failed check says what failed",
    commandLine: "check0",
    cause: "failed check",
    message: "this check fails on purpose",
    function: CRASH,
  },
  {
    name: "an allocation after boot is a wasm trap",
    commandLine: "allocate1",
    cause: "wasm trap",
    message: "unreachable",
    function: "~lib/rt/stub/__alloc",
  },
];

test.before(() => {
  const config = "test/fixtures/crash/asconfig.json";
  execFileSync("node", ["build/tools/build-image.mjs", "crash", config], { stdio: "pipe" });
});

for (const crash of CRASHES) {
  test(crash.name, async (t) => {
    const vm = await t.vm({
      image: "build/crash.elf",
      append: crash.commandLine,
      cpus: 2,
      accelerator: "tcg",
    });
    const { events } = await vm.failure();
    const panics = events.filter(({ event }) => event === "panic");
    assert.is(panics.length, 1, "exactly one panic line");
    const [panic] = panics;
    assert.is(panic?.cause, crash.cause);
    assert.is(panic?.message, crash.message);
    assert.is(panic?.function, crash.function);
    assert.is(panic?.cpu, Number(crash.commandLine.at(-1)));
    assert.is(events.at(-1)?.event, "exit");
  });
}

test.run();
