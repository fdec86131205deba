// Received packets with work left to do, with work already done, with several packets in one; and
// headers that lie. virtio 1.4 §5.1.9.4.2

import type { TestContext } from "qemu-test-harness";
import { assert, internetChecksum, onesSum, parseUdpFrame, suite } from "qemu-test-harness";
import { type Guest, type GuestOptions, startGuest } from "../model/guest";
import { USUAL_FEATURES } from "../model/net/net-device";
import { FLAG, GSO, type NetHeader } from "../model/net/net-header";
import { Random } from "../model/random";
import type { FeatureName } from "../model/virtio/features";

const test = suite("offloads, receiving", { timeoutMs: 30_000 });

const UDP_START = 34;
const PARTIAL = { flags: FLAG.needsCsum, csumStart: UDP_START, csumOffset: 6 } as const;
const WITH: readonly FeatureName[] = [...USUAL_FEATURES, "guest_csum"];
const LARGE: readonly FeatureName[] = [...WITH, "guest_tso4", "guest_uso4", "guest_tso6"];
const BOTH: readonly FeatureName[] = [...LARGE, "csum", "host_tso4", "host_uso"];
const payload = Buffer.from("still in one piece");

function start(t: TestContext, features: readonly FeatureName[], rest: GuestOptions = {}): Guest {
  const guest = startGuest(t, { ...rest, net: { features, ...rest.net } });
  guest.settle();
  return guest;
}

/** The UDP frame with the sum of its pseudo header where the checksum belongs. */
function partial(frame: Buffer): Buffer {
  const copy = Buffer.from(frame);
  const rest = Buffer.of(0, 17, 0, 0);
  rest.writeUInt16BE(frame.length - UDP_START, 2);
  copy.writeUInt16BE(onesSum(Buffer.concat([frame.subarray(26, 34), rest])), UDP_START + 6);
  return copy;
}

/** The frame with a wrong UDP checksum. */
function corrupt(frame: Buffer): Buffer {
  const copy = Buffer.from(frame);
  copy.writeUInt16BE(copy.readUInt16BE(UDP_START + 6) ^ 0x5555, UDP_START + 6);
  return copy;
}

/** What comes back for a frame with this header; undefined for nothing. */
function answer(guest: Guest, frame: Buffer, header: Partial<NetHeader> = {}): Buffer[] {
  const before = guest.peer.frames.length;
  guest.nic.receive(frame, header);
  guest.settle();
  return guest.peer.frames.slice(before);
}

const drops = (guest: Guest) => guest.stats().queues[0]?.rx.drops;

// ---- partial checksums -----------------------------------------------------------------------------

for (const csum of [true, false]) {
  const features = csum ? [...WITH, "csum" as const] : WITH;
  const how = csum ? "csum: the device completes it" : "no csum: the guest completes it";
  for (const bytes of [0, 1, 2, 17, 18, 777, 1471, 1472]) {
    test(`a partial checksum over ${bytes} bytes comes back right, ${how}`, (t) => {
      const guest = start(t, features);
      const data = Buffer.from(Array.from({ length: bytes }, (_, i) => (7 * i) & 255));
      const [back] = answer(guest, partial(guest.peer.echoRequest(data)), PARTIAL);
      assert.equal(back && parseUdpFrame(back)?.udp.payload, data);
      assert.is(guest.nic.sender.lastHeader.flags, csum ? FLAG.needsCsum : 0);
      assert.equal(drops(guest), {});
    });
  }

  test(`a partial checksum in a merged frame comes back right, ${how}`, (t) => {
    const guest = start(t, features, { net: { mtu: 9000 } });
    guest.nic.receiver.spread = 700;
    const data = Buffer.alloc(8000, 0x3c);
    const [back] = answer(guest, partial(guest.peer.echoRequest(data)), PARTIAL);
    assert.equal(back && parseUdpFrame(back)?.udp.payload, data);
  });

  test(`a sum of zero is sent as ffff, ${how}`, (t) => {
    const guest = start(t, features);
    // The two bytes that make the whole sum 0.
    const frame = guest.peer.echoRequest(Buffer.alloc(2));
    const data = Buffer.alloc(2);
    data.writeUInt16BE(frame.readUInt16BE(UDP_START + 6));
    const zero = guest.peer.echoRequest(data);
    assert.is(zero.readUInt16BE(UDP_START + 6), 0xffff);
    const [back] = answer(guest, partial(zero), PARTIAL);
    assert.is(back?.readUInt16BE(UDP_START + 6), 0xffff);
  });

  test(`a ping with a partial checksum is answered right, ${how}`, (t) => {
    const guest = start(t, features);
    const frame = guest.peer.ping(3, payload);
    frame.writeUInt16BE(0, UDP_START + 2);
    const [back] = answer(guest, frame, { ...PARTIAL, csumOffset: 2 });
    assert.is(back?.readUInt8(UDP_START), 0);
    assert.is(internetChecksum(back?.subarray(UDP_START) ?? Buffer.alloc(1)), 0);
  });
}

