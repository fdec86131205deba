// The guest's counters beside those of its backend. They are asked for one after the other, and a
// frame that is under way in between is in one of them only: so they are compared when nothing is.
// Used by the tests whose backend counts by itself: taps, vhost-net, Open vSwitch, libvirt.

import { assert, delay, HarnessError, type StatsEvent, sumQueues } from "qemu-test-harness";

/** Frames and bytes as the host sees them: `rx` is what it took from the guest. */
export interface Counts {
  readonly rxPackets: number;
  readonly rxBytes: number;
  readonly txPackets: number;
  readonly txBytes: number;
}

interface Host {
  counters(): Promise<Counts>;
}

interface Guest {
  stats(): Promise<StatsEvent>;
}

export const NOTHING: Counts = { rxPackets: 0, rxBytes: 0, txPackets: 0, txBytes: 0 };

/** Nothing is under way when looks show the same for so long. */
const REST_MS = 1000;
const LOOK_MS = 100;
const SETTLED_MS = 10_000;
/** Nobody is late before so many looks: in the lab one may take seconds. */
const LEAST_LOOKS = 5;
const RESTLESS_MS = 60_000;

/** The guest's counters the way the host sees them. */
export function countsOf(stats: StatsEvent): Counts {
  return {
    rxPackets: sumQueues(stats, "tx", "packets"),
    rxBytes: sumQueues(stats, "tx", "bytes"),
    txPackets: sumQueues(stats, "rx", "packets"),
    txBytes: sumQueues(stats, "rx", "bytes"),
  };
}

function combined(a: Counts, b: Counts, sign: 1 | -1): Counts {
  return {
    rxPackets: a.rxPackets + sign * b.rxPackets,
    rxBytes: a.rxBytes + sign * b.rxBytes,
    txPackets: a.txPackets + sign * b.txPackets,
    txBytes: a.txBytes + sign * b.txBytes,
  };
}

const same = (a: Counts, b: Counts) => JSON.stringify(a) === JSON.stringify(b);

/**
 * How far the host's counters are ahead of the guest's when nothing is under way: a host that
 * speaks before the guest is there counts what nobody took. Rejects when it does not come to rest.
 */
export async function aheadAtRest(host: Host, guest: Guest): Promise<Counts> {
  const look = async () => combined(await host.counters(), countsOf(await guest.stats()), -1);
  const begin = performance.now();
  let last = await look();
  let since = performance.now();
  for (;;) {
    await delay(LOOK_MS);
    const now = await look();
    if (!same(now, last)) since = performance.now();
    else if (performance.now() - since > REST_MS) return now;
    last = now;
    if (performance.now() - begin > RESTLESS_MS) {
      throw new HarnessError(`host and guest do not rest: ahead by ${JSON.stringify(last)}`);
    }
  }
}

/**
 * Waits until host and guest have counted the same frames and bytes, but for what the host was
 * `ahead` by at first, and returns what the guest has then said. Fails with both after 10 s, or
 * five looks.
 */
export async function sameCounts(
  host: Host,
  guest: Guest,
  ahead: Counts = NOTHING,
): Promise<StatsEvent> {
  const begin = performance.now();
  for (let looks = 1; ; looks++) {
    const stats = await guest.stats();
    const counted = await host.counters();
    const wanted = combined(countsOf(stats), ahead, 1);
    if (same(counted, wanted)) return stats;
    if (looks >= LEAST_LOOKS && performance.now() - begin > SETTLED_MS) {
      const early = same(ahead, NOTHING) ? "" : ` and the ${JSON.stringify(ahead)} before it`;
      assert.equal(counted, wanted, `the host has not counted what the guest has${early}`);
    }
    await delay(LOOK_MS);
  }
}

/**
 * Waits until every pool has as many free packets as it had in `before`: one that has been sent is
 * taken back a moment after it has arrived. Fails with both after 10 s, or five looks.
 */
export async function nothingLeaked(guest: Guest, before: StatsEvent): Promise<void> {
  const free = (stats: StatsEvent) => stats.queues.map((queue) => queue.pool_free);
  const wanted = free(before);
  const begin = performance.now();
  for (let looks = 1; ; looks++) {
    const now = free(await guest.stats());
    if (JSON.stringify(now) === JSON.stringify(wanted)) return;
    const late = looks >= LEAST_LOOKS && performance.now() - begin > SETTLED_MS;
    if (late) assert.equal(now, wanted, "packets have leaked");
    await delay(LOOK_MS);
  }
}
