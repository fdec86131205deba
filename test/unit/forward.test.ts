// app=forward: what comes in on one NIC goes out on the other, unchanged, in the same buffer, with
// what its header asks for; and what cannot go out is dropped and counted.

import { assert, internetChecksum, suite, sumDrops, type TestContext } from "qemu-test-harness";
import { type Guest, type GuestOptions, makeGuest, startGuest } from "../model/guest";
import { MQ_FEATURES, type NetOptions, USUAL_FEATURES } from "../model/net/net-device";
import { GSO } from "../model/net/net-header";
import { pseudoSum } from "../model/net/tx-check";
import { Random } from "../model/random";
import type { FeatureName } from "../model/virtio/features";
import { resources } from "./lanes";

const test = suite("forward");

const FORWARD = "app=forward";
const CSUM: readonly FeatureName[] = [...USUAL_FEATURES, "csum", "guest_csum"];
const LARGE: readonly FeatureName[] = [
  ...[...CSUM, "host_tso4", "guest_tso4", "host_tso6", "guest_tso6"],
  ...["host_uso", "guest_uso4", "guest_uso6", "host_ecn", "guest_ecn"],
] as FeatureName[];

interface Pair {
  readonly a?: Partial<NetOptions>;
  readonly b?: Partial<NetOptions>;
  readonly commandLine?: string;
  readonly cpus?: number;
}

function shape({ a = {}, b = {}, commandLine = FORWARD, cpus = 1 }: Pair): GuestOptions {
  return { commandLine, cpus, memoryMib: 32 * cpus + 32, net: a, more: [b] };
}

/** Running, at rest, with frames kept by each peer. */
function start(t: TestContext, pair: Pair = {}): Guest {
  const guest = startGuest(t, shape(pair));
  guest.settle();
  return guest;
}

/** A frame with its number, two addresses, and bytes that depend on the number. */
function frameOf(number: number, bytes: number): Buffer {
  const frame = Buffer.alloc(bytes, (number * 31) & 0xff);
  frame.write("525400aaaa01525400bbbb0288b5", 0, "hex");
  frame.writeUInt32BE(number, 14);
  return frame;
}

/** What stands before a frame that stands for several TCP segments. */
const TO_CUT = {
  flags: 1,
  gsoType: GSO.tcpv4,
  gsoSize: 1448,
  hdrLen: 54,
  csumStart: 34,
  csumOffset: 16,
};

/** A TCP segment over IPv4 of so many bytes, headers and all. */
function tcpFrame(bytes: number): Buffer {
  const frame = Buffer.alloc(bytes, 0x61);
  frame.write("525400aaaa01525400bbbb020800", 0, "hex");
  frame.write("45000000000040004006000000000000c0000201", 14, "hex");
  frame.writeUInt16BE(bytes - 14, 16);
  frame.writeUInt16BE(internetChecksum(frame.subarray(14, 34)), 24);
  frame.write("1000200000000001000000025010ffff00000000", 34, "hex");
  frame.writeUInt16BE(pseudoSum(frame, 6, bytes - 34), 50);
  return frame;
}

/** Sends frames into one NIC and answers what came out of the other one. */
function pass(guest: Guest, from: number, frames: readonly Buffer[]): Buffer[] {
  const { frames: out } = guest.peerAt(1 - from);
  const before = out.length;
  for (const frame of frames) guest.nicAt(from).receive(frame);
  guest.settle();
  return out.slice(before);
}

test("every frame goes out on the other NIC, both ways, and nothing leaks", (t) => {
  const guest = start(t);
  const random = new Random(7);
  const before = [0, 1].map((nic) => resources(guest.stats(nic).queues));
  for (let round = 0; round < 40; round++) {
    for (const from of [0, 1]) {
      const frames = Array.from({ length: 50 }, (_, i) =>
        frameOf(round * 100 + i, 18 + random.below(1497)),
      );
      assert.equal(pass(guest, from, frames), frames);
    }
  }
  for (const nic of [0, 1]) {
    const stats = guest.stats(nic);
    assert.is(stats.queues[0]?.rx.packets, 2000);
    assert.is(stats.queues[0]?.tx.packets, 2000);
    assert.equal(sumDrops(stats, "rx"), {});
    assert.equal(resources(stats.queues), before[nic]);
  }
});