test("without guest_csum NEEDS_CSUM says nothing: a partial checksum is a wrong one", (t) => {
  const guest = start(t, USUAL_FEATURES);
  assert.equal(answer(guest, partial(guest.peer.echoRequest(payload)), PARTIAL), []);
  assert.equal(drops(guest), { udp_checksum: 1 });
});

// ---- checked and unchecked -------------------------------------------------------------------------

test("DATA_VALID: the device's word is taken", (t) => {
  const guest = start(t, WITH);
  const frame = corrupt(guest.peer.echoRequest(payload, 9));
  answer(guest, frame, { flags: FLAG.dataValid });
  assert.is((guest.stats() as unknown as { discarded: number }).discarded, 1);
  assert.equal(drops(guest), {});
});

test("DATA_VALID without guest_csum is nobody's word: a wrong checksum is dropped", (t) => {
  const guest = start(t, USUAL_FEATURES);
  answer(guest, corrupt(guest.peer.echoRequest(payload)), { flags: FLAG.dataValid });
  assert.equal(drops(guest), { udp_checksum: 1 });
});

for (const features of [USUAL_FEATURES, WITH]) {
  const what = features === WITH ? "guest_csum" : "no guest_csum";
  test(`no flags, ${what}: the checksum is looked at, a wrong one dropped`, (t) => {
    const guest = start(t, features);
    assert.equal(answer(guest, corrupt(guest.peer.echoRequest(payload))), []);
    assert.equal(drops(guest), { udp_checksum: 1 });
    assert.equal(guest.echo(payload), payload);
  });
}

for (const flags of [0x08, 0x10, 0x20, 0x40, 0x80, 0xf8]) {
  test(`flags 0x${flags.toString(16)} are unknown and have no effect`, (t) => {
    const guest = start(t, WITH);
    const [back] = answer(guest, guest.peer.echoRequest(payload), { flags });
    assert.equal(back && parseUdpFrame(back)?.udp.payload, payload);
    answer(guest, corrupt(guest.peer.echoRequest(payload)), { flags });
    assert.equal(drops(guest), { udp_checksum: 1 });
  });
}

test("flags of 0xff without guest_csum have no effect", (t) => {
  const guest = start(t, USUAL_FEATURES);
  const [back] = answer(guest, guest.peer.echoRequest(payload), { flags: 0xff, csumStart: 65_535 });
  assert.equal(back && parseUdpFrame(back)?.udp.payload, payload);
});

for (const flags of [FLAG.rscInfo, FLAG.rscInfo | FLAG.needsCsum]) {
  test(`flags ${flags}: with RSC_INFO csum_start and csum_offset are no offsets`, (t) => {
    const guest = start(t, [...WITH, "csum"]);
    const header = { flags, csumStart: 65_000, csumOffset: 65_000 };
    const [back] = answer(guest, guest.peer.echoRequest(payload), header);
    assert.equal(back && parseUdpFrame(back)?.udp.payload, payload);
    assert.is(guest.nic.sender.lastHeader.flags, 0);
  });
}

