// A device whose capabilities, BARs and registers lie, before the queues run: each is an error that
// names it and status 35, or is passed over; nothing traps and nothing outside a BAR is touched.
// virtio 1.4 §4.1.4

import { assert, suite, type TestContext } from "qemu-test-harness";
import { type Guest, makeGuest, startGuest } from "../model/guest";
import type { NetOptions } from "../model/net/net-device";
import { STATUS } from "../model/virtio/common-config";
import type { Capability } from "../model/virtio/pci-device";

const test = suite("hostile PCI");

const payload = Buffer.from("found all the same");
const COMMON = 1;
const NOTIFY = 2;
const DEVICE = 4;

/** Changes the capability of one type. */
function bend(type: number, change: Partial<Capability>): Partial<NetOptions> {
  const capabilities = (usual: readonly Capability[]) =>
    usual.map((capability) =>
      capability.type === type ? { ...capability, ...change } : capability,
    );
  return { capabilities };
}

/** Boots a guest that must fail with `message`. */
function fails(t: TestContext, net: Partial<NetOptions>, message: string | RegExp): Guest {
  const guest = makeGuest(t, { net });
  guest.machine.boot();
  const errors = guest.errors();
  assert.is(errors.length, 1, errors.join());
  assert.match(errors[0] ?? "", message);
  assert.is(guest.exitStatus(), 35);
  return guest;
}

function works(t: TestContext, net: Partial<NetOptions>): Guest {
  const guest = startGuest(t, { net });
  assert.equal(guest.echo(payload), payload);
  return guest;
}

/** Lies about where a structure is; each must make it unusable. */
const LIES: readonly (readonly [string, Partial<Capability>])[] = [
  ["BAR 6", { bar: 6 }],
  ["BAR 255", { bar: 255 }],
  ["a BAR that is not there", { bar: 2 }],
  ["the upper half of a 64-bit BAR", { bar: 5 }],
  ["an offset beyond the BAR", { offset: 0x10_0000 }],
  ["an end beyond the BAR", { offset: 0x3ffc, length: 0x1000 }],
  ["offset and length whose sum wraps", { offset: 0xffff_fff0, length: 0x20 }],
  ["a length of 0", { length: 0 }],
  ["a cap_len that is too short", { capBytes: 8 }],
];

const MESSAGES = {
  [COMMON]: "no common configuration structure",
  [NOTIFY]: "no usable notification structure",
  [DEVICE]: "no usable device configuration structure",
} as const;

for (const type of [COMMON, NOTIFY, DEVICE] as const) {
  for (const [what, lie] of LIES) {
    test(`structure ${type}: ${what} is an error`, (t) => {
      fails(t, bend(type, lie), MESSAGES[type]);
    });

    test(`structure ${type}: ${what} is passed over for a sound one (§4.1.4.1)`, (t) => {
      const capabilities = (usual: readonly Capability[]) => [
        ...usual.filter((one) => one.type === type).map((one) => ({ ...one, ...lie })),
        ...usual,
      ];
      works(t, { capabilities });
    });
  }
}

test("no reserved BAR number from 6 to 255 leads anywhere (§4.1.4.1)", (t) => {
  for (let bar = 6; bar <= 255; bar++) fails(t, bend(COMMON, { bar }), MESSAGES[COMMON]);
});

test("a common structure that is too short is an error", (t) => {
  fails(t, bend(COMMON, { length: 55 }), "no common configuration structure");
});

test("the first of two sound structures is taken (§4.1.4.1)", (t) => {
  const capabilities = (usual: readonly Capability[]) => [
    ...usual,
    ...usual.map((one) => ({ ...one, bar: 1, offset: 0 })),
  ];
  works(t, { capabilities });
});

