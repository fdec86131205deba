// Clauses that no other suite comes across: what the driver must leave alone in configuration space
// and in the status, and whatever it may be shown there. Named after the clauses.

import { assert, suite } from "qemu-test-harness";
import { type Guest, makeGuest, startGuest } from "../model/guest";
import { USUAL_FEATURES } from "../model/net/net-device";
import type { NetHeader } from "../model/net/net-header";
import type { Capability } from "../model/virtio/pci-device";

const test = suite("clauses");

const payload = Buffer.from("by the letter");
/** With these a packet of several may come. */
const TUNNELLED = ["csum", "guest_csum", "guest_tso4", "guest_uso4", "host_uso"] as const;
const REVISION = 0x08;
const SUBSYSTEM = 0x2c;
const CAPABILITY_POINTER = 0x34;
const VIRTIO_CAPABILITY = 9;
const PCI_CFG = 5;
const VENDOR_CFG = 9;
const SUSPEND = 0x10;

for (const revision of [0, 1, 2, 0xff]) {
  test(`§4.1.2.2: revision ${revision} is bound`, (t) => {
    const guest = makeGuest(t);
    guest.nic.pci.space.bytes.writeUInt8(revision, REVISION);
    assert.equal(guest.start().echo(payload), payload);
  });
}

for (const [vendor, device] of [
  [0, 0],
  [0x1af4, 0x1100],
  [0xffff, 0xffff],
] as const) {
  test(`§4.1.2.2: subsystem ${vendor}, ${device} is bound`, (t) => {
    const guest = makeGuest(t);
    guest.nic.pci.space.bytes.writeUInt16LE(vendor, SUBSYSTEM);
    guest.nic.pci.space.bytes.writeUInt16LE(device, SUBSYSTEM + 2);
    assert.equal(guest.start().echo(payload), payload);
  });
}

/** How far the window for device memory is full, in bytes. */
function windowUsed(guest: Guest): number {
  return guest.machine.bus.mapDevice(0xfe00_0000, 1) - 1;
}

test("§4.1.4.1: of a huge structure only what is needed is mapped, at most 4 KiB", (t) => {
  const huge = (type: number, length: number) => (usual: readonly Capability[]) =>
    usual.map((one) => (one.type === type ? { ...one, length } : one));
  // The notifications' BAR is then large enough to hold such structures.
  const net = { notifyMultiplier: 0x10000 };
  const usual = startGuest(t, { net });
  const expected = windowUsed(usual);
  for (const type of [1, 4]) {
    const guest = startGuest(t, { net: { ...net, capabilities: huge(type, 0x20000) } });
    assert.is(windowUsed(guest), expected, `structure ${type}`);
    assert.equal(guest.echo(payload), payload);
  }
});

/** The offsets and lengths of the virtio capabilities of a type, or of all. */
function capabilitiesOf({ nic }: Guest, type?: number): { at: number; bytes: number }[] {
  const { bytes } = nic.pci.space;
  const found: { at: number; bytes: number }[] = [];
  for (let at = bytes[CAPABILITY_POINTER] ?? 0; at !== 0; at = bytes[at + 1] ?? 0) {
    const isWanted = type === undefined || bytes[at + 3] === type;
    if (bytes[at] !== VIRTIO_CAPABILITY || !isWanted) continue;
    found.push({ at, bytes: bytes[at + 2] ?? 0 });
  }
  return found;
}

/** Boots a guest with these capabilities more; answers what it did to configuration space. */
function watchSpace(guest: Guest): { reads: number[]; writes: number[] } {
  const { space } = guest.nic.pci;
  const seen = { reads: [] as number[], writes: [] as number[] };
  const [read, write] = [space.read.bind(space), space.write.bind(space)];
  space.read = (offset, width) => {
    seen.reads.push(offset);
    return read(offset, width);
  };
  space.write = (offset, width, value) => {
    seen.writes.push(offset);
    write(offset, width, value);
  };
  guest.start();
  guest.nic.pci.needReset();
  guest.settle();
  assert.equal(guest.errors(), ["the device needs a reset"]);
  assert.equal(guest.echo(payload), payload);
  return seen;
}

const within = (offsets: readonly number[], places: readonly { at: number; bytes: number }[]) =>
  offsets.filter((offset) => places.some(({ at, bytes }) => offset >= at && offset < at + bytes));

test("§4.1.4.1: no field of a virtio capability is ever written", (t) => {
  const guest = makeGuest(t);
  const { writes } = watchSpace(guest);
  assert.ok(writes.length > 0);
  assert.equal(within(writes, capabilitiesOf(guest)), []);
});

test("§4.1.4.9.2: the configuration access window is not used", (t) => {
  const access = { id: 9, type: PCI_CFG, bar: 4, offset: 0, length: 4, capBytes: 20 };
  const guest = makeGuest(t, { net: { capabilities: (usual) => [access, ...usual] } });
  const [place] = capabilitiesOf(guest, PCI_CFG);
  assert.ok(place !== undefined);
  const { reads, writes } = watchSpace(guest);
  const data = [{ at: (place?.at ?? 0) + 16, bytes: 4 }];
  assert.equal([...within(reads, data), ...within(writes, data)], []);
});

