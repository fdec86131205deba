// Cards that QEMU is told to take out and to put in again, on each way that its machines have for it.
//
// Shares the machine: it waits for ACPI most of the time.

import {
  assert,
  Peer,
  type StreamBackend,
  stream,
  suite,
  type TestContext,
  type Vm,
} from "qemu-test-harness";
import { echoLoad, GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("hot-plug", { timeoutMs: 180_000 });

/** The guest looks once a second. */
const LOOK_MS = 15_000;
const CARD = "card0";

interface Way {
  readonly name: string;
  readonly machine: "pc" | "q35";
  readonly ports: readonly string[];
  readonly extraArguments?: readonly string[];
  readonly rounds: number;
  /** Whether the guest is asked before the card goes; otherwise it finds out. */
  readonly orderly: boolean;
}

const PORTS = [0, 1].map(
  (port) => `pcie-root-port,id=port${port},chassis=${port + 1},slot=${port + 1}`,
);
const NATIVE = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"];

const WAYS: readonly Way[] = [
  {
    name: "q35, a root port's own slot",
    machine: "q35",
    ports: PORTS,
    extraArguments: NATIVE,
    rounds: 20,
    orderly: true,
  },
  { name: "q35, ACPI behind root ports", machine: "q35", ports: PORTS, rounds: 3, orderly: false },
  { name: "pc, ACPI on bus 0", machine: "pc", ports: [], rounds: 3, orderly: true },
];

const placed = (way: Way, port: number) => (way.ports.length > 0 ? { bus: `port${port}` } : {});

async function boot(t: TestContext, way: Way, append: string, cpus = 1) {
  const { machine, ports, extraArguments = [] } = way;
  const backends = [stream(), stream()] as const;
  const nics = backends.map((backend, port) => ({
    backend,
    options: { id: `card${port}`, ...placed(way, port) },
  }));
  const options = { machine, ports, extraArguments, append, cpus, memoryMib: 128 };
  const vm = await t.vm({ ...options, nics });
  const ready = [];
  for (const nic of [0, 1]) ready.push(await readyOf(vm, nic, false));
  return { vm, backends };
}

function readyOf(vm: Vm, nic: number, fresh: boolean) {
  return vm.waitFor("ready", { where: (event) => event.nic === nic, timeoutMs: 30_000, fresh });
}

async function takeOut(vm: Vm) {
  const options = {
    where: ({ nic }: { nic: number }) => nic === 0,
    timeoutMs: LOOK_MS,
    fresh: true,
  };
  const removed = vm.waitFor("removed", options);
  await vm.qmp.execute("device_del", { arguments: { id: CARD } });
  // The card's parts are reported as well, and first.
  let deleted: unknown;
  while (deleted !== CARD) {
    deleted = (await vm.qmp.waitFor("DEVICE_DELETED", LOOK_MS)).data?.device;
  }
  return removed;
}

async function putIn(vm: Vm, way: Way) {
  const back = readyOf(vm, 0, true);
  const card = {
    driver: "virtio-net-pci",
    id: CARD,
    netdev: "net0",
    romfile: "",
    ...placed(way, 0),
  };
  await vm.qmp.execute("device_add", { arguments: card });
  return back;
}

/** Sends a load through one of the cards. */
class Traffic {
  private readonly peers: readonly Peer[];

  constructor(
    private readonly vm: Vm,
    private readonly backends: readonly [StreamBackend, StreamBackend],
  ) {
    this.peers = backends.map((net) => new Peer(net));
  }

  async pass(nic: 0 | 1, count: number): Promise<void> {
    const net = this.backends[nic];
    const peer = this.peers[nic] ?? new Peer(net);
    const ready = await readyOf(this.vm, nic, false);
    await echoLoad({ vm: this.vm, net, peer, ready }, { count, window: 32, frameBytes: () => 200 });
  }
}

for (const way of WAYS) {
  test(`${way.name}: ${way.rounds} times out and in, with traffic, and nothing leaks`, async (t) => {
    const { vm, backends } = await boot(t, way, `${STATIC_ADDRESS} ip1=${GUEST_IP}/24`);
    const traffic = new Traffic(vm, backends);
    await traffic.pass(0, 100);
    const before = await vm.stats({ nic: 0 });
    for (let round = 0; round < way.rounds; round++) {
      const gone = takeOut(vm);
      // The other card's traffic goes on while this one leaves, is away, and comes back.
      await traffic.pass(1, 300);
      const removed = await gone;
      assert.is(removed.orderly, way.orderly);
      await traffic.pass(1, 300);
      const back = putIn(vm, way);
      await traffic.pass(1, 300);
      await back;
      await traffic.pass(0, 100);
      const stats = await vm.stats({ nic: 0 });
      assert.is(stats.queues[0]?.pool_free, before.queues[0]?.pool_free);
    }
    const other = await vm.stats({ nic: 1 });
    assert.is(other.recoveries, 0);
    await vm.stop();
  });
}

test("taken out in the middle of commands: each comes to its end, and the card comes back", async (t) => {
  const [way] = WAYS;
  if (way === undefined) throw new Error("there is no way");
  const { vm, backends } = await boot(t, way, `${STATIC_ADDRESS} ip1=${GUEST_IP}/24`);
  const gone = takeOut(vm);
  const answered = () => vm.history.filter(({ event }) => event === "control").length;
  for (let vlan = 1; vlan <= 7; vlan++) vm.send(`vlan add ${vlan}`);
  await gone;
  await vm.stats({ nic: 1 });
  assert.is(answered(), 7);
  const back = putIn(vm, way);
  await back;
  await new Traffic(vm, backends).pass(0, 100);
  await vm.stop();
});

test("forward: a card leaves and comes back while the other one receives", async (t) => {
  const [way] = WAYS;
  if (way === undefined) throw new Error("there is no way");
  const { vm, backends } = await boot(t, way, "app=forward", 1);
  const [a, b] = backends;
  const before = await vm.stats({ nic: 1 });
  const frame = Buffer.alloc(100, 0x11);
  for (let round = 0; round < 3; round++) {
    const gone = takeOut(vm);
    for (let i = 0; i < 20; i++) await b.sendBurst(Array.from({ length: 32 }, () => frame));
    await gone;
    await b.sendBurst(Array.from({ length: 32 }, () => frame));
    await putIn(vm, way);
    let out = 0;
    await new Promise<void>((resolve) => {
      a.onFrame(() => {
        if (++out >= 32) resolve();
      });
      void b.sendBurst(Array.from({ length: 32 }, () => frame));
    });
  }
  const stats = await vm.stats({ nic: 1 });
  assert.is(stats.queues[0]?.pool_free, before.queues[0]?.pool_free);
  assert.ok((stats.queues[0]?.rx.drops.forward_down ?? 0) >= 3 * 32);
  await vm.stop();
});

test.run();