test("the buffer that a frame came in is the one that goes out", (t) => {
  const guest = start(t);
  const [into, from] = [new Set<number>(), new Set<number>()];
  const { receiver } = guest.nicAt(0);
  const { sender } = guest.nicAt(1);
  receiver.onFilled = ({ segments }) => into.add(segments[0]?.address ?? 0);
  sender.onHandedOver = (_header, _frame, { segments }) => from.add(segments[0]?.address ?? 0);
  pass(
    guest,
    0,
    Array.from({ length: 100 }, (_, i) => frameOf(i, 100)),
  );
  assert.is(from.size, 100);
  assert.equal([...from].sort(), [...into].sort());
});

for (const [mac, wanted] of [
  ["mac=keep", "525400aaaa01525400bbbb02"],
  ["mac=swap", "525400bbbb02525400aaaa01"],
  ["mac=own", "525400aaaa01525400123457"],
] as const) {
  test(`${mac}: the addresses of what goes out`, (t) => {
    const guest = start(t, { commandLine: `${FORWARD} ${mac}` });
    for (const bytes of [14, 60, 1514]) {
      const frame = frameOf(1, Math.max(bytes, 18)).subarray(0, bytes);
      const [out] = pass(guest, 0, [frame]);
      assert.is(out?.subarray(0, 12).toString("hex"), wanted);
      assert.equal(out?.subarray(12), frame.subarray(12));
    }
  });
}

for (const mac of ["keep", "swap"]) {
  test(`mac=${mac}: what is shorter than an Ethernet header is dropped and counted`, (t) => {
    const guest = start(t, { commandLine: `${FORWARD} mac=${mac}` });
    const short = frameOf(1, 18).subarray(0, 13);
    assert.equal(pass(guest, 0, [short, frameOf(2, 60)]).length, 1);
    assert.equal(sumDrops(guest.stats(0), "rx"), { too_short: 1 });
  });
}

test("a frame whose header comes in pieces is dropped and counted", (t) => {
  const guest = start(t, { commandLine: `${FORWARD} mac=swap` });
  guest.nicAt(0).receiver.spread = 20;
  assert.equal(pass(guest, 0, [frameOf(1, 60)]), []);
  assert.equal(sumDrops(guest.stats(0), "rx"), { truncated: 1 });
});

test("a side that does not send: what it has no room for is dropped and counted", (t) => {
  const guest = start(t, { b: { txSize: 32 } });
  guest.nicAt(1).paused.tx = true;
  const frames = Array.from({ length: 100 }, (_, i) => frameOf(i, 200));
  assert.equal(pass(guest, 0, frames), []);
  // The other direction goes on meanwhile.
  const back = Array.from({ length: 300 }, (_, i) => frameOf(i, 300));
  assert.equal(pass(guest, 1, back), back);
  guest.nicAt(1).paused.tx = false;
  guest.settle();
  assert.equal(guest.peerAt(1).frames, frames.slice(0, 32));
  assert.equal(sumDrops(guest.stats(0), "rx"), { forward_full: 68 });
  assert.equal(pass(guest, 0, frames.slice(0, 20)), frames.slice(0, 20));
});

test("large packets cannot take all buffers: a stuck side stops only its own direction", (t) => {
  const guest = start(t, { a: { features: LARGE }, b: { features: LARGE } });
  guest.nicAt(1).paused.tx = true;
  for (let i = 0; i < 200; i++) guest.nicAt(0).receive(tcpFrame(60_000), TO_CUT);
  guest.settle();
  const back = Array.from({ length: 300 }, (_, i) => frameOf(i, 300));
  assert.equal(pass(guest, 1, back), back);
  assert.ok((sumDrops(guest.stats(0), "rx").forward_full ?? 0) > 0);
});

