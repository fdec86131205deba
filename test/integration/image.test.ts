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

test("the image is smaller than 128 KiB", () => {
  assert.ok(statSync("build/vireo.elf").size < 128 * 1024);
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
  assert.match(map, /drivers0x2Fnet0x2Fdevice0x2FNetDevice0x23bringUp/);
  assert.match(map, / pvh_entry$/m);
});

test.run();
