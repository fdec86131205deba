// What the driver leaves to the device when it sends: checksums and cutting. The header of every
// frame of every test is checked by the device (test/model/net/tx-check.ts); here the source makes
// long frames, and what comes out on the wire is put together again. virtio 1.4 §5.1.9.2.1

import {
  assert,
  internetChecksum,
  parseUdpFrame,
  suite,
  type TestContext,
} from "qemu-test-harness";
import { type Guest, makeGuest, STATIC_IP, startGuest } from "../model/guest";
import { type NetOptions, USUAL_FEATURES } from "../model/net/net-device";
import { GSO, type NetHeader, PLAIN } from "../model/net/net-header";
import type { FeatureName } from "../model/virtio/features";

const test = suite("offloads, sending", { timeoutMs: 30_000 });

const OFFLOADS: readonly FeatureName[] = ["csum", "host_tso4", "host_tso6", "host_uso"];
/** With large receives buffers are longer, so that the longest frame takes few of them. */
const ALL = [...USUAL_FEATURES, ...OFFLOADS, "guest_csum" as const, "guest_tso4" as const];
const HEADERS = { tcp4: 54, udp4: 42 } as const;
type Gso = keyof typeof HEADERS;

interface Seen {
  readonly handed: { header: NetHeader; bytes: number }[];
  readonly wire: Buffer[];
}

const isSource = (frame: Buffer) => frame.length > 42 && frame.readUInt16BE(36) === 9;

/** Runs a source to its end; what it handed over, and what went out. */
function runSource(guest: Guest): Seen {
  const seen: Seen = { handed: [], wire: [] };
  guest.nic.sender.onHandedOver = (header, frame) => {
    if (isSource(frame)) seen.handed.push({ header, bytes: frame.length });
  };
  guest.nic.sender.onTransmit = (frame) => {
    if (isSource(frame)) seen.wire.push(frame);
  };
  guest.start();
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.is(guest.exitStatus(), 33);
  return seen;
}

/** Runs a source that ends at once with this error. */
function failsWith(guest: Guest, message: string): void {
  guest.machine.boot();
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.equal(guest.errors(), [message]);
  assert.is(guest.exitStatus(), 35);
  assert.equal(guest.peer.frames.filter(isSource), []);
}

function source(t: TestContext, words: string, net: Partial<NetOptions>): Guest {
  return makeGuest(t, { commandLine: `${STATIC_IP} app=source ${words}`, net });
}

/** Data of one frame's pieces in a row is the source's counting pattern, and each piece is right. */
function checkPieces(pieces: readonly Buffer[], gso: Gso, mss: number, bytes: number): void {
  const headers = HEADERS[gso];
  assert.is(pieces.length, Math.max(1, Math.ceil((bytes - headers) / mss)));
  let at = 0;
  for (const piece of pieces) {
    const data = piece.subarray(headers);
    const expected = Buffer.from(data.map((_, i) => (at + i) & 255));
    assert.ok(data.equals(expected), `data from ${at} on`);
    if (gso === "udp4") assert.is(parseUdpFrame(piece)?.udp.payload.length, data.length);
    else checkTcp(piece, at);
    at += data.length;
  }
  assert.is(at, bytes - headers);
}

function checkTcp(piece: Buffer, offset: number): void {
  const tcp = piece.subarray(34);
  const pseudo = Buffer.concat([piece.subarray(26, 34), Buffer.of(0, 6, 0, 0)]);
  pseudo.writeUInt16BE(tcp.length, 10);
  assert.is(internetChecksum(Buffer.concat([pseudo, tcp])), 0);
  assert.is(internetChecksum(piece.subarray(14, 34)), 0);
  assert.is(tcp.readUInt32BE(4), 1 + offset);
}