test("a structure of type 0xff and vendor data are passed over (§4.1.4.1)", (t) => {
  const capabilities = (usual: readonly Capability[]) => [
    { id: 9, type: 0xff, bar: 4, offset: 0, length: 64, capBytes: 16 },
    { id: 9, type: 9, bar: 0, offset: 0, length: 0, capBytes: 16 },
    ...usual,
  ];
  works(t, { capabilities });
});

test("a longer cap_len and longer structures are no errors (§4.1.4.1)", (t) => {
  const capabilities = (usual: readonly Capability[]) =>
    usual.map((one) => ({ ...one, capBytes: one.capBytes + 4, length: one.length + 512 }));
  works(t, { capabilities });
});

test("no capabilities at all: an error", (t) => {
  fails(t, { capabilities: () => [], msixEntries: 0 }, "no common configuration structure");
});

test("a capability list that loops ends in an error", (t) => {
  const guest = makeGuest(t, { net: { capabilities: (usual) => usual.slice(1), msixEntries: 0 } });
  // The last capability leads back to the first.
  const first = guest.nic.pci.space.bytes.readUInt8(0x34);
  let at = first;
  for (let next = at; next !== 0; next = guest.nic.pci.space.bytes.readUInt8(at + 1)) at = next;
  guest.nic.pci.space.bytes.writeUInt8(first, at + 1);
  guest.machine.boot();
  assert.equal(guest.errors().length, 1);
  assert.is(guest.exitStatus(), 35);
});

test("a capability that points to itself ends in an error", (t) => {
  const guest = makeGuest(t, { net: { capabilities: (usual) => usual.slice(1), msixEntries: 0 } });
  const first = guest.nic.pci.space.bytes.readUInt8(0x34);
  guest.nic.pci.space.bytes.writeUInt8(first, first + 1);
  guest.machine.boot();
  assert.equal(guest.errors().length, 1);
  assert.is(guest.exitStatus(), 35);
});

for (const size of [0, 1]) {
  test(`a queue size of ${size} is an error, with FAILED`, (t) => {
    const guest = fails(t, { rxSize: size }, "the device's queue sizes are unusable");
    assert.ok(guest.nic.pci.common.status & STATUS.failed);
  });
}

for (const offset of [2, 0x100, 0xffff]) {
  test(`a notification register at ${offset} times the multiplier is an error`, (t) => {
    const guest = makeGuest(t);
    guest.nic.pci.tamper = (name, value) => (name === "queue_notify_off" ? offset : value);
    guest.machine.boot();
    assert.equal(guest.errors(), ["a notification register lies outside its BAR"]);
    assert.ok(guest.nic.pci.common.status & STATUS.failed);
    assert.is(guest.exitStatus(), 35);
  });
}

test("a multiplier that is huge is an error", (t) => {
  fails(t, bend(NOTIFY, { multiplier: 0xffff_fffe }), "a notification register lies outside");
});

test("an MSI-X table outside its BAR means no MSI-X, and a warning", (t) => {
  const guest = makeGuest(t);
  const { bytes } = guest.nic.pci.space;
  const capability = bytes.readUInt8(0x34);
  assert.is(bytes.readUInt8(capability), 0x11);
  bytes.writeUInt32LE(0x10_0001, capability + 4);
  guest.start();
  assert.match(guest.machine.console.find("warning")?.message ?? "", /no MSI-X/);
  assert.equal(guest.echo(payload), payload);
});

test("all ones in every register, as from a device that was pulled: an error", (t) => {
  const guest = makeGuest(t);
  guest.nic.pci.tamper = () => 0xffff_ffff;
  guest.machine.boot();
  assert.equal(guest.errors().length, 1);
  assert.is(guest.exitStatus(), 35);
});

test("a queue that becomes smaller over a reset is an error", (t) => {
  const guest = startGuest(t);
  guest.nic.pci.tamper = (name, value) => (name === "queue_size" ? 16 : value);
  guest.nic.pci.needReset();
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.is(guest.errors().at(-1), "the device's queues have become smaller");
  assert.is(guest.exitStatus(), 35);
});

test.run();
