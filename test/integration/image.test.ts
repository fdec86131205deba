/**
 * The image as a file: how it is built, how large it is, what a loader sees in it.
 */
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, statSync } from "node:fs";
import { assert, suite } from "qemu-test-harness";

const test = suite("image", { timeoutMs: 120_000 });

const PROGRAM_HEADER_NOTE = 4;
const NOTE_PHYS32_ENTRY = 18;

test("two builds are byte-identical, whatever folder they are made in", () => {
  execFileSync("node", ["build/tools/build-image.mjs", "again", "asconfig.json"], {
    stdio: "pipe",
  });
  const same = readFileSync("build/again.elf").equals(readFileSync("build/vireo.elf"));
  for (const ending of ["elf", "map", "wasm"]) rmSync(`build/again.${ending}`);
  rmSync("build/again", { recursive: true });
  assert.ok(same, "build/again.elf differs from build/vireo.elf");
});

test("the image is smaller than 128 KiB", (t) => {
  const { size } = statSync("build/vireo.elf");
  t.log(`${size} bytes, ${(size / 1024).toFixed(1)} KiB`);
  assert.ok(size < 128 * 1024);
});

test("the full barrier is mfence, which QEMU keeps", () => {
  // docs/decisions.md: with one vCPU TCG makes a plain instruction of a locked one, and wake-ups
  // are lost about once in a million frames: too seldom to leave it to test/integration/wake-up.
  const elf = readFileSync("build/vireo.elf");
  const mfence = Buffer.from([0x0f, 0xae, 0xf0]);
  const lockedOrOnStack = Buffer.from([0xf0, 0x83, 0x0c, 0x24, 0x00]);
  assert.ok(elf.includes(mfence), "no mfence in the image");
  assert.is(elf.indexOf(lockedOrOnStack), -1);
});

test("a PVH note is its only way in", () => {
  const elf = readFileSync("build/vireo.elf");
  const headers = Number(elf.readBigUInt64LE(0x20));
  const notes = Array.from({ length: elf.readUInt16LE(0x38) }, (_, i) => headers + 56 * i).filter(
    (header) => elf.readUInt32LE(header) === PROGRAM_HEADER_NOTE,
  );
  assert.is(notes.length, 1);
  const note = Number(elf.readBigUInt64LE((notes[0] ?? 0) + 8));
  assert.is(elf.readUInt32LE(note + 8), NOTE_PHYS32_ENTRY);
  assert.is(elf.toString("latin1", note + 12, note + 15), "Xen");
  // QEMU refuses an ELF64 in whose first 8 KiB it finds the multiboot magic.
  assert.is(elf.subarray(0, 8192).indexOf(Buffer.from([0x02, 0xb0, 0xad, 0x1b])), -1);
});

test("the map names the driver's functions", () => {
  const map = readFileSync("build/vireo.map", "utf8");
  assert.match(map, /drivers0x2Fnet0x2Fdevice0x2FNetDevice0x23/);
  assert.match(map, / pvh_entry$/m);
});

test.run();