test("csum_start and csum_offset without NEEDS_CSUM are not used", (t) => {
  const guest = start(t, [...WITH, "csum"]);
  const header = { csumStart: 65_000, csumOffset: 65_000, hdrLen: 65_000, gsoSize: 65_000 };
  const [back] = answer(guest, guest.peer.echoRequest(payload), header);
  assert.equal(back && parseUdpFrame(back)?.udp.payload, payload);
});

// ---- lies ------------------------------------------------------------------------------------------

for (const [csumStart, csumOffset] of [
  [65_535, 65_535],
  [65_535, 0],
  [0, 65_535],
  [59, 0],
  [34, 25],
] as const) {
  test(`csum_start ${csumStart}, csum_offset ${csumOffset} in 60 bytes: dropped, counted`, (t) => {
    const guest = start(t, [...WITH, "csum"]);
    const frame = guest.peer.echoRequest(Buffer.alloc(18));
    const header = { flags: FLAG.needsCsum, csumStart, csumOffset };
    assert.equal(answer(guest, frame, header), []);
    assert.equal(drops(guest), { offload: 1 });
    assert.equal(guest.echo(payload), payload);
  });
}

for (const gsoType of [1, 2, 3, 4, 5, 6, 31, 0x20, 0x40, 0x7f, 0x81, 0xff]) {
  test(`gso_type ${gsoType}, not negotiated: dropped and counted`, (t) => {
    const guest = start(t, [...WITH, "csum"]);
    const frame = partial(guest.peer.echoRequest(payload));
    assert.equal(answer(guest, frame, { ...PARTIAL, gsoType, gsoSize: 100 }), []);
    assert.equal(drops(guest), { offload: 1 });
    assert.equal(guest.echo(payload), payload);
  });
}

for (const [what, gsoType, features] of [
  ["of TCP without guest_ecn", GSO.tcpv4 | GSO.ecn, BOTH],
  ["of UDP", GSO.udpL4 | GSO.ecn, [...BOTH, "guest_ecn"]],
  ["without segmentation", GSO.ecn, [...BOTH, "guest_ecn"]],
] as [string, number, FeatureName[]][]) {
  test(`an ECN bit ${what}: dropped and counted`, (t) => {
    const guest = start(t, features);
    const frame = partial(guest.peer.echoRequest(Buffer.alloc(500)));
    assert.equal(answer(guest, frame, { ...PARTIAL, gsoType, gsoSize: 100 }), []);
    assert.equal(drops(guest), { offload: 1 });
    assert.equal(guest.echo(payload), payload);
  });
}

test("a gso_type without NEEDS_CSUM is dropped and counted", (t) => {
  const guest = start(t, BOTH);
  const header = { gsoType: GSO.udpL4, gsoSize: 100 };
  assert.equal(answer(guest, guest.peer.echoRequest(Buffer.alloc(500)), header), []);
  assert.equal(drops(guest), { offload: 1 });
});

// ---- several packets in one ------------------------------------------------------------------------

const SHAPES = [
  { name: "merged", features: BOTH, memoryMib: 32 },
  { name: "in large buffers", features: BOTH.filter((n) => n !== "mrg_rxbuf"), memoryMib: 96 },
];

