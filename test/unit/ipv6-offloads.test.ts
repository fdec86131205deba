// IPv6 with checksums and cutting left to the device, in both directions. That every frame's header
// is right is checked by the device (test/model/net/tx-check.ts). virtio 1.4 §5.1.9.2.1, §5.1.9.4.2

import {
  assert,
  internetChecksum,
  PROTOCOL_DESTINATION_OPTIONS,
  paddingOptions,
  parseFrame6,
  pseudoHeaderSum6,
  suite,
  type TestContext,
} from "qemu-test-harness";
import { type Guest, makeGuest, startGuest } from "../model/guest";
import { type NetOptions, USUAL_FEATURES } from "../model/net/net-device";
import { FLAG, GSO } from "../model/net/net-header";
import { PEER_LINK, Peer6 } from "../model/net/peer6";
import type { FeatureName } from "../model/virtio/features";

const test = suite("IPv6 offloads", { timeoutMs: 30_000 });

const UDP_START = 54;
const PARTIAL = { flags: FLAG.needsCsum, csumStart: UDP_START, csumOffset: 6 } as const;
const SENDING: readonly FeatureName[] = ["csum", "host_tso4", "host_tso6", "host_uso"];
const RECEIVING: readonly FeatureName[] = ["guest_csum", "guest_tso6", "guest_uso4", "guest_uso6"];
const ALL = [...USUAL_FEATURES, ...SENDING, ...RECEIVING];

function start(t: TestContext, net: Partial<NetOptions>, memoryMib = 96): [Guest, Peer6] {
  const guest = startGuest(t, { commandLine: "ip=192.0.2.2/24", net, memoryMib });
  const peer = new Peer6(guest);
  peer.until(peer.guestLink);
  return [guest, peer];
}

/** The frame with the sum of its pseudo header where UDP's checksum belongs. */
function partial(peer: Peer6, frame: Buffer, at = UDP_START): Buffer {
  const length = frame.length - at;
  frame.writeUInt16BE(pseudoHeaderSum6(PEER_LINK, peer.guestLink, 17, length), at + 6);
  return frame;
}

const pattern = (bytes: number) =>
  Buffer.from(Array.from({ length: bytes }, (_, i) => (i ^ (i >> 8)) & 255));

// ---- receiving ----------------------------------------------------------------------------------

for (const csum of [true, false]) {
  const features = [...USUAL_FEATURES, "guest_csum" as const, ...(csum ? ["csum" as const] : [])];
  const how = csum ? "the device completes it" : "the guest completes it";
  for (const bytes of [0, 1, 17, 1452]) {
    test(`a partial checksum over ${bytes} bytes comes back right: ${how}`, (t) => {
      const [guest, peer] = start(t, { features });
      const before = guest.peer.frames.length;
      guest.nic.receive(partial(peer, peer.echoRequest(pattern(bytes))), PARTIAL);
      guest.settle();
      assert.ok(peer.sent(before)[0]?.udp?.payload.equals(pattern(bytes)));
      assert.is(guest.nic.sender.lastHeader.flags, csum ? FLAG.needsCsum : 0);
    });
  }

  test(`a partial checksum behind an extension header: ${how}`, (t) => {
    const [guest, peer] = start(t, { features });
    const before = guest.peer.frames.length;
    const extensions = [paddingOptions(PROTOCOL_DESTINATION_OPTIONS, 16)];
    const frame = partial(peer, peer.echoRequest(pattern(100), { extensions }), UDP_START + 16);
    guest.nic.receive(frame, { ...PARTIAL, csumStart: UDP_START + 16 });
    guest.settle();
    assert.ok(peer.sent(before)[0]?.udp?.payload.equals(pattern(100)));
    if (csum) assert.is(guest.nic.sender.lastHeader.csumStart, UDP_START);
  });

  test(`a ping with a partial checksum: ${how}`, (t) => {
    const [guest, peer] = start(t, { features });
    const before = guest.peer.frames.length;
    const frame = peer.ping(pattern(50));
    const sum = pseudoHeaderSum6(PEER_LINK, peer.guestLink, 58, frame.length - UDP_START);
    frame.writeUInt16BE(sum, UDP_START + 2);
    guest.nic.receive(frame, { ...PARTIAL, csumOffset: 2 });
    guest.settle();
    assert.is(peer.sent(before)[0]?.icmpv6?.type, 129);
  });
}