for (const [what, options] of [
  ["in merged buffers", {}],
  ["as chains", { features: USUAL_FEATURES.filter((name) => name !== "indirect_desc") }],
  ["in one large buffer", { features: USUAL_FEATURES.filter((name) => name !== "mrg_rxbuf") }],
] as const) {
  test(`jumbo frames ${what} go through whole`, (t) => {
    const mtu = 9000;
    const guest = start(t, { a: { mtu, ...options }, b: { mtu } });
    for (const from of [0, 1]) {
      const frames = [9014, 4090, 8200, 60].map((bytes, i) => frameOf(i, bytes));
      assert.equal(pass(guest, from, frames), frames);
    }
  });
}

test("a frame longer than the other side's MTU is dropped and counted there", (t) => {
  const guest = start(t, { a: { mtu: 9000 } });
  assert.equal(pass(guest, 0, [frameOf(1, 5000), frameOf(2, 1514)]), [frameOf(2, 1514)]);
  assert.equal(sumDrops(guest.stats(1), "tx"), { too_long: 1 });
});

test("a partial checksum is left to the device on the other side", (t) => {
  const guest = start(t, { a: { features: CSUM }, b: { features: CSUM } });
  guest.nicAt(0).receive(frameOf(1, 100), { flags: 1, csumStart: 34, csumOffset: 6 });
  guest.settle();
  const { flags, csumStart, csumOffset } = guest.nicAt(1).sender.lastHeader;
  assert.equal({ flags, csumStart, csumOffset }, { flags: 1, csumStart: 34, csumOffset: 6 });
});

test("a packet to be cut is forwarded whole, with its segment size", (t) => {
  const guest = start(t, { a: { features: LARGE }, b: { features: LARGE } });
  guest.nicAt(0).receive(tcpFrame(30_000), TO_CUT);
  guest.settle();
  const { gsoType, gsoSize, hdrLen } = guest.nicAt(1).sender.lastHeader;
  assert.equal({ gsoType, gsoSize, hdrLen }, { gsoType: 1, gsoSize: 1448, hdrLen: 54 });
  const bytes = guest.peerAt(1).frames.reduce((sum, { length }) => sum + length - 54, 0);
  assert.is(bytes, 30_000 - 54);
});

test("receive offloads that the other side cannot send are declined, with that reason", (t) => {
  const guest = start(t, { a: { features: LARGE } });
  const [a, b] = guest.machine.console.all("features");
  const reason = "the other NIC could not send such packets on";
  for (const name of ["guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_uso4"]) {
    assert.equal(a?.declined.find((declined) => declined.name === name)?.reason, reason);
  }
  assert.ok(a?.accepted.includes("csum"));
  assert.equal(b?.declined, []);
});

test("a feature left out on the command line says so, not that the other side cannot", (t) => {
  const a = { features: LARGE };
  const guest = start(t, { a, b: a, commandLine: `${FORWARD} features=-host_tso4,-guest_tso6` });
  const [features] = guest.machine.console.all("features");
  const reasonOf = (name: string) =>
    features?.declined.find((declined) => declined.name === name)?.reason;
  assert.is(reasonOf("guest_tso4"), "the other NIC could not send such packets on");
  assert.is(reasonOf("guest_tso6"), "left out on the command line");
});

test("both devices are told to let everything in, also after a reset", (t) => {
  const features = [...USUAL_FEATURES, "ctrl_vq", "ctrl_rx"] as const;
  const options = { features, filters: true };
  const guest = start(t, { a: options, b: options });
  for (const from of [0, 1]) {
    assert.is(guest.nicAt(from).state.promiscuous, true);
    assert.is(pass(guest, from, [frameOf(1, 60)]).length, 1);
  }
  guest.machine.console.type("reset");
  guest.until(() => guest.machine.console.all("control").length === 1, "the reset is done");
  assert.is(pass(guest, 0, [frameOf(1, 60)]).length, 1);
});