for (const { name, features, memoryMib } of SHAPES) {
  for (const [bytes, gsoSize] of [
    [2000, 1000],
    [20_000, 1472],
    [65_000, 1400],
    [65_507, 1472],
  ] as const) {
    test(`UDP of ${bytes} bytes in pieces of ${gsoSize}, ${name}, comes back whole`, (t) => {
      const guest = start(t, features, { memoryMib });
      const data = Buffer.from(Array.from({ length: bytes }, (_, i) => (i ^ (i >> 8)) & 255));
      const header = { ...PARTIAL, gsoType: GSO.udpL4, gsoSize, hdrLen: 42 };
      const back = answer(guest, partial(guest.peer.echoRequest(data)), header);
      const parts = back.map((piece) => parseUdpFrame(piece)?.udp.payload ?? Buffer.alloc(0));
      assert.is(parts.length, Math.ceil(bytes / gsoSize));
      assert.ok(Buffer.concat(parts).equals(data));
      assert.equal(drops(guest), {});
    });
  }

  test(`hdr_len is not trusted, ${name}`, (t) => {
    const guest = start(t, [...features, "guest_hdrlen"], { memoryMib });
    for (const hdrLen of [0, 1, 41, 43, 1000, 65_535]) {
      const header = { ...PARTIAL, gsoType: GSO.udpL4, gsoSize: 1000, hdrLen };
      const frame = partial(guest.peer.echoRequest(Buffer.alloc(3000)));
      assert.is(answer(guest, frame, header).length, 3);
      assert.is(guest.nic.sender.lastHeader.hdrLen, 42);
    }
  });

  test(`without host_uso a long answer is dropped and counted, ${name}`, (t) => {
    const some = features.filter((feature) => feature !== "host_uso");
    const guest = start(t, some, { memoryMib });
    const before = guest.stats().queues[0]?.pool_free;
    const header = { ...PARTIAL, gsoType: GSO.udpL4, gsoSize: 1000, hdrLen: 42 };
    const frame = partial(guest.peer.echoRequest(Buffer.alloc(10_000)));
    for (let i = 0; i < 10; i++) assert.equal(answer(guest, frame, header), []);
    assert.equal(guest.stats().queues[0]?.tx.drops, { too_long: 10 });
    assert.is(guest.stats().queues[0]?.pool_free, before);
    assert.equal(guest.echo(payload), payload);
  });

  test(`TCP of 60,000 bytes, ${name}, is counted by sink with all its bytes`, (t) => {
    const guest = start(t, [...features, "guest_ecn"], { commandLine: "app=sink", memoryMib });
    const frame = Buffer.alloc(60_054);
    guest.peer.echoRequest(Buffer.alloc(0)).copy(frame);
    frame.writeUInt8(6, 23);
    const gsoTypes = [GSO.tcpv4, GSO.tcpv4 | GSO.ecn];
    for (const gsoType of gsoTypes) {
      const header = {
        flags: 1,
        csumStart: 34,
        csumOffset: 16,
        gsoType,
        gsoSize: 1448,
        hdrLen: 54,
      };
      for (let i = 0; i < 20; i++) guest.nic.receive(frame, header);
    }
    guest.settle();
    const { packets, bytes } = guest.stats().queues[0]?.rx ?? { packets: 0, bytes: 0 };
    assert.equal([packets, bytes], [40, 40 * 60_054]);
  });

  test(`3,000 headers at random, ${name}: no trap, no leak, traffic in the end`, (t) => {
    const guest = start(t, features, { memoryMib });
    guest.machine.log.enabled = false;
    const before = guest.stats().queues[0];
    const random = new Random(23);
    const frame = guest.peer.echoRequest(Buffer.alloc(1000), 9);
    for (let i = 0; i < 3000; i++) {
      guest.nic.receive(frame, {
        flags: random.below(256),
        gsoType: random.below(3) === 0 ? random.below(256) : random.below(6),
        hdrLen: random.below(65_536),
        gsoSize: random.below(65_536),
        csumStart: random.below(2) === 0 ? random.below(65_536) : random.below(1100),
        csumOffset: random.below(2) === 0 ? random.below(65_536) : random.below(40),
      });
    }
    guest.settle();
    assert.is(guest.nic.receiver.frames >= 3000, true);
    assert.is(guest.stats().queues[0]?.pool_free, before?.pool_free);
    assert.equal(guest.echo(payload), payload);
  });
}

for (const name of ["guest_tso4", "guest_tso6", "guest_uso4", "guest_uso6"] as const) {
  test(`§5.1.9.3.1: ${name} without mrg_rxbuf means buffers of 65,601 bytes`, (t) => {
    const features: FeatureName[] = ["version_1", "mac", "guest_csum", name];
    const guest = start(t, features, { memoryMib: 64, net: { rxSize: 64, txSize: 64 } });
    assert.is(guest.nic.receivesLarge, true);
    assert.equal(guest.echo(payload), payload);
  });
}

test.run();
