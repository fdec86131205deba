// vhost-user with DPDK's testpmd on the other side: what was sent and what was received, counted by
// both. How fast it went is test/bench's business.

import { assert, type StatsEvent, suite, sumQueues, vhostUser } from "qemu-test-harness";
import { STATIC_ADDRESS } from "./support";

const COUNT = 2_000_000;
const SOURCE = `app=source mode=poll ${STATIC_ADDRESS} dst=02:00:00:00:00:01 dstip=192.0.2.1`;

const test = suite("vhost-user", { timeoutMs: 60_000 });

test("source with a count: backend and guest have counted the same", async (t) => {
  const net = vhostUser({ mode: "rxonly" });
  const vm = await t.vm({ append: `${SOURCE} count=${COUNT}`, nics: [{ backend: net }] });
  const { events } = await vm.finished({ timeoutMs: 30_000 });
  const stats = events.filter(({ event }) => event === "stats").at(-1);
  const sent = sumQueues(stats as unknown as StatsEvent, "tx", "packets");
  // Beside the asked-for frames the guest announces its address by ARP.
  const announced = sent - COUNT;
  assert.ok(announced >= 0 && announced <= 3, `${sent} frames for a count of ${COUNT}`);
  const seen = await net.waitFor(({ rxPackets }) => rxPackets >= sent, 5000);
  assert.is(seen.rxPackets, sent);
});

test("sink: the guest has counted what the backend has sent", async (t) => {
  const net = vhostUser({ mode: "txonly" });
  const append = `app=sink mode=poll ${STATIC_ADDRESS}`;
  const vm = await t.vm({ append, nics: [{ backend: net }] });
  await vm.waitFor("ready");
  const sent = await net.waitFor(({ txPackets }) => txPackets >= COUNT, 30_000);
  const received = sumQueues(await vm.stats(), "rx", "packets");
  // The backend's numbers are of the last full second, so the guest may be ahead, never behind by
  // more than what its ring holds.
  assert.ok(received >= sent.txPackets - 256, `${received} of ${sent.txPackets}`);
  await vm.stop();
});

test.run();