test("DATA_VALID is taken for a wrong checksum, but not for none", (t) => {
  const [guest, peer] = start(t, { features: [...USUAL_FEATURES, "guest_csum"] });
  for (const checksum of [0x1234, 0]) {
    const frame = peer.echoRequest(pattern(20));
    frame.writeUInt16BE(9, UDP_START + 2);
    frame.writeUInt16BE(checksum, UDP_START + 6);
    guest.nic.receive(frame, { flags: FLAG.dataValid });
  }
  guest.settle();
  assert.is((guest.stats() as unknown as { discarded: number }).discarded, 1);
  assert.equal(guest.stats().queues[0]?.rx.drops, { udp_checksum: 1 });
});

for (const merge of [true, false]) {
  const features = merge ? ALL : ALL.filter((name) => name !== "mrg_rxbuf");
  const how = merge ? "merged" : "in one large buffer";
  for (const [bytes, gsoSize] of [
    [2000, 1000],
    [20_000, 1452],
    [65_400, 1400],
  ] as const) {
    test(`UDP of ${bytes} bytes in pieces of ${gsoSize}, ${how}, comes back whole`, (t) => {
      const [guest, peer] = start(t, { features });
      const before = guest.peer.frames.length;
      const header = { ...PARTIAL, gsoType: GSO.udpL4, gsoSize, hdrLen: 62 };
      guest.nic.receive(partial(peer, peer.echoRequest(pattern(bytes))), header);
      guest.settle();
      const parts = peer.sent(before).map(({ udp }) => udp?.payload ?? Buffer.alloc(0));
      assert.is(parts.length, Math.ceil(bytes / gsoSize));
      assert.ok(Buffer.concat(parts).equals(pattern(bytes)));
      assert.is(guest.nic.sender.lastHeader.hdrLen, 62);
    });
  }

  test(`UDP of 9,000 bytes behind an extension header, ${how}, comes back whole`, (t) => {
    const [guest, peer] = start(t, { features });
    const before = guest.peer.frames.length;
    const extensions = [paddingOptions(PROTOCOL_DESTINATION_OPTIONS, 24)];
    const frame = partial(peer, peer.echoRequest(pattern(9000), { extensions }), UDP_START + 24);
    const csumStart = UDP_START + 24;
    const header = { ...PARTIAL, csumStart, gsoType: GSO.udpL4, gsoSize: 1000, hdrLen: 86 };
    guest.nic.receive(frame, header);
    guest.settle();
    const parts = peer.sent(before).map(({ udp }) => udp?.payload ?? Buffer.alloc(0));
    assert.ok(Buffer.concat(parts).equals(pattern(9000)));
  });

  test(`TCP of 60,000 bytes over IPv6, ${how}, is counted by sink with all its bytes`, (t) => {
    const net = { features };
    const guest = startGuest(t, { commandLine: "app=sink ip6=auto", net, memoryMib: 96 });
    const peer = new Peer6(guest);
    peer.until(peer.guestLink);
    const before = guest.stats().queues[0]?.rx;
    const frame = Buffer.concat([peer.echoRequest(Buffer.alloc(0)), pattern(60_000)]);
    frame.writeUInt16BE(frame.length - 54, 18);
    frame.writeUInt8(6, 20);
    const header = { flags: 1, csumStart: 54, csumOffset: 16, gsoSize: 1440, hdrLen: 74 };
    for (let i = 0; i < 20; i++) guest.nic.receive(frame, { ...header, gsoType: GSO.tcpv6 });
    guest.settle();
    const after = guest.stats().queues[0];
    assert.is((after?.rx.packets ?? 0) - (before?.packets ?? 0), 20);
    assert.is((after?.rx.bytes ?? 0) - (before?.bytes ?? 0), 20 * frame.length);
    peer.answers(peer.solicitation(peer.guestLink));
    assert.is(peer.neighbourMessages(136).length, 1, "it can still be found");
  });
}

test("csum_start among extension headers that are taken out asks nothing of the device", (t) => {
  const [guest, peer] = start(t, { features: ALL });
  const extensions = [paddingOptions(PROTOCOL_DESTINATION_OPTIONS, 64)];
  for (const csumStart of [0, 14, 20, 54, 60]) {
    const before = guest.peer.frames.length;
    const frame = peer.echoRequest(pattern(30), { extensions });
    guest.nic.receive(frame, { ...PARTIAL, csumStart });
    guest.settle();
    if (csumStart >= 64) continue;
    for (const { udp } of peer.sent(before)) assert.ok(udp?.payload.equals(pattern(30)));
  }
});

