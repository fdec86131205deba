// The harness's vhost-user device without QEMU: messages, memory of a file, and rings in it, written
// as a driver would, rightly and wrongly. That the device finds a driver's faults is what makes its
// word worth something in integration tests.

import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  assert,
  F_AVAIL,
  F_USED,
  PackedDeviceRing,
  SplitDeviceRing,
  suite,
} from "qemu-test-harness";
import { GuestMemory } from "../harness/src/backends/vhost-user-device-memory";
import {
  numberReply,
  parseHeader,
  parseMemoryTable,
  parseVringAddresses,
  REQUEST,
} from "../harness/src/backends/vhost-user-device-protocol";
import type { RingSetup } from "../harness/src/backends/vhost-user-device-ring";
import { loadSystem } from "../harness/src/backends/vhost-user-device-system";

const test = suite("vhost-user device, parts");

const BYTES = 0x1_0000;
/** Where the guest and the front end have it. */
const GUEST = 0x10_0000;
const USER = 0x7f00_0000_0000n;
const DESC = GUEST;
const DRIVER = GUEST + 0x1000;
const DEVICE = GUEST + 0x2000;
const TABLE = GUEST + 0x3000;
const BUFFER = GUEST + 0x8000;
const SIZE = 4;
const [NEXT, WRITE, INDIRECT] = [1, 2, 4];

