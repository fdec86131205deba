// What a crash looks like from outside: one `panic` line with cause, CPU and function, then the
// `exit` event, status 35. The image is test/fixtures/crash/crash.ts on the boot code that ships.
//
// Shares the machine: its guests end at once.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
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

/** Where the packed part (boot/packed.h) is in the image, which is its last segment. */
function placesOf(elf: Buffer): { head: number; streams: number } {
  const segment = Number(elf.readBigUInt64LE(0x20)) + 56 * (elf.readUInt16LE(0x38) - 1);
  const head = Number(elf.readBigUInt64LE(segment + 8));
  const end = head + Number(elf.readBigUInt64LE(segment + 32));
  return { head, streams: end - elf.readUInt32LE(head + 4) - elf.readUInt32LE(head + 8) };
}

interface Damage {
  name: string;
  cause: string;
  message: string;
  /** Changes the image; `head` is the offset of its head, `streams` that of its streams. */
  damage: (elf: Buffer, head: number, streams: number) => void;
}

const DAMAGED = "the packed image is not what the build wrote";
const DAMAGES: Damage[] = [
  {
    name: "a packed image that copies from before its beginning",
    cause: "failed check",
    message: DAMAGED,
    damage: (elf, _, streams) => elf.writeUInt8(0xff, streams),
  },
  {
    name: "a packed image with a number that has no end",
    cause: "failed check",
    message: DAMAGED,
    damage: (elf, _, streams) => elf.fill(0, streams + 100, streams + 120),
  },
  {
    name: "a packed image whose numbers end too soon",
    cause: "failed check",
    message: DAMAGED,
    damage: (elf, head) => elf.writeUInt32LE(1000, head + 4),
  },
  {
    name: "a packed image whose single bytes end too soon",
    cause: "failed check",
    message: DAMAGED,
    damage: (elf, head) => elf.writeUInt32LE(1000, head + 8),
  },
  {
    name: "a packed image with bytes left over",
    cause: "failed check",
    message: DAMAGED,
    damage: (elf, head) => elf.writeUInt32LE(elf.readUInt32LE(head + 8) + 1, head + 8),
  },
  {
    name: "a packed image for another place",
    cause: "failed check",
    message: DAMAGED,
    damage: (elf, head) => elf.writeUInt32LE(elf.readUInt32LE(head) - 1, head),
  },
  {
    name: "an exception before anything is unpacked",
    cause: "cpu exception",
    message: "exception while the image was unpacked",
    // The streams would then lie where nothing is mapped.
    damage: (elf, head) => elf.writeUInt32LE(0x7ffffff0, head + 4),
  },
];

for (const { name, cause, message, damage } of DAMAGES) {
  test(`${name}: a panic that needs nothing of what is packed`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "vireo-damaged-"));
    t.cleanup(() => rmSync(folder, { recursive: true }));
    const elf = readFileSync("build/crash.elf");
    const { head, streams } = placesOf(elf);
    damage(elf, head, streams);
    const image = join(folder, "damaged.elf");
    writeFileSync(image, elf);
    const vm = await t.vm({ image, append: "check0", accelerator: "tcg" });
    const { events } = await vm.failure();
    const names = events.map(({ event }) => event);
    assert.equal(names, ["panic", "exit"]);
    assert.is(events[0]?.cause, cause);
    assert.is(events[0]?.message, message);
    assert.is(events[0]?.function, "user_unpack");
    assert.match(String(events[0]?.rip), /^0x[0-9a-f]+$/);
  });
}

test.run();