// ---- sending ------------------------------------------------------------------------------------

const HEADERS = { tcp6: 74, udp6: 62 } as const;
const DST = "dst=02:00:00:00:00:99 dstip=2001:db8::9";

function runSource(guest: Guest): { handed: [number, number, number][]; wire: Buffer[] } {
  const handed: [number, number, number][] = [];
  const wire: Buffer[] = [];
  const isSource = (frame: Buffer) => frame.length >= 62 && frame.readUInt16BE(56) === 9;
  guest.nic.sender.onHandedOver = (header, frame) => {
    if (isSource(frame)) handed.push([header.gsoType, header.hdrLen, frame.length]);
  };
  guest.nic.sender.onTransmit = (frame) => {
    if (isSource(frame)) wire.push(frame);
  };
  guest.start();
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  return { handed, wire };
}

for (const gso of ["tcp6", "udp6"] as const) {
  const type = gso === "tcp6" ? GSO.tcpv6 : GSO.udpL4;
  for (const [size, mss] of [
    [1600, 1440],
    [9000, 536],
    [65_214, 1448],
    [65_549, 1428],
  ] as const) {
    test(`gso=${gso}: ${size} bytes in pieces of ${mss}`, (t) => {
      const commandLine = `app=source gso=${gso} size=${size} mss=${mss} count=3 ${DST}`;
      const guest = makeGuest(t, { commandLine, net: { features: ALL } });
      const { handed, wire } = runSource(guest);
      assert.is(guest.exitStatus(), 33);
      assert.equal(handed, Array(3).fill([type, HEADERS[gso], size]));
      const pieces = wire.slice(0, wire.length / 3);
      assert.is(pieces.length, Math.ceil((size - HEADERS[gso]) / mss));
      let at = 0;
      for (const piece of pieces) {
        const data = piece.subarray(HEADERS[gso]);
        assert.ok(data.equals(Buffer.from(data.map((_, i) => (at + i) & 255))), `from ${at} on`);
        const { ipv6, udp } = parseFrame6(piece) ?? {};
        assert.is(ipv6?.source, "fe80::5054:ff:fe12:3456");
        if (gso === "udp6") assert.is(udp?.payload.length, data.length);
        else {
          const tcp = piece.subarray(54);
          const sum = pseudoHeaderSum6(ipv6?.source ?? "", "2001:db8::9", 6, tcp.length);
          assert.is(internetChecksum(tcp, sum), 0);
          assert.is(tcp.readUInt32BE(4), 1 + at);
        }
        at += data.length;
      }
      assert.is(at, size - HEADERS[gso]);
    });
  }

  for (const missing of ["csum", gso === "tcp6" ? "host_tso6" : "host_uso"] as const) {
    test(`gso=${gso}: without ${missing} it is an error`, (t) => {
      const features = ALL.filter((name) => name !== missing);
      const commandLine = `app=source gso=${gso} count=3 ${DST}`;
      const guest = makeGuest(t, { commandLine, net: { features } });
      guest.machine.boot();
      guest.until(() => guest.machine.ended !== undefined, "it ends");
      assert.equal(guest.errors(), ["gso: the device does not offer this segmentation"]);
    });
  }
}

for (const size of [undefined, 62, 63, 1514]) {
  test(`plain datagrams of ${size ?? "the least"} bytes have whole checksums`, (t) => {
    const words = size === undefined ? "" : `size=${size}`;
    const commandLine = `app=source count=10 ${words} ${DST}`;
    const { wire } = runSource(makeGuest(t, { commandLine }));
    assert.is(wire.length, 10);
    for (const frame of wire) {
      assert.is(frame.length, size ?? 62);
      assert.is(parseFrame6(frame)?.udp?.destinationPort, 9);
    }
  });
}

test("to a group: its Ethernet address, and nobody is asked", (t) => {
  const { wire } = runSource(makeGuest(t, { commandLine: "app=source count=5 dstip=ff02::1:5" }));
  assert.is(wire.length, 5);
  for (const frame of wire) {
    assert.is(parseFrame6(frame)?.ethernet.destination, "33:33:00:01:00:05");
  }
});

test.run();
