// The kernel's vhost-net on the other side of the rings. Where this machine has none, the tests run
// in the lab. Three witnesses have to agree: the guest's counters, the tap's, and those of the
// kernel's vhost threads.

import {
  assert,
  type StatsEvent,
  suite,
  sumQueues,
  TAP_NAME,
  type TestContext,
  type VhostNetBackend,
  type Vm,
  type VmOptions,
  vhostNet,
} from "qemu-test-harness";
import { sameCounts } from "./counters";
import { ping } from "./ping";
import { GUEST_IP, STATIC_ADDRESS } from "./support";

const FLOOD = "-f -c 1000";
const SOURCE_FRAMES = 50_000;
const SINK_FRAMES = 50_000;
const FLOWS = 96;
const DATAGRAMS = 20;
const READY_MS = 30_000;

const test = suite("vhost-net", { timeoutMs: 60_000, requires: ["vhost-net"] });

async function boot(t: TestContext, queues: number, options: Omit<VmOptions, "nics">) {
  const net = vhostNet({ queues });
  const nics = [{ backend: net }];
  const vm = await t.vm({ accelerator: "auto", cpus: queues, memoryMib: 128, ...options, nics });
  return { net, vm };
}

/** Each pair of queues has a thread, and these threads have moved the frames. */
function checkWorkers(t: TestContext, net: VhostNetBackend, vm: Vm, pairs: number): void {
  const workers = net.workers(vm.pid ?? 0);
  const ranMs = workers.reduce((sum, { ranNs }) => sum + ranNs, 0) / 1e6;
  const slices = workers.reduce((sum, worker) => sum + worker.slices, 0);
  t.log(`vhost-${vm.pid}: ${workers.length} threads, ${ranMs.toFixed(1)} ms, ${slices} slices`);
  assert.is(workers.length, pairs);
  assert.ok(ranMs > 0, "the vhost threads never ran");
  assert.ok(
    workers.some(({ slices: of }) => of > 10),
    "the vhost threads were hardly woken",
  );
}

test("echo: arping, a flood of pings, nc; the tap has counted what the guest has", async (t) => {
  const { net, vm } = await boot(t, 1, { append: STATIC_ADDRESS });
  const ready = await vm.waitFor("ready", { timeoutMs: READY_MS });
  const arping = await net.exec(["arping", "-c", "1", "-w", "5", "-I", TAP_NAME, GUEST_IP]);
  assert.ok(arping.stdout.toLowerCase().includes(ready.mac), arping.stdout + arping.stderr);
  await ping(net, FLOOD, GUEST_IP);
  const answer = await net.exec(["nc", "-u", "-w1", GUEST_IP, "7"], { input: "hello, guest\n" });
  assert.is(answer.stdout, "hello, guest\n");
  await sameCounts(net, vm);
  checkWorkers(t, net, vm, 1);
  await vm.stop();
});

test("source: the tap has received every frame, in few doorbells", async (t) => {
  const append = `app=source count=${SOURCE_FRAMES} dst=02:00:00:00:00:01 dstip=192.0.2.1`;
  const { net, vm } = await boot(t, 1, { append: `${append} ${STATIC_ADDRESS}` });
  const { events } = await vm.finished({ timeoutMs: READY_MS });
  const stats = events.filter(({ event }) => event === "stats").at(-1) as unknown as StatsEvent;
  await sameCounts(net, { stats: async () => stats });
  const sent = sumQueues(stats, "tx", "packets");
  assert.ok(sent >= SOURCE_FRAMES && sent <= SOURCE_FRAMES + 3, `${sent} frames`);
  const kicks = sumQueues(stats, "tx", "kicks");
  t.log(`${sent} frames, ${kicks} doorbells, ${sumQueues(stats, "tx", "interrupts")} interrupts`);
  assert.ok(kicks * 4 < sent, `${kicks} doorbells for ${sent} frames`);
});

test("sink: the guest has counted every frame that the tap has sent", async (t) => {
  const { net, vm } = await boot(t, 1, { append: `app=sink ${STATIC_ADDRESS}` });
  const { mac } = await vm.waitFor("ready", { timeoutMs: READY_MS });
  await net.exec(["ip", "neigh", "replace", GUEST_IP, "lladdr", mac, "dev", TAP_NAME]);
  const blast = ["test/fixtures/peer/udp-blast.mjs", GUEST_IP, "9", String(SINK_FRAMES), "18"];
  const { stdout, stderr } = await net.exec([process.execPath, ...blast], { timeoutMs: 40_000 });
  assert.is(stdout, `${SINK_FRAMES}\n`, stderr);
  const stats = await sameCounts(net, vm);
  const received = sumQueues(stats, "rx", "packets");
  const interrupts = sumQueues(stats, "rx", "interrupts");
  t.log(
    `${received} frames, ${sumQueues(stats, "rx", "kicks")} doorbells, ${interrupts} interrupts`,
  );
  checkWorkers(t, net, vm, 1);
  await vm.stop();
});

test("4 vCPUs with 4 queue pairs: every queue works both ways, and all counters agree", async (t) => {
  const { net, vm } = await boot(t, 4, { append: STATIC_ADDRESS });
  const ready = await vm.waitFor("ready", { timeoutMs: READY_MS });
  assert.is(ready.queues, 4);
  // While the kernel asks for the MAC it keeps few datagrams waiting, and drops the others.
  await net.exec(["ping", "-c", "1", "-W", "5", GUEST_IP]);
  const script = ["test/fixtures/peer/udp-flows.mjs", GUEST_IP, String(FLOWS), String(DATAGRAMS)];
  const { stdout } = await net.exec([process.execPath, ...script], { timeoutMs: 40_000 });
  const count = FLOWS * DATAGRAMS;
  assert.is(stdout.trim(), JSON.stringify({ sent: count, right: count }));
  const stats = await sameCounts(net, vm);
  for (const { index, rx, tx } of stats.queues) {
    assert.ok(rx.packets > 0, `receive queue ${index} carried nothing`);
    assert.ok(tx.packets > 0, `transmit queue ${index} carried nothing`);
  }
  checkWorkers(t, net, vm, 4);
  await vm.stop();
});

test.run();