test("§4.1.4.8.2: vendor data is neither acted on nor written", (t) => {
  const vendor = { id: 9, type: VENDOR_CFG, bar: 0, offset: 0, length: 0, capBytes: 20 };
  const guest = makeGuest(t, { net: { capabilities: (usual) => [vendor, ...usual] } });
  const plain = makeGuest(t);
  const { writes } = watchSpace(guest);
  assert.equal(within(writes, capabilitiesOf(guest, VENDOR_CFG)), []);
  watchSpace(plain);
  assert.is(guest.nic.pci.common.accepted, plain.nic.pci.common.accepted);
});

test("§3.4.1: SUSPEND is never set, whether it is offered or not", (t) => {
  for (const moreFeatures of [0n, 1n << 43n]) {
    const guest = startGuest(t, { net: { moreFeatures } });
    guest.settle();
    const writes = guest.machine.log.entries.filter(
      ({ action, place }) => action === "write" && place === "common.device_status",
    );
    assert.ok(writes.length > 0);
    assert.ok(writes.every(({ value }) => (value & SUSPEND) === 0));
  }
});

test("§5.1.4.2: speed and duplex are read again when the configuration has changed", (t) => {
  const features = [...USUAL_FEATURES, "speed_duplex"] as const;
  const guest = startGuest(t, { net: { features } });
  guest.settle();
  guest.machine.log.clear();
  guest.nic.config.writeUInt32LE(2500, 12);
  guest.nic.config.writeUInt8(0, 16);
  guest.nic.pci.interruptConfig();
  guest.settle();
  assert.ok(guest.machine.log.lines(/read device\.(speed|duplex) /).length >= 2);
  const link = guest.machine.console.all("link").at(-1) as Record<string, unknown> | undefined;
  assert.equal([link?.up, link?.speed, link?.duplex], [true, 2500, "half"]);
});

test("§2.7.4.2: an answer has no more pieces than the packet had, and 18 at most", (t) => {
  const guest = startGuest(t);
  for (const spread of [100, 200, 400, 1000]) {
    guest.nic.receiver.spread = spread;
    const sent = Buffer.alloc(1400, spread);
    assert.equal(guest.echo(sent), sent);
    assert.ok(guest.nic.sender.lastSegments <= Math.ceil((12 + 42 + 1400) / spread));
    assert.ok(guest.nic.sender.lastSegments <= 18);
  }
});

test("§4.1.5.1.2.2: the configuration's vector is read back, and one that did not take is an error", (t) => {
  const guest = makeGuest(t);
  guest.nic.pci.tamper = (name, value) => (name === "config_msix_vector" ? 0xffff : value);
  guest.machine.boot();
  assert.equal(guest.errors(), ["the device has no room for its interrupt vectors"]);
  assert.is(guest.exitStatus(), 35);
});

test("§2.7.10.1: no notification when avail_event is the entry before the new ones", (t) => {
  const guest = startGuest(t);
  guest.settle();
  guest.nic.paused.tx = true;
  const { queue, ring, split } = guest.nic.live("tx");
  split.setAvailEvent(split.availIdx - 1);
  const before = queue.kicks;
  guest.nic.receive(guest.peer.echoRequest(payload));
  guest.settle();
  assert.is(ring.available(), 1);
  assert.is(queue.kicks, before);
  // The device looks all the same.
  queue.kicked = true;
  guest.nic.paused.tx = false;
  guest.settle();
});

test("§2.7.7.1: without event_idx interrupts are switched off by the flag while the ring is polled", (t) => {
  const features = USUAL_FEATURES.filter((name) => name !== "event_idx");
  const guest = startGuest(t, { net: { features } });
  guest.settle();
  guest.machine.log.clear();
  assert.equal(guest.echo(payload), payload);
  guest.settle();
  const writes = guest.machine.log.lines(/write rx.avail_flags/);
  assert.equal(writes, ["write rx.avail_flags 1", "write rx.avail_flags 0"]);
});

for (const gsoType of [0x21, 0x41, 0x61, 0x20, 0x25]) {
  for (const flags of [0, 1, 2]) {
    test(`§5.1.9.4.2: a packet of gso_type ${gsoType} with flags ${flags} is not accepted`, (t) => {
      const guest = startGuest(t, { net: { features: [...USUAL_FEATURES, ...TUNNELLED] } });
      const frame = guest.peer.echoRequest(payload);
      const header = { flags, gsoType, gsoSize: 8, hdrLen: 42, csumStart: 34, csumOffset: 6 };
      guest.nic.receive(frame, header);
      guest.settle();
      assert.equal(guest.stats().queues[0]?.rx.drops, { offload: 1 });
      assert.equal(guest.echo(payload), payload);
    });
  }
}

test("§5.1.9.2.1: with the tunnel features on offer no header has a tunnel bit", (t) => {
  const moreFeatures = 0xfn << 65n;
  const net = { features: [...USUAL_FEATURES, ...TUNNELLED], moreFeatures };
  const guest = startGuest(t, { net });
  assert.is(guest.nic.pci.common.accepted >> 64n, 0n);
  const seen: NetHeader[] = [];
  guest.nic.sender.onHandedOver = (header) => seen.push(header);
  for (let bytes = 18; bytes < 1400; bytes += 100) guest.echo(Buffer.alloc(bytes));
  assert.ok(seen.length > 10);
  assert.ok(seen.every(({ flags, gsoType }) => (gsoType & 0x60) === 0 && (flags & 8) === 0));
});

test.run();
