// Recovery under QEMU: a thousand resets in one boot; a transmit queue that stands still because the
// other side does not read; a backend that is frozen for some seconds. virtio 1.4 §2.4

import {
  assert,
  delay,
  Peer,
  type StatsEvent,
  suite,
  sumQueues,
  type TestContext,
  udpFrame,
  type Vm,
  vhostUser,
} from "qemu-test-harness";
import { command, done } from "./control-support";
import { bootEcho, ECHO_PORT, echoLoad, GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("recovery under QEMU", { timeoutMs: 120_000 });

const RESETS = 1000;
const payload = Buffer.from("still here");

const free = ({ queues }: StatsEvent) =>
  queues.map((queue) => (queue as unknown as { readonly pool_free: number }).pool_free);

test(`${RESETS} resets in one boot, with traffic between; nothing has leaked`, async (t) => {
  const guest = await bootEcho(t, { device: { id: "nic" } });
  const { vm, peer } = guest;
  await done(vm, "rx promiscuous off", "vlan add 5", "rx allmulti on");
  await done(vm, "mac table 52:54:00:00:00:09 -");
  await peer.udpEcho(GUEST_IP, payload);
  const filters = JSON.stringify(await vm.qmp.execute("query-rx-filter"));
  const before = await vm.stats();
  for (let i = 1; i <= RESETS; i++) {
    assert.is((await command(vm, "reset")).result, "ok");
    if (i % 100 !== 0) continue;
    await peer.udpEcho(GUEST_IP, payload);
    assert.is(JSON.stringify(await vm.qmp.execute("query-rx-filter")), filters);
  }
  await echoLoad(guest, { count: 2000, window: 32, frameBytes: () => 200 });
  const after = await vm.stats();
  assert.is((after as unknown as { readonly recoveries: number }).recoveries, RESETS);
  assert.equal(free(after), free(before));
  await vm.stop();
});

test("reset <queue>: both queues by turns, two hundred times, under load (§2.6.1)", async (t) => {
  const guest = await bootEcho(t, { device: { queue_reset: true } });
  const { vm, peer } = guest;
  await peer.udpEcho(GUEST_IP, payload);
  const before = free(await vm.stats());
  for (let i = 0; i < 200; i++) {
    assert.is((await command(vm, `reset ${i % 2}`)).result, "ok");
    await peer.udpEcho(GUEST_IP, payload);
  }
  await echoLoad(guest, { count: 2000, window: 32, frameBytes: () => 200 });
  const stats = await vm.stats();
  const { queue_resets, recoveries } = stats as unknown as Record<string, number>;
  assert.equal([queue_resets, recoveries], [200, 0]);
  assert.equal(free(stats), before);
  await vm.stop();
});

async function resetsOf(vm: Vm): Promise<number> {
  return ((await vm.stats()) as unknown as { readonly recoveries: number }).recoveries;
}

/** Floods the guest with frames to echo while nobody reads what it sends. */
async function clog(t: TestContext, ringReset: boolean) {
  const guest = await bootEcho(t, {
    append: `${STATIC_ADDRESS} watchdog=1`,
    device: { queue_reset: ringReset },
  });
  const { net, peer, vm } = guest;
  const { accepted } = await vm.waitFor("features");
  assert.is(accepted.includes("ring_reset"), ringReset);
  await peer.udpEcho(GUEST_IP, payload);
  const route = await peer.route(GUEST_IP);
  await net.pause();
  return { guest, route };
}

for (const ringReset of [true, false]) {
  test(`a peer that stops reading, ring_reset=${ringReset}: a reset, and all goes on when it reads`, async (t) => {
    const { guest, route } = await clog(t, ringReset);
    const { net, vm } = guest;
    const before = free(await vm.stats());
    const fields = { sourcePort: 30_001, destinationPort: ECHO_PORT, payload: Buffer.alloc(1400) };
    const frame = udpFrame(route, fields);
    const stuck = vm.waitFor("warning", {
      where: ({ message }) => message.includes("sends nothing any more"),
      timeoutMs: 20_000,
    });
    for (let i = 0; i < 40; i++) await net.sendBurst(Array<Buffer>(16).fill(frame));
    const notified = await vm.waitFor("warning", {
      where: ({ message }) => message.includes("notified again"),
      timeoutMs: 20_000,
    });
    assert.ok(notified.us < (await stuck).us);
    // What comes while the device is being reset is lost, and this peer asks once.
    for (let left = 50; left > 0 && (await resetsOf(vm)) === 0; left--) await delay(20);
    net.resume();
    await new Peer(net).udpEcho(GUEST_IP, payload, 10_000);
    const stats = await vm.stats();
    const { queue_resets, recoveries } = stats as unknown as Record<string, number>;
    t.log(`${queue_resets} resets of the queue, ${recoveries} of the device`);
    assert.ok((recoveries ?? 0) >= 1);
    assert.equal(free(stats), before);
    await vm.stop();
  });
}

test("testpmd frozen for seconds: it is notified again, and nothing is reset", async (t) => {
  const net = vhostUser({ mode: "rxonly" });
  const append = `app=source ${STATIC_ADDRESS} watchdog=2 dst=02:00:00:00:00:01 dstip=192.0.2.1`;
  const vm = await t.vm({ append, nics: [{ backend: net }] });
  await vm.waitFor("ready");
  const before = await net.waitFor(({ rxPackets }) => rxPackets > 1000, 30_000);
  net.freeze();
  await vm.waitFor("warning", {
    where: ({ message }) => message.includes("notified again"),
    timeoutMs: 20_000,
  });
  net.thaw();
  await net.waitFor(({ rxPackets }) => rxPackets > 2 * before.rxPackets + 100_000, 30_000);
  const stats = await vm.stats();
  const { queue_resets, recoveries } = stats as unknown as Record<string, number>;
  assert.equal([queue_resets, recoveries], [0, 0]);
  assert.ok(sumQueues(stats, "tx", "packets") > 0);
  await vm.stop();
});

test.run();
