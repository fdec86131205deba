// The image as a file: how it is built, how large it is, what a loader sees in it.
//
// Shares the machine: it builds and reads files.

import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, statSync } from "node:fs";
import { assert, suite } from "qemu-test-harness";
import { unpack } from "../unit/unpacker";

const test = suite("image", { timeoutMs: 120_000 });

const PROGRAM_HEADER_LOAD = 1;
const PROGRAM_HEADER_NOTE = 4;
const NOTE_PHYS32_ENTRY = 18;

/** The linked image: what the one that ships is when it is unpacked, and its symbols. */
const LINKED = "build/vireo/last.elf";

/** The program headers of an ELF64. */
function segmentsOf(elf: Buffer) {
  const headers = Number(elf.readBigUInt64LE(0x20));
  return Array.from({ length: elf.readUInt16LE(0x38) }, (_, i) => {
    const at = headers + 56 * i;
    const [offset, address, , bytes, memory] = [8, 16, 24, 32, 40].map((field) =>
      Number(elf.readBigUInt64LE(at + field)),
    ) as [number, number, number, number, number];
    return { type: elf.readUInt32LE(at), offset, address, bytes, memory };
  });
}

/** What a loader puts at an address: bytes of the file, and zeros behind them. */
function loaded(elf: Buffer, from: number, to: number): Buffer {
  const memory = Buffer.alloc(to - from);
  for (const { type, offset, address, bytes } of segmentsOf(elf)) {
    if (type !== PROGRAM_HEADER_LOAD || address >= to || address + bytes <= from) continue;
    const first = Math.max(from, address);
    elf.copy(
      memory,
      first - from,
      offset + first - address,
      offset + Math.min(bytes, to - address),
    );
  }
  return memory;
}

function addressOf(name: string): number {
  const map = readFileSync("build/vireo.map", "utf8");
  const line = map.split("\n").find((text) => text.endsWith(` ${name}`));
  assert.ok(line !== undefined, `no ${name} in build/vireo.map`);
  return Number.parseInt(line ?? "", 16);
}

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

test("unpacked, it is the linked image byte for byte", () => {
  const shipped = readFileSync("build/vireo.elf");
  const linked = readFileSync(LINKED);
  const [start, end] = [addressOf("unpacked_start"), addressOf("unpacked_end")];
  const [head, streams] = [addressOf("packed"), addressOf("packed_streams")];
  const [size, numbersBytes, bytesBytes] = [0, 4, 8].map((at) =>
    loaded(shipped, head, streams).readUInt32LE(at),
  ) as [number, number, number];
  assert.is(size, end - start);
  const middle = streams + numbersBytes;
  const packed = {
    numbers: loaded(shipped, streams, middle),
    bytes: loaded(shipped, middle, middle + bytesBytes),
  };
  assert.ok(unpack(packed, size).equals(loaded(linked, start, end)));
  // Everything else is where it was; of the packed part, the head alone was filled in.
  const base = addressOf("ring0_start");
  assert.ok(loaded(shipped, base, start).equals(loaded(linked, base, start)));
  assert.ok(loaded(shipped, end, head).equals(loaded(linked, end, head)));
  assert.ok(loaded(shipped, head + 16, streams).equals(loaded(linked, head + 16, streams)));
});

test("what it occupies in memory is told to the loader", () => {
  const loads = (file: string) =>
    segmentsOf(readFileSync(file))
      .filter(({ type }) => type === PROGRAM_HEADER_LOAD)
      .map(({ address, memory }) => ({ address, memory }));
  const [shipped, linked] = [loads("build/vireo.elf"), loads(LINKED)];
  assert.equal(shipped.slice(0, -1), linked.slice(0, -1));
  assert.is(shipped.at(-1)?.address, linked.at(-1)?.address);
  assert.is(shipped.at(-1)?.memory, segmentsOf(readFileSync("build/vireo.elf")).at(-1)?.bytes);
});

test("the full barrier is mfence, which QEMU keeps", () => {
  // docs/decisions.md: with one vCPU TCG makes a plain instruction of a locked one, and wake-ups
  // are lost about once in a million frames: too seldom to leave it to test/integration/wake-up.
  const elf = readFileSync(LINKED);
  const mfence = Buffer.from([0x0f, 0xae, 0xf0]);
  const lockedOrOnStack = Buffer.from([0xf0, 0x83, 0x0c, 0x24, 0x00]);
  assert.ok(elf.includes(mfence), "no mfence in the image");
  assert.is(elf.indexOf(lockedOrOnStack), -1);
});

test("a PVH note is its only way in", () => {
  const elf = readFileSync("build/vireo.elf");
  const notes = segmentsOf(elf).filter(({ type }) => type === PROGRAM_HEADER_NOTE);
  assert.is(notes.length, 1);
  const note = notes[0]?.offset ?? 0;
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
