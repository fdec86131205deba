// Rates with DPDK behind vhost-user, by DPDK's own counters: 60-byte frames, one queue pair,
// polling. The rates are what the project demands of the guest; only the run (CPUs, bursts,
// buffers) may be tuned here. `make rates` runs this, on a machine that has nothing else to do;
// `make test` does not, for a rate depends on the neighbours.

import { cpus } from "node:os";
import {
  assert,
  type PortStats,
  suite,
  sumQueues,
  type TestContext,
  vhostUser,
} from "qemu-test-harness";
import { STATIC_ADDRESS } from "../integration/support";

const TRANSMIT_PPS = 15_000_000;
const RECEIVE_PPS = 12_000_000;
/** A rate is the middle one of so many seconds in a row. */
const SAMPLES = 3;
/**
 * Rounds of samples before a rate counts as too low. A virtual machine's two CPUs may be near each
 * other for a while and far for the next, at a quarter of the speed (docs/decisions.md).
 */
const ROUNDS = 24;
const SOURCE = `app=source mode=poll ${STATIC_ADDRESS} dst=02:00:00:00:00:01 dstip=192.0.2.1`;

const test = suite("rates", { timeoutMs: 240_000 });

/** The middle of the seconds' rates: a single second may be cut by the host's other work. */
function median(samples: readonly PortStats[], field: "rxPps" | "txPps"): number {
  const rates = samples.map((sample) => sample[field]).sort((a, b) => a - b);
  return rates[Math.floor(rates.length / 2)] ?? 0;
}

/** The best median of up to ROUNDS rounds; stops at the first that is enough. */
async function bestRate(
  t: TestContext,
  net: ReturnType<typeof vhostUser>,
  field: "rxPps" | "txPps",
  wanted: number,
): Promise<number> {
  let best = 0;
  for (let round = 0; round < ROUNDS && best < wanted; round++) {
    const samples = await net.sample(SAMPLES);
    best = Math.max(best, median(samples, field));
    t.log(`testpmd's seconds: ${samples.map((s) => (s[field] / 1e6).toFixed(1)).join(" ")} Mpps`);
  }
  return best;
}

/** What a rate needs to say something about the guest and not about the machine. */
function needQuietCpus(t: TestContext): void {
  if (process.getuid?.() !== 0) t.skip("needs root: hugepages, and priority on its CPUs");
  if (cpus().length < 2) t.skip("needs two CPUs: one for testpmd, one for the guest");
}

test("source: the backend receives at least 15 million frames a second", async (t) => {
  needQuietCpus(t);
  const net = vhostUser({ mode: "rxonly" });
  const nics = [{ backend: net, options: { mrg_rxbuf: false, tx_queue_size: 256 } }];
  const vm = await t.vm({ append: SOURCE, nics, accelerator: "auto" });
  await vm.waitFor("ready");
  await net.waitFor((stats) => stats.rxPps > 0, 10_000);
  const rate = await bestRate(t, net, "rxPps", TRANSMIT_PPS);
  await vm.stop();
  assert.ok(rate >= TRANSMIT_PPS, `${(rate / 1e6).toFixed(2)} Mpps, not 15`);
});

test("sink: the guest takes at least 12 million frames a second", async (t) => {
  needQuietCpus(t);
  const net = vhostUser({ mode: "txonly" });
  const nics = [{ backend: net, options: { mrg_rxbuf: false, rx_queue_size: 256 } }];
  const vm = await t.vm({
    append: `app=sink mode=poll ${STATIC_ADDRESS}`,
    nics,
    accelerator: "auto",
  });
  await vm.waitFor("ready");
  await net.waitFor((stats) => stats.txPps > 0, 10_000);
  const before = await vm.stats();
  const rate = await bestRate(t, net, "txPps", RECEIVE_PPS);
  const after = await vm.stats();
  const taken = sumQueues(after, "rx", "packets") - sumQueues(before, "rx", "packets");
  const guestRate = taken / ((after.us - before.us) / 1e6);
  t.log(`by the guest's own count: ${(guestRate / 1e6).toFixed(1)} Mpps`);
  await vm.stop();
  assert.ok(rate >= RECEIVE_PPS, `${(rate / 1e6).toFixed(2)} Mpps, not 12`);
});

test.run();
