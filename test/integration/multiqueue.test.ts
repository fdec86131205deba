// A queue pair on every vCPU, behind a multi-queue tap: every queue carries traffic both ways, and
// what the guest's queues counted is to the frame what the kernel counted.

import { assert, type StatsEvent, suite, type TestContext, tap } from "qemu-test-harness";
import { nothingLeaked, sameCounts } from "./counters";
import { GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("multiqueue", { timeoutMs: 90_000 });

/** Many flows, so that the kernel's hash leaves no queue out. */
const FLOWS = 96;
const DATAGRAMS = 40;

interface Case {
  readonly cpus: number;
  readonly pairs: number;
  readonly lanes: number;
  readonly queues?: string;
}

const CASES: Case[] = [
  { cpus: 1, pairs: 1, lanes: 1 },
  { cpus: 2, pairs: 2, lanes: 2 },
  { cpus: 3, pairs: 3, lanes: 3 },
  { cpus: 4, pairs: 4, lanes: 4 },
  { cpus: 8, pairs: 8, lanes: 8 },
  { cpus: 4, pairs: 2, lanes: 2 },
  { cpus: 2, pairs: 4, lanes: 2 },
  { cpus: 4, pairs: 4, lanes: 3, queues: "queues=3" },
];

async function flows(net: ReturnType<typeof tap>) {
  // While the kernel asks for the MAC it keeps few datagrams waiting, and drops the others.
  await net.exec(["ping", "-c", "1", "-W", "5", GUEST_IP]);
  const script = ["test/fixtures/peer/udp-flows.mjs", GUEST_IP, String(FLOWS), String(DATAGRAMS)];
  const { stdout, stderr } = await net.exec([process.execPath, ...script], { timeoutMs: 40_000 });
  assert.equal(
    stdout.trim(),
    JSON.stringify({ sent: FLOWS * DATAGRAMS, right: FLOWS * DATAGRAMS }),
  );
  assert.is(stderr, "");
}

function countsOf(stats: StatsEvent, direction: "rx" | "tx"): number[] {
  return stats.queues.map((queue) => queue[direction].packets);
}

async function everyQueueWorks(t: TestContext, { cpus, pairs, lanes, queues }: Case) {
  const net = tap({ queues: pairs });
  const append = [STATIC_ADDRESS, queues ?? ""].join(" ").trim();
  const vm = await t.vm({ append, cpus, memoryMib: 128, nics: [{ backend: net }] });
  const ready = await vm.waitFor("ready", { timeoutMs: 40_000 });
  assert.is(ready.queues, lanes);
  const atRest = await vm.stats();
  await flows(net);
  const stats = await sameCounts(net, vm);
  t.log(
    `${lanes} lanes: rx ${countsOf(stats, "rx").join("+")}, tx ${countsOf(stats, "tx").join("+")}`,
  );
  assert.is(stats.queues.length, lanes);
  for (const { index, cpu, rx, tx } of stats.queues) {
    assert.is(cpu, index);
    assert.ok(rx.packets > 0, `receive queue ${index} carried nothing`);
    assert.ok(tx.packets > 0, `transmit queue ${index} carried nothing`);
  }
  await nothingLeaked(vm, atRest);
  await vm.stop();
}

for (const c of CASES) {
  const chosen = c.queues === undefined ? "" : `, ${c.queues}`;
  test(`${c.cpus} vCPUs, a device with ${c.pairs} pairs${chosen}: ${c.lanes} lanes`, (t) =>
    everyQueueWorks(t, c));
}

test("a link that goes down and comes back is told to all, and traffic goes on", async (t) => {
  const net = tap({ queues: 2 });
  const nics = [{ backend: net, options: { id: "nic" } }];
  const vm = await t.vm({ append: STATIC_ADDRESS, cpus: 2, nics });
  await vm.waitFor("ready", { timeoutMs: 30_000 });
  await vm.qmp.execute("set_link", { arguments: { name: "nic", up: false } });
  await vm.waitFor("link", { where: ({ up }) => !up });
  await vm.qmp.execute("set_link", { arguments: { name: "nic", up: true } });
  await vm.waitFor("link", { where: ({ up }) => up, fresh: true });
  await flows(net);
  await vm.stop();
});

test.run();