for (const gso of ["tcp4", "udp4"] as const) {
  const type = gso === "tcp4" ? GSO.tcpv4 : GSO.udpL4;
  for (const [size, mss] of [
    [1502, 1448],
    [1503, 1448],
    [9000, 536],
    [20_000, 1000],
    [65_214, 1448],
    [65_549, 1448],
  ] as const) {
    for (const hdrlen of [true, false]) {
      const features = hdrlen ? [...ALL, "guest_hdrlen" as const] : ALL;
      const name = hdrlen ? "" : ", without guest_hdrlen";
      test(`gso=${gso}: ${size} bytes in pieces of ${mss}${name}`, (t) => {
        const guest = source(t, `gso=${gso} size=${size} mss=${mss} count=3`, { features });
        const { handed, wire } = runSource(guest);
        assert.is(handed.length, 3);
        for (const { header, bytes } of handed) {
          assert.is(bytes, size);
          const { csumOffset, ...rest } = header;
          assert.is(csumOffset, gso === "tcp4" ? 16 : 6);
          const hdrLen = HEADERS[gso];
          const fields = { flags: 1, gsoType: type, hdrLen, gsoSize: mss, csumStart: 34 };
          assert.equal(rest, { ...fields, numBuffers: 0 });
        }
        const share = wire.length / 3;
        for (let i = 0; i < 3; i++) {
          checkPieces(wire.slice(i * share, (i + 1) * share), gso, mss, size);
        }
      });
    }
  }

  test(`gso=${gso}: without indirect descriptors a frame is a chain in the ring`, (t) => {
    const features = ALL.filter((name) => name !== "indirect_desc");
    const guest = source(t, `gso=${gso} size=30000 count=20`, { features });
    const { handed, wire } = runSource(guest);
    assert.is(handed.length, 20);
    checkPieces(wire.slice(0, wire.length / 20), gso, 1448, 30_000);
  });

  test(`gso=${gso}: a ring that is too short for the frame is an error`, (t) => {
    const features = ALL.filter((name) => name !== "indirect_desc");
    const guest = source(t, `gso=${gso} size=65000 count=1`, { features, txSize: 8 });
    failsWith(guest, "size: more segments than the transmit ring has descriptors");
  });

  for (const missing of ["csum", gso === "tcp4" ? "host_tso4" : "host_uso"] as const) {
    test(`gso=${gso}: without ${missing} it is an error, and nothing is sent`, (t) => {
      const features = ALL.filter((name) => name !== missing);
      const guest = source(t, `gso=${gso} count=3`, { features });
      failsWith(guest, "gso: the device does not offer this segmentation");
    });

    test(`gso=${gso} with features=-${missing} is an error as well`, (t) => {
      const guest = source(t, `gso=${gso} count=3 features=-${missing}`, { features: ALL });
      failsWith(guest, "gso: the device does not offer this segmentation");
    });
  }

  test(`gso=${gso}: 1,000 long frames through a short ring`, (t) => {
    const net = { features: ALL, txSize: 32 };
    const guest = source(t, `gso=${gso} size=5000 mss=1000 count=1000`, net);
    const { handed } = runSource(guest);
    assert.is(handed.length, 1000);
  });

  test(`gso=${gso}: a reset in the midst of it loses no packet of the pool`, (t) => {
    const guest = source(t, `gso=${gso} size=20000 count=300`, { features: ALL });
    guest.start();
    guest.machine.run(() => guest.nic.live("tx").packets > 20, { us: 100_000 });
    const { pool_size: size } = guest.stats().queues[0] as unknown as { pool_size: number };
    guest.nic.pci.needReset();
    guest.until(() => guest.nic.pci.common.resets === 2, "it resets the device");
    guest.machine.run(() => guest.nic.live("tx").packets > 20, { us: 100_000 });
    assert.equal(guest.errors(), ["the device needs a reset"]);
    guest.until(() => guest.machine.ended !== undefined, "it ends");
    const last = guest.machine.console.all("stats").at(-1)?.queues[0];
    const free = (last as unknown as { pool_free: number } | undefined)?.pool_free ?? 0;
    assert.is(free, size - 256, "all but what the receive ring holds");
  });
}

test("source without gso: no flags, whatever was negotiated", (t) => {
  const features = [...ALL, "guest_hdrlen" as const];
  const { handed } = runSource(source(t, "size=500 count=10", { features }));
  assert.equal(
    handed.map(({ header }) => header),
    Array.from({ length: 10 }, () => PLAIN),
  );
});

for (const features of [USUAL_FEATURES, ALL]) {
  const what = features === ALL ? "all offloads" : "no offload";
  test(`${what}: answers of the stack carry whole checksums and a header of zeroes`, (t) => {
    const guest = startGuest(t, { net: { features } });
    const headers: NetHeader[] = [];
    guest.nic.sender.onHandedOver = (header) => headers.push(header);
    guest.echo(Buffer.from("whole"));
    guest.nic.receive(guest.peer.ping(1, Buffer.from("whole")));
    guest.nic.receive(guest.peer.arpRequest());
    guest.settle();
    assert.ok(headers.length >= 3);
    for (const header of headers) assert.equal(header, PLAIN);
  });
}

for (const [name, needs] of [
  ["host_tso4", "csum"],
  ["host_tso6", "csum"],
  ["host_uso", "csum"],
  ["host_ecn", "host_tso4"],
  ["guest_tso4", "guest_csum"],
  ["guest_tso6", "guest_csum"],
  ["guest_uso4", "guest_csum"],
  ["guest_ecn", "guest_tso4"],
] as const) {
  test(`${name} is not accepted without ${needs}`, (t) => {
    const guest = startGuest(t, { net: { features: [...USUAL_FEATURES, name] } });
    assert.is(guest.nic.accepts(name), false);
  });
}

for (const name of [...OFFLOADS, "guest_hdrlen"] as const) {
  test(`${name} is accepted if offered with what it needs`, (t) => {
    const guest = startGuest(t, { net: { features: [...ALL, "guest_hdrlen"] } });
    assert.is(guest.nic.accepts(name), true);
  });
}

test.run();
