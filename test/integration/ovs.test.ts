// Open vSwitch between guests and to the outside world, with both of its datapaths: DPDK's in
// userspace (vhost-user), and the kernel's (vhost-net; in the lab where this machine has none).
// What the switch says it has counted on a port is to the frame what the port's guest has counted.

import {
  assert,
  type Datapath,
  delay,
  Inbox,
  lineSplitter,
  type OvsOptions,
  type OvsPort,
  type OvsPortOptions,
  type OvsSwitch,
  ovs,
  type Requirement,
  type StatsEvent,
  startProcess,
  suite,
  type TestContext,
  TRUNK,
  type Vm,
} from "qemu-test-harness";
import { aheadAtRest, type Counts, countsOf, sameCounts } from "./counters";
import { ping } from "./ping";

const READY_MS = 30_000;
const FRAMES = 20_000;
const FLOOD = "-f -c 500";
const FLOWS = 64;
const DATAGRAMS = 10;
/** What Open vSwitch asks for when ports share memory. */
const POOL_PACKETS = 262_144;
const VLAN = 10;
const SETTLED_MS = 5000;

const DATAPATHS: readonly { datapath: Datapath; requires: readonly Requirement[] }[] = [
  { datapath: "userspace", requires: ["ovs-dpdk"] },
  { datapath: "kernel", requires: ["ovs-kernel", "vhost-net"] },
];

const test = suite("Open vSwitch", { timeoutMs: 180_000 });

async function startSwitch(t: TestContext, options: OvsOptions): Promise<OvsSwitch> {
  const bridge = ovs(options);
  // After the guests, whose ports are removed from it first.
  t.cleanup(() => bridge.stop());
  await bridge.start();
  return bridge;
}

interface Guest {
  readonly vm: Vm;
  readonly net: OvsPort;
  readonly mac: string;
  readonly ip: string;
  /** What its port gave out before it was there to take it. */
  readonly early: Counts;
}

interface GuestOptions extends OvsPortOptions {
  /** Last part of the addresses. */
  readonly number: number;
  readonly app?: string;
}

async function bootGuest(t: TestContext, bridge: OvsSwitch, options: GuestOptions): Promise<Guest> {
  const { number, app = "app=echo", queues = 1, ...port } = options;
  const net = bridge.port({ queues, ...port });
  const [ip, mac] = [`192.0.2.${number}`, `52:54:00:00:00:0${number}`];
  const nics = [{ backend: net, options: { mac } }];
  const append = `${app} ip=${ip}/24`;
  const vm = await t.vm({ append, cpus: queues, memoryMib: 128, accelerator: "auto", nics });
  await vm.waitFor("ready", { timeoutMs: READY_MS });
  return { vm, net, mac, ip, early: await aheadAtRest(net, vm) };
}

/** Waits for the last frames under way; then both must say the same. */
async function checkPort({ vm, net, early }: Guest): Promise<StatsEvent> {
  return sameCounts(net, vm, early);
}

/** The port of a guest that has ended has no counters any more, but its flow has. */
async function checkFlow(bridge: OvsSwitch, net: OvsPort, sent: Counts): Promise<void> {
  const begin = performance.now();
  for (;;) {
    const { packets, bytes } = await bridge.flowCounters(net.port);
    if (packets >= sent.rxPackets || performance.now() - begin > SETTLED_MS) {
      assert.equal([packets, bytes], [sent.rxPackets, sent.rxBytes], `the flow of ${net.port}`);
      return;
    }
    await delay(100);
  }
}

/** tcpdump on the trunk; the result waits for a line of it. */
async function captureTrunk(t: TestContext, bridge: OvsSwitch) {
  const command = ["ip", "netns", "exec", bridge.outsideNamespace, "tcpdump"];
  const [program = "", ...args] = [...command, "-i", TRUNK, "-l", "-e", "-nn"];
  const tcpdump = startProcess(program, args);
  t.cleanup(() => tcpdump.stop());
  const lines = new Inbox<string>("a line of tcpdump");
  const take = lineSplitter((line) => lines.push(line));
  tcpdump.child.stdout?.on("data", take);
  tcpdump.child.stderr?.on("data", take);
  const seen = (pattern: RegExp) => lines.next(SETTLED_MS, (line) => pattern.test(line));
  await seen(/^listening on/);
  return seen;
}