for (const cpus of [2, 4]) {
  test(`on ${cpus} CPUs: what comes in on a pair goes out on the same pair of the other NIC`, (t) => {
    const a = { features: MQ_FEATURES, pairs: cpus };
    const guest = start(t, { a, b: a, cpus });
    const before = [0, 1].map((nic) => resources(guest.stats(nic).queues));
    for (const from of [0, 1]) {
      for (let pair = 0; pair < cpus; pair++) {
        guest.nicAt(from).steer = () => pair;
        const frames = Array.from({ length: 40 }, (_, i) => frameOf(i, 60 + pair));
        assert.equal(pass(guest, from, frames), frames);
      }
    }
    for (const nic of [0, 1]) {
      const { queues } = guest.stats(nic);
      for (const { rx, tx } of queues) assert.equal([rx.packets, tx.packets], [40, 40]);
      assert.equal(resources(queues), before[nic]);
    }
  });
}

test("NICs with 4 and 2 pairs: both use 2", (t) => {
  const a = { features: MQ_FEATURES, pairs: 4 };
  const guest = start(t, { a, b: { ...a, pairs: 2 }, cpus: 4 });
  assert.equal(
    guest.machine.console.all("ready").map(({ queues }) => queues),
    [2, 2],
  );
});

test("a lane that the other NIC does not use: its frames are dropped and counted", (t) => {
  const a = { features: MQ_FEATURES, pairs: 2 };
  const guest = start(t, { a, b: a, cpus: 2 });
  guest.machine.console.type("nic 1 queues 1");
  guest.until(() => guest.machine.console.all("control").length === 1, "the command is done");
  guest.nicAt(0).steer = () => 1;
  assert.equal(pass(guest, 0, [frameOf(1, 60), frameOf(2, 60)]), []);
  assert.equal(sumDrops(guest.stats(0), "rx"), { forward_down: 2 });
});

test("a reset of either NIC while the other one sends leaks no packet", (t) => {
  const guest = start(t);
  const before = [0, 1].map((nic) => resources(guest.stats(nic).queues));
  for (let round = 0; round < 10; round++) {
    const nic = round % 2;
    guest.nicAt(1 - nic).paused.tx = true;
    for (let i = 0; i < 30; i++) guest.nicAt(nic).receive(frameOf(i, 500));
    guest.settle();
    guest.machine.console.type(`nic ${nic} reset`);
    guest.until(() => guest.machine.console.all("control").length === round + 1, "it is reset");
    guest.nicAt(1 - nic).paused.tx = false;
    guest.settle();
    const frames = Array.from({ length: 60 }, (_, i) => frameOf(i, 700));
    for (const from of [0, 1]) assert.equal(pass(guest, from, frames), frames);
  }
  for (const nic of [0, 1]) assert.equal(resources(guest.stats(nic).queues), before[nic]);
});

for (const count of [1, 3]) {
  test(`with ${count} NIC${count > 1 ? "s" : ""}: an error, status 35`, (t) => {
    const more = Array.from({ length: count - 1 }, () => ({}));
    const guest = makeGuest(t, { commandLine: FORWARD, more });
    guest.machine.boot();
    assert.equal(guest.errors(), ["app: forward is between two NICs, no more and no fewer"]);
    assert.is(guest.exitStatus(), 35);
  });
}

for (const [words, message] of [
  ["ip=192.0.2.2/24", "ip has no effect with app=forward"],
  ["ip1=dhcp", "ip1 has no effect with app=forward"],
  ["gw=192.0.2.9", "gw has no effect with app=forward"],
] as const) {
  test(`${words} is a warning, and it forwards`, (t) => {
    const guest = start(t, { commandLine: `${FORWARD} ${words}` });
    assert.equal(
      guest.machine.console.all("warning").map((event) => event.message),
      [message],
    );
    assert.is(pass(guest, 0, [frameOf(1, 60)]).length, 1);
  });
}

test("mac=banana is an error that names it", (t) => {
  const guest = makeGuest(t, shape({ commandLine: `${FORWARD} mac=banana` }));
  guest.machine.boot();
  assert.equal(guest.errors(), ['mac: "banana" is not keep, swap or own']);
});

test.run();
