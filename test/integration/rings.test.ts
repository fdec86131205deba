// Ring formats with real devices: QEMU's own on a stream and on a tap, and DPDK's behind vhost-user.
// Packed and split, with and without in-order use, event_idx, indirect descriptors and merging;
// what the guest counted is what the other side counted.

import {
  assert,
  type DeviceOptions,
  type ReadyEvent,
  type StatsEvent,
  suite,
  sumQueues,
  type TestContext,
  tap,
  type Vm,
  vhostUser,
} from "qemu-test-harness";
import { sameCounts } from "./counters";
import { ping } from "./ping";
import { bootEcho, echoLoad, GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("rings", { timeoutMs: 90_000 });

const COUNT = 8_000;
const FRAMES = 1_000_000;

interface Case {
  readonly packed: boolean;
  readonly inOrder?: boolean;
  /** Further properties of QEMU's device. */
  readonly device?: DeviceOptions;
}

const CASES: readonly Case[] = [
  { packed: true },
  { packed: true, device: { event_idx: false } },
  { packed: true, device: { indirect_desc: false, mrg_rxbuf: false } },
  { packed: true, device: { rx_queue_size: 1024 } },
  { packed: true, inOrder: true },
  { packed: true, inOrder: true, device: { event_idx: false, mrg_rxbuf: false } },
  { packed: true, inOrder: true, device: { indirect_desc: false } },
  { packed: false, inOrder: true },
  { packed: false, inOrder: true, device: { event_idx: false, mrg_rxbuf: false } },
  { packed: false, inOrder: true, device: { indirect_desc: false } },
];

function nameOf({ packed, inOrder = false, device = {} }: Case): string {
  const more = Object.entries(device).map(([name, value]) => `${name}=${Number(value)}`);
  return [packed ? "packed" : "split", ...(inOrder ? ["in order"] : []), ...more].join(", ");
}

function optionsOf({ packed, inOrder = false, device = {} }: Case): DeviceOptions {
  return { packed, in_order: inOrder, ...device };
}

/** The guest uses the rings as the case wants it. */
async function checkReady(vm: Vm, ready: ReadyEvent, { packed, inOrder = false }: Case) {
  assert.is(ready.ring, packed ? "packed" : "split");
  const { accepted } = await vm.waitFor("features");
  assert.is(accepted.includes("ring_packed"), packed);
  assert.is(accepted.includes("in_order"), inOrder);
}

for (const c of CASES) {
  test(`stream, ${nameOf(c)}: ${COUNT} echoes, none lost, none changed`, async (t) => {
    const guest = await bootEcho(t, { device: optionsOf(c) });
    const { vm, net, ready } = guest;
    await checkReady(vm, ready, c);
    const frameBytes = (number: number) => 60 + ((number * 13) % 1455);
    await echoLoad(guest, { count: COUNT, window: 600, frameBytes });
    const stats = await vm.stats();
    assert.is(sumQueues(stats, "rx", "packets"), net.sent);
    assert.is(sumQueues(stats, "tx", "packets"), net.received);
    await vm.stop();
  });
}

for (const iommu of [[], ["-device", "intel-iommu"]]) {
  const where = iommu.length > 0 ? "with an IOMMU that nobody turned on" : "without an IOMMU";
  test(`stream, access_platform, ${where}: addresses are physical ones`, async (t) => {
    const device = { packed: true, iommu_platform: true, "disable-legacy": "on" };
    const guest = await bootEcho(t, { device, extraArguments: iommu });
    const { accepted } = await guest.vm.waitFor("features");
    assert.ok(accepted.includes("access_platform"));
    await echoLoad(guest, { count: 500, window: 32, frameBytes: () => 200 });
    await guest.vm.stop();
  });
}

async function onTap(t: TestContext, c: Case): Promise<void> {
  const net = tap({ queues: 2 });
  const nics = [{ backend: net, options: optionsOf(c) }];
  const vm = await t.vm({ append: STATIC_ADDRESS, cpus: 2, memoryMib: 128, nics });
  const ready = await vm.waitFor("ready", { timeoutMs: 30_000 });
  await checkReady(vm, ready, c);
  // Two pairs: the control queue has answered, in the same format.
  assert.is(ready.queues, 2);
  for (const words of ["-f -c 1000", "-c 3 -s 0", "-c 3 -s 1472"]) {
    await ping(net, words, GUEST_IP);
  }
  await sameCounts(net, vm);
  await vm.stop();
}

for (const c of CASES) {
  test(`tap, ${nameOf(c)}: a flood of pings, and the counters agree`, (t) => onTap(t, c));
}

for (const c of CASES) {
  test(`vhost-user, ${nameOf(c)}: ${FRAMES} frames sent, all counted`, async (t) => {
    const net = vhostUser({ mode: "rxonly" });
    const app = "app=source mode=poll dst=02:00:00:00:00:01 dstip=192.0.2.1";
    const append = `${app} ${STATIC_ADDRESS} count=${FRAMES}`;
    const vm = await t.vm({ append, nics: [{ backend: net, options: optionsOf(c) }] });
    await checkReady(vm, await vm.waitFor("ready", { timeoutMs: 30_000 }), c);
    const { events } = await vm.finished({ timeoutMs: 60_000 });
    const stats = events.findLast(({ event }) => event === "stats") as unknown as StatsEvent;
    const sent = sumQueues(stats, "tx", "packets");
    assert.ok(sent >= FRAMES && sent <= FRAMES + 3, `${sent} frames for a count of ${FRAMES}`);
    const seen = await net.waitFor(({ rxPackets }) => rxPackets >= sent, 5000);
    assert.is(seen.rxPackets, sent);
  });

  test(`vhost-user, ${nameOf(c)}: what the backend sends is received`, async (t) => {
    const net = vhostUser({ mode: "txonly" });
    const append = `app=sink ${STATIC_ADDRESS}`;
    const vm = await t.vm({ append, nics: [{ backend: net, options: optionsOf(c) }] });
    await checkReady(vm, await vm.waitFor("ready", { timeoutMs: 30_000 }), c);
    const sent = await net.waitFor(({ txPackets }) => txPackets >= FRAMES, 30_000);
    const stats = await vm.stats();
    const received = sumQueues(stats, "rx", "packets");
    const size = stats.queues[0]?.rx.free ?? 0;
    assert.ok(received >= sent.txPackets - 1024, `${received} of ${sent.txPackets}, ${size} free`);
    assert.equal(stats.queues[0]?.rx.drops, {});
    await vm.stop();
  });
}

test.run();