/** Guest memory in a file, for the length of `use`. */
async function withMemory(use: (memory: GuestMemory) => void): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "harness-vhost-"));
  try {
    const path = join(directory, "memory");
    writeFileSync(path, Buffer.alloc(BYTES));
    const fd = openSync(path, "r+");
    const memory = new GuestMemory(await loadSystem());
    memory.replace([{ guest: GUEST, bytes: BYTES, user: USER, offset: 0 }], [fd]);
    try {
      use(memory);
    } finally {
      memory.close();
    }
    assert.throws(() => memory.load16(GUEST), /no memory of the guest/);
    assert.throws(() => closeSync(fd), /EBADF/);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function setup(fields: Partial<RingSetup> = {}): RingSetup {
  const places = { desc: DESC, driver: DRIVER, device: DEVICE };
  const flags = { eventIdx: false, indirect: true, receives: true };
  return { name: "queue", size: SIZE, base: 0, ...places, ...flags, ...fields };
}

interface Descriptor {
  readonly address?: number;
  readonly bytes?: number;
  readonly flags?: number;
  /** next of a split ring, id of a packed one. */
  readonly link?: number;
}

function describe(memory: GuestMemory, at: number, fields: Descriptor, isPacked: boolean): void {
  const { address = BUFFER, bytes = 100, flags = WRITE, link = 0 } = fields;
  memory.store64(at, BigInt(address));
  memory.store32(at + 8, bytes);
  memory.store16(at + 12, isPacked ? link : flags);
  memory.store16(at + 14, isPacked ? flags : link);
}

function splitRing(
  memory: GuestMemory,
  descriptors: readonly Descriptor[],
  heads: readonly number[],
  fields: Partial<RingSetup> = {},
): SplitDeviceRing {
  for (const [i, one] of descriptors.entries()) describe(memory, DESC + 16 * i, one, false);
  for (const [i, head] of heads.entries()) memory.store16(DRIVER + 4 + 2 * (i % SIZE), head);
  memory.store16(DRIVER + 2, heads.length);
  return new SplitDeviceRing(memory, setup(fields));
}

function packedRing(
  memory: GuestMemory,
  descriptors: readonly Descriptor[],
  fields: Partial<RingSetup> = {},
): PackedDeviceRing {
  for (const [i, one] of descriptors.entries()) {
    const flags = (one.flags ?? WRITE) | F_AVAIL;
    describe(memory, DESC + 16 * i, { ...one, flags }, true);
  }
  return new PackedDeviceRing(memory, setup({ base: 0x8000_8000, ...fields }));
}

test("messages: what is not a request of this version is refused", () => {
  const header = (request: number, flags: number, size: number) =>
    Buffer.from(Uint32Array.of(request, flags, size).buffer);
  assert.equal(parseHeader(header(REQUEST.SET_VRING_NUM, 9, 8)), {
    request: REQUEST.SET_VRING_NUM,
    needsReply: true,
    size: 8,
  });
  assert.throws(() => parseHeader(header(8, 2, 8)), "vhost-user: SET_VRING_NUM with flags 2");
  assert.throws(() => parseHeader(header(8, 5, 8)), "vhost-user: SET_VRING_NUM with flags 5");
  assert.throws(() => parseHeader(header(99, 1, 4096)), "vhost-user: request 99 of 4096 bytes");
  assert.throws(() => parseVringAddresses(Buffer.alloc(39)), /of 39 bytes, not 40/);
  const table = Buffer.alloc(40);
  table.writeUInt32LE(2);
  assert.throws(() => parseMemoryTable(table), /of 2 regions of 40 bytes, not 72/);
  assert.is(
    numberReply(REQUEST.GET_FEATURES, 0x1_0000_0001n).toString("hex"),
    "0100000005000000080000000100000001000000",
  );
});

test("memory: by the guest's addresses and by the front end's, and nowhere else", () =>
  withMemory((memory) => {
    assert.is(memory.fromUser(USER + 0x1234n), GUEST + 0x1234);
    assert.throws(() => memory.fromUser(USER + BigInt(BYTES)), /is unknown/);
    memory.store64(GUEST + BYTES - 8, 0x1122_3344_5566_7788n);
    assert.is(memory.load16(GUEST + BYTES - 2), 0x1122);
    assert.throws(() => memory.load64(GUEST + BYTES - 4), /no memory of the guest/);
    assert.throws(() => memory.bytes(GUEST - 1, 2), /no memory of the guest/);
  }));

test("split: buffers are taken in order, chains followed, and given back", () =>
  withMemory((memory) => {
    const chain = [{ flags: WRITE | NEXT, link: 2 }, {}, { address: BUFFER + 512, bytes: 7 }];
    const ring = splitRing(memory, chain, [0, 1]);
    const first = ring.take();
    assert.equal(first?.segments, [
      { address: BUFFER, bytes: 100, writable: true },
      { address: BUFFER + 512, bytes: 7, writable: true },
    ]);
    assert.is(ring.take()?.id, 1);
    assert.is(ring.take(), undefined);
    assert.ok(first !== undefined);
    ring.give(first, 55);
    assert.is(memory.load16(DEVICE + 2), 0);
    ring.publish();
    assert.equal([memory.load16(DEVICE + 2), memory.load32(DEVICE + 8)], [1, 55]);
    assert.is(ring.base(), 2);
  }));

test("split: what a driver must not do is found", () =>
  withMemory((memory) => {
    const wrong = (
      descriptors: readonly Descriptor[],
      heads: readonly number[],
      message: RegExp,
      fields?: Partial<RingSetup>,
    ) => {
      const ring = splitRing(memory, descriptors, heads, fields);
      const takeAll = () => {
        for (let i = 0; i < heads.length; i++) ring.take();
      };
      assert.throws(takeAll, message);
    };
    wrong([{}], [SIZE], /descriptor 4 is beyond the ring/);
    wrong([{}], [0, 0], /buffer 0 is outstanding already/);
    wrong([{}], [0, 0, 0, 0, 0], /§2.7.6.1: 5 available and 0 taken of 4/);
    wrong([{ flags: WRITE | NEXT, link: 0 }], [0], /§2.7.5.2: the chain of 0 loops/);
    wrong([{ flags: 0 }], [0], /a buffer is not writable/);
    wrong([{}], [0], /a buffer is writable/, { receives: false });
    wrong([{ bytes: 0 }], [0], /a descriptor of 0 bytes/);
    wrong([{ address: GUEST + BYTES - 50 }], [0], /100 bytes at 0x10ffce are not memory/);
    wrong([{ flags: 8 }], [0], /flags 8/);
    wrong([{ flags: INDIRECT, address: TABLE, bytes: 24 }], [0], /a table of 24 bytes/);
    wrong([{ flags: INDIRECT, address: TABLE, bytes: 80 }], [0], /a table of 80 bytes/);
    wrong([{ flags: INDIRECT, bytes: 16 }], [0], /was not negotiated/, { indirect: false });
    describe(memory, TABLE, { flags: INDIRECT }, false);
    wrong([{ flags: INDIRECT, address: TABLE, bytes: 16 }], [0], /a table in a table/);
  }));

test("packed: buffers are taken and given back around the ring's end, with the wrap counters", () =>
  withMemory((memory) => {
    const three = [{ link: 3 }, { flags: WRITE | NEXT, link: 1 }, { link: 1 }];
    const ring = packedRing(memory, three);
    const [first, second] = [ring.take(), ring.take()];
    assert.equal([first?.id, first?.slots, second?.id, second?.slots], [3, 1, 1, 2]);
    assert.is(ring.take(), undefined);
    assert.ok(first !== undefined && second !== undefined);
    ring.give(second, 20);
    ring.give(first, 10);
    ring.publish();
    // A used descriptor each, the second behind as many slots as the first one's buffer had.
    assert.equal([memory.load16(DESC + 12), memory.load32(DESC + 8)], [1, 20]);
    assert.is(memory.load16(DESC + 14), F_AVAIL | F_USED | WRITE);
    assert.equal([memory.load16(DESC + 44), memory.load32(DESC + 40)], [3, 10]);
    // The last slot of this lap, and then the first of the next, whose marks are the other way.
    describe(memory, DESC + 48, { link: 0, flags: F_AVAIL | WRITE }, true);
    assert.is(ring.take()?.id, 0);
    describe(memory, DESC, { link: 2, flags: F_AVAIL | WRITE }, true);
    assert.is(ring.take(), undefined);
    describe(memory, DESC, { link: 2, flags: F_USED | WRITE }, true);
    const last = ring.take();
    assert.is(last?.id, 2);
    assert.is(ring.base(), (1 | (3 << 16) | (0x8000 << 16)) >>> 0);
    ring.untake(last === undefined ? [] : [last]);
    assert.is(ring.base() & 0xffff, 0);
  }));

test("packed: what a driver must not do is found", () =>
  withMemory((memory) => {
    const wrong = (descriptors: readonly Descriptor[], message: RegExp) => {
      memory.bytes(DESC, 16 * SIZE).fill(0);
      const ring = packedRing(memory, descriptors);
      const takeAll = () => {
        for (let i = 0; i < descriptors.length; i++) ring.take();
      };
      assert.throws(takeAll, message);
    };
    wrong([{ link: SIZE }], /buffer id 4 in a ring of 4/);
    wrong([{ link: 1 }, { link: 1 }], /buffer 1 is outstanding already/);
    wrong([{ flags: WRITE | NEXT }], /§2.8.17: slot 1 is not in place/);
    wrong([{ flags: 0x10 }], /flags 144/);
    wrong([{ flags: INDIRECT | NEXT, bytes: 16 }], /an indirect table within a list/);
    describe(memory, TABLE, { flags: NEXT | WRITE }, true);
    wrong([{ flags: INDIRECT, address: TABLE, bytes: 16 }], /flags 3 in a table/);
    memory.store16(DRIVER + 2, 2);
    assert.throws(() => packedRing(memory, []).wantsInterrupt(), /driver event flags 2/);
    memory.store16(DRIVER, 4);
    const eventIdx = packedRing(memory, [], { eventIdx: true });
    assert.throws(() => eventIdx.wantsInterrupt(), /driver event at 4 of 4/);
  }));

test.run();