for (const { datapath, requires } of DATAPATHS) {
  test(
    `${datapath} datapath: two guests and the outside world; the switch's counters are theirs`,
    async (t) => {
      const bridge = await startSwitch(t, { datapath });
      const echo = await bootGuest(t, bridge, { number: 2 });
      const sink = await bootGuest(t, bridge, { number: 3, app: "app=sink" });
      await ping(bridge, FLOOD, echo.ip);
      const nc = await bridge.exec(["nc", "-u", "-w1", echo.ip, "7"], { input: "through br0\n" });
      assert.is(nc.stdout, "through br0\n", nc.stderr);
      const app = `app=source count=${FRAMES} dst=${sink.mac} dstip=${sink.ip} burst=16`;
      const net = bridge.port();
      const nics = [{ backend: net, options: { mac: "52:54:00:00:00:04" } }];
      const append = `${app} ip=192.0.2.4/24`;
      const source = await t.vm({ append, nics, accelerator: "auto" });
      const { events } = await source.finished({ timeoutMs: READY_MS });
      const last = events.filter(({ event }) => event === "stats").at(-1) as unknown as StatsEvent;
      const sent = countsOf(last);
      assert.ok(sent.rxPackets >= FRAMES);
      await checkFlow(bridge, net, sent);
      await checkPort(echo);
      await checkPort(sink);
      const table = await bridge.appctl("fdb/show", "br0");
      for (const { mac } of [echo, sink]) assert.ok(table.includes(mac), table);
      const [lookups, received] = [await bridge.lookups(), (await sink.net.counters()).txPackets];
      t.log(`${sent.rxPackets} frames from guest to guest, ${received} taken, ${lookups} lookups`);
      assert.ok(lookups >= sent.rxPackets, "the datapath itself has not seen the frames");
      await echo.vm.stop();
      await sink.vm.stop();
    },
    { requires },
  );

  test(
    `${datapath} datapath: VLANs are kept apart, and the outside world sees the tag`,
    async (t) => {
      const bridge = await startSwitch(t, { datapath, vlan: VLAN });
      const seen = await captureTrunk(t, bridge);
      const same = await bootGuest(t, bridge, { number: 2, vlan: VLAN });
      const other = await bootGuest(t, bridge, { number: 3, vlan: VLAN + 1 });
      const before = (await other.net.counters()).txPackets;
      await ping(bridge, FLOOD, same.ip);
      const lost = await bridge.exec(["ping", "-c", "2", "-i", "0.3", "-W", "1", other.ip]);
      assert.match(lost.stdout, /100% packet loss/, lost.stdout);
      assert.is((await other.net.counters()).txPackets, before, "a frame has changed its VLAN");
      await checkPort(same);
      await checkPort(other);
      // Every guest announces itself to everybody, and the trunk carries it with its tag.
      await seen(new RegExp(`${same.mac} > ff:ff.* vlan ${VLAN}, .*ARP`));
      await seen(new RegExp(`${other.mac} > ff:ff.* vlan ${VLAN + 1}, .*ARP`));
      await same.vm.stop();
      await other.vm.stop();
    },
    { requires },
  );

  test(
    `${datapath} datapath: two guests of 4 vCPUs with 4 queue pairs each`,
    async (t) => {
      const bridge = await startSwitch(t, { datapath });
      const guests = [
        await bootGuest(t, bridge, { number: 2, queues: 4 }),
        await bootGuest(t, bridge, { number: 3, queues: 4 }),
      ];
      for (const guest of guests) {
        const first = await bridge.exec(["ping", "-c", "1", "-W", "5", guest.ip]);
        assert.is(first.status, 0, first.stdout);
        const words = ["test/fixtures/peer/udp-flows.mjs", guest.ip, String(FLOWS)];
        const argv = [process.execPath, ...words, String(DATAGRAMS)];
        const { stdout, stderr } = await bridge.exec(argv, { timeoutMs: 40_000 });
        const count = FLOWS * DATAGRAMS;
        t.keep(
          `${guest.ip}.json`,
          JSON.stringify([await guest.vm.stats(), await guest.net.counters()]),
        );
        assert.is(stdout.trim(), JSON.stringify({ sent: count, right: count }), stderr);
        const stats = await checkPort(guest);
        assert.is(stats.queues.length, 4);
        const used = stats.queues.filter(({ rx, tx }) => rx.packets > 0 && tx.packets > 0);
        t.log(`${guest.ip}: rx ${stats.queues.map(({ rx }) => rx.packets).join("+")}`);
        assert.ok(used.length >= 1);
        // Only the kernel's datapath spreads flows; DPDK's uses a queue for each polling thread.
        if (datapath === "kernel") assert.is(used.length, 4);
      }
      for (const guest of guests) await guest.vm.stop();
    },
    { requires },
  );
}

test(
  "userspace datapath: all packets of DPDK's pool fit into its memory",
  async (t) => {
    const bridge = await startSwitch(t, { datapath: "userspace" });
    const { vm } = await bootGuest(t, bridge, { number: 2 });
    // The pool is made when the first guest connects. One that does not fit is made smaller, or
    // not at all, and then the port is taken off the bridge.
    const pool = await bridge.appctl("netdev-dpdk/get-mempool-info");
    assert.match(pool, new RegExp(`\\spopulated_size=${POOL_PACKETS}\\s`));
    await vm.stop();
  },
  { requires: ["ovs-dpdk"] },
);

test(
  "userspace datapath: what the switch cannot do fails the next command, or its end",
  async (t) => {
    const bad = ["type=dpdk", "options:dpdk-devargs=nonsense"];
    const wrong = /failed to parse device "nonsense"/;
    const add = ["add-port", "br0", "bad", "--", "set", "interface", "bad", ...bad];
    const failing = await startSwitch(t, { datapath: "userspace" });
    const message = await failing.vsctl(...add).then(
      () => "added",
      (error: Error) => error.message,
    );
    assert.match(message, wrong);
    await failing.stop();
    const allowed = [wrong, /Failed to attach device/, /Invalid port_id/];
    const expecting = await startSwitch(t, { datapath: "userspace", errorsAllowed: allowed });
    await expecting.vsctl(...add);
    await expecting.stop();
  },
  { requires: ["ovs-dpdk"] },
);

test.run();
