/**
 * The lanes of this CPU, one a NIC at most: made at boot, and run in turn. Used by nic.ts on CPU 0
 * and by worker.ts on the others.
 */
import * as config from "./config";
import * as machine from "./machine";
import { Lane } from "./lane";
import { Link } from "../drivers/net/link";
import { PacketPool } from "../drivers/net/packet";
import { PairSetup } from "../drivers/net/pair-setup";
import { QueuePair } from "../drivers/net/queue-pair";

/** Lanes by the number of their NIC; a NIC with few queues has none here. */
const table = new StaticArray<Lane | null>(config.NICS_MAX);
/** One more than the highest NIC that has a lane here. */
export let count: u32 = 0;

/** At boot only. `index` of `total`: which lane of the NIC it is. */
export function make(
  link: Link,
  setup: PairSetup,
  nic: config.NicConfig,
  index: u32,
  total: u32,
): Lane {
  // When app=forward the packets of both NICs are those of NIC 0's pool: see forward.ts.
  const first: Lane | null = config.app == config.App.Forward ? unchecked(table[0]) : null;
  let pool: PacketPool | null = null;
  if (first != null) pool = first.pair.pool;
  const lane = new Lane(link, new QueuePair(setup, pool), nic, index, total);
  if (first != null) {
    first.runner.join(lane);
    lane.runner.join(first);
  }
  unchecked((table[link.index] = lane));
  count = max(count, link.index + 1);
  return lane;
}

export function anyRuns(): bool {
  for (let nic: u32 = 0; nic < count; nic++) {
    const lane = unchecked(table[nic]);
    if (lane != null && lane.running) return true;
  }
  return false;
}

/** One turn of each lane that runs, from `start` on. True: there was work in one of them. */
export function step(start: u64): bool {
  let worked: bool = false;
  for (let nic: u32 = 0; nic < count; nic++) {
    const lane = unchecked(table[nic]);
    if (lane == null || !lane.running) continue;
    worked = lane.step(nic == 0 ? start : machine.tsc()) || worked;
  }
  return worked;
}

/**
 * Gives all packets that were sent back to their pool, which lanes may have in common, and fills the
 * receive rings, for which app=forward waits for just these.
 */
export function reclaimAll(): void {
  for (let nic: u32 = 0; nic < count; nic++) {
    const lane = unchecked(table[nic]);
    if (lane != null && lane.running) lane.pair.tx.reclaim(lane.pair.tx.ring.size);
  }
  for (let nic: u32 = 0; nic < count; nic++) {
    const lane = unchecked(table[nic]);
    if (lane != null && lane.running) lane.pair.refill();
  }
}

/** Until when to sleep: 0 while any of them has work; at most `deadline`. */
export function rest(worked: bool, deadline: u64): u64 {
  let soonest = deadline;
  for (let nic: u32 = 0; nic < count; nic++) {
    const lane = unchecked(table[nic]);
    if (lane == null || !lane.running) continue;
    soonest = lane.rest(worked, soonest);
    if (soonest == 0) return 0;
  }
  return soonest;
}
