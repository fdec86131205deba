// The image boots on every machine type with 1, 2 and 4 vCPUs, speaks ARP, ICMP, UDP and DHCP, and
// exits with success.

import {
  type Accelerator,
  assert,
  chooseAccelerator,
  DHCP_MESSAGE,
  DhcpServer,
  defaultImage,
  MACHINES,
  type Machine,
  Peer,
  stream,
  suite,
  type TestContext,
  user,
} from "qemu-test-harness";
import { bootEcho, GUEST_IP } from "./support";

const test = suite("boot", { timeoutMs: 60_000 });

async function bootAndEcho(
  t: TestContext,
  machine: Machine,
  cpus: number,
  accelerator: Accelerator,
): Promise<void> {
  const { vm, peer, ready } = await bootEcho(t, { machine, cpus, accelerator });
  const boots = vm.history.filter(({ event }) => event === "boot");
  assert.equal(boots.map(({ cpu }) => cpu).sort(), [...Array(cpus).keys()]);
  assert.is(ready.ip, GUEST_IP);
  assert.is(ready.app, "echo");
  assert.is(await peer.arp(GUEST_IP), ready.mac);
  await peer.ping(GUEST_IP, Buffer.from("are you there"));
  await peer.udpEcho(GUEST_IP, Buffer.from("hello"));
  const stats = await vm.stats();
  assert.ok((stats.queues[0]?.rx.packets ?? 0) >= 3);
  assert.equal(peer.malformed, []);
  await vm.stop();
}

/** An address from QEMU's DHCP server, and a datagram through its user network and back. */
async function leaseAndEcho(
  t: TestContext,
  machine: Machine,
  cpus: number,
  accelerator: Accelerator,
): Promise<void> {
  const net = user();
  const vm = await t.vm({ machine, cpus, accelerator, nics: [{ backend: net }] });
  const ready = await vm.waitFor("ready", { timeoutMs: 30_000 });
  assert.match(ready.ip, /^10\.0\.2\./);
  assert.is(ready.prefix, 24);
  const payload = Buffer.from("through user networking");
  assert.equal(await net.echo(payload), payload);
  await vm.stop();
}

for (const machine of MACHINES) {
  for (const cpus of [1, 2, 4]) {
    const where = `${machine} with ${cpus} vCPUs under TCG`;
    test(`${where}: ARP, ICMP and UDP echo, exit`, (t) => bootAndEcho(t, machine, cpus, "tcg"));
    test(`${where}: DHCP and UDP echo through QEMU's user network`, (t) =>
      leaseAndEcho(t, machine, cpus, "tcg"));
  }
}

/** Software-virtualised KVM boots in seconds, so not every combination is tried under it. */
const KVM_SET: readonly (readonly [Machine, number])[] = [
  ["q35", 1],
  ["pc", 1],
  ["microvm", 1],
  ["q35", 2],
  ["q35", 4],
];

async function needKvm(t: TestContext): Promise<void> {
  const choice = await chooseAccelerator(defaultImage());
  if (choice.accelerator !== "kvm") t.skip(choice.reason);
}

for (const [machine, cpus] of KVM_SET) {
  test(`${machine} with ${cpus} vCPUs under KVM: ARP, ICMP and UDP echo, exit`, async (t) => {
    await needKvm(t);
    await bootAndEcho(t, machine, cpus, "kvm");
  });
}

test("q35 under KVM: DHCP and UDP echo through QEMU's user network", async (t) => {
  await needKvm(t);
  await leaseAndEcho(t, "q35", 1, "kvm");
});

test("DHCP: the client repeats an unanswered discover and an unanswered request", async (t) => {
  const net = stream();
  const vm = await t.vm({ nics: [{ backend: net }] });
  const peer = new Peer(net);
  const server = new DhcpServer(peer, { address: "192.0.2.77", ignoreFirst: 1 });
  const ready = await vm.waitFor("ready", { timeoutMs: 45_000 });
  assert.is(ready.ip, "192.0.2.77");
  assert.ok(server.seen.filter((type) => type === DHCP_MESSAGE.discover).length >= 2);
  assert.ok(server.seen.filter((type) => type === DHCP_MESSAGE.request).length >= 2);
  await peer.udpEcho("192.0.2.77", Buffer.from("leased"));
  await vm.stop();
});

for (const machine of MACHINES) {
  test(`${machine}: ready in less than 50 ms with a static address under TCG`, async (t) => {
    // The least of three boots: what else runs on the host only ever adds to it.
    const times: number[] = [];
    for (let i = 0; i < 3; i++) {
      const { vm, ready } = await bootEcho(t, { machine });
      times.push(ready.us);
      await vm.stop();
    }
    t.log(`ready after ${times.join(", ")} us`);
    assert.ok(Math.min(...times) < 50_000, `${times.join(", ")} us`);
  });
}

test("64 MiB suffice for 4 vCPUs", async (t) => {
  const { vm, peer } = await bootEcho(t, { cpus: 4, memoryMib: 64 });
  await peer.ping(GUEST_IP);
  await vm.stop();
});

test.run();
