// Queue pairs and receive-side scaling at run time: on which lanes packets come in and go out after
// each command, behind a tap with four queues.
//
// Shares the machine: nothing in it is timed.

import {
  assert,
  type DeviceOptions,
  type StatsEvent,
  suite,
  type TestContext,
  tap,
  type Vm,
} from "qemu-test-harness";
import { complaint, done } from "./control-support";
import { GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("control queues", { timeoutMs: 90_000 });

const FLOWS = 64;
const ROUNDS = 12;
/** Sends numbered datagrams from many ports, each when the one before has come back. */
const FLOWS_SCRIPT = `
  const dgram = require("node:dgram");
  let right = 0;
  let open = ${FLOWS};
  for (let flow = 0; flow < ${FLOWS}; flow++) {
    const socket = dgram.createSocket("udp4");
    let round = 0;
    const next = () => socket.send("flow " + flow + " round " + round, 7, "${GUEST_IP}");
    socket.on("message", (message) => {
      if (String(message) === "flow " + flow + " round " + round) right++;
      if (++round < ${ROUNDS}) return next();
      socket.close();
      if (--open === 0) console.log(right);
    });
    socket.bind(0, "0.0.0.0", next);
  }
  setTimeout(() => { console.log(right); process.exit(); }, 15000).unref();
`;

async function flows(net: ReturnType<typeof tap>): Promise<void> {
  const { stdout } = await net.exec([process.execPath, "-e", FLOWS_SCRIPT], { timeoutMs: 30_000 });
  assert.is(Number(stdout), FLOWS * ROUNDS);
}

function sent(stats: StatsEvent): number[] {
  return stats.queues.map(({ tx }) => tx.packets);
}

/** Checks that packets go out on the first `count` lanes and on no other. */
async function usesLanes(vm: Vm, net: ReturnType<typeof tap>, count: number, t: TestContext) {
  const before = sent(await vm.stats());
  await flows(net);
  const after = sent(await vm.stats());
  const deltas = after.map((packets, lane) => packets - (before[lane] ?? 0));
  t.log(`${count} of ${deltas.length} lanes sent ${deltas.join(", ")}`);
  assert.ok(
    deltas.every((packets, lane) => packets > 0 === lane < count),
    `${count} lanes: ${deltas.join(", ")}`,
  );
}

async function bootLanes(t: TestContext, device: DeviceOptions = {}) {
  const net = tap({ queues: 4 });
  const vm = await t.vm({
    append: STATIC_ADDRESS,
    cpus: 4,
    memoryMib: 128,
    nics: [{ backend: net, options: device }],
    stderrAllowed: [/eBPF RSS/],
  });
  await vm.waitFor("ready", { timeoutMs: 30_000 });
  return { vm, net };
}

test("queues: 4, 1, 2, 4 at run time, with traffic before and after each", async (t) => {
  const { vm, net } = await bootLanes(t);
  await usesLanes(vm, net, 4, t);
  for (const count of [1, 2, 4]) {
    await done(vm, `queues ${count}`);
    await usesLanes(vm, net, count, t);
  }
  for (const wrong of ["0", "5", "-1", "x", ""]) {
    const message = await complaint(vm, `queues ${wrong}`.trim());
    assert.is(message, `queues: "${wrong}" is not a number of pairs set up at boot`);
  }
  await usesLanes(vm, net, 4, t);
  await vm.stop();
});

test("queues: changed during a flood of pings, of which 10 in 3000 may be late", async (t) => {
  const { vm, net } = await bootLanes(t);
  const flood = net.exec(["ping", "-f", "-q", "-c", "3000", GUEST_IP], { timeoutMs: 60_000 });
  for (const count of [1, 3, 2, 4, 1, 4]) await done(vm, `queues ${count}`);
  const { stdout } = await flood;
  // What was on its way to a lane that has just been paused may be late.
  const received = Number(/(\d+) received/.exec(stdout)?.[1]);
  assert.ok(received >= 2990, stdout);
  await vm.stop();
});

test("rss: spread at boot, steered by a table, off and on again (§5.1.9.5.7)", async (t) => {
  const { vm, net } = await bootLanes(t, { rss: true });
  await usesLanes(vm, net, 4, t);
  await done(vm, "rss table 1", "rss key 6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b4");
  await done(vm, "rss types ipv4,udpv4");
  const before = (await vm.stats()).queues.map(({ rx }) => rx.packets);
  await flows(net);
  const after = (await vm.stats()).queues.map(({ rx }) => rx.packets);
  const deltas = after.map((packets, lane) => packets - (before[lane] ?? 0));
  t.log(`all to pair 1: received ${deltas.join(", ")}`);
  assert.ok((deltas[1] ?? 0) >= FLOWS * ROUNDS, deltas.join());
  await done(vm, "queues 2");
  await usesLanes(vm, net, 2, t);
  await done(vm, "rss off", "rss table 1,0", "rss on", "queues 4");
  await usesLanes(vm, net, 4, t);
  for (const [line, message] of [
    ["rss table 0,1,2", 'rss: "0,1,2" has not a power of two of entries'],
    ["rss table 0,4", 'rss: "4" is not a pair in use'],
    ["rss table", 'rss: "" has not a power of two of entries'],
    ["rss key 123", 'rss: "123" is no key in hex as long as the device takes'],
    ["rss key xx", 'rss: "xx" is no key in hex as long as the device takes'],
    [`rss key ${"00".repeat(41)}`, /is no key in hex/],
    ["rss types tcpv5", 'rss: "tcpv5" is no hash type of this device'],
    ["rss maybe", 'rss: "maybe" is not on, off, key, table or types'],
  ] as const) {
    const said = await complaint(vm, line);
    if (typeof message === "string") assert.is(said, message);
    else assert.match(said, message);
  }
  await vm.stop();
});

for (const rss of [false, true]) {
  test(`a reset: as many pairs as before, rss=${rss}`, async (t) => {
    const { vm, net } = await bootLanes(t, { rss });
    await done(vm, "queues 2", "reset");
    await usesLanes(vm, net, 2, t);
    await done(vm, "queues 4");
    await usesLanes(vm, net, 4, t);
    await done(vm, "reset");
    await usesLanes(vm, net, 4, t);
    await vm.stop();
  });
}

test.run();
