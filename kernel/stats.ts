/**
 * The `stats` event: what the driver's queues and the network stack counted, lane by lane. Each CPU
 * publishes its lane's numbers by mail, CPU 0 as well, and CPU 0 prints them. Called by nics.ts and
 * worker.ts.
 */
import * as events from "./events";
import * as lanes from "./lanes";
import * as mail from "./mail";
import { Crew } from "./crew";
import { Lane } from "./lane";
import { Nic } from "./nic";
import { DROP_REASONS, DropReason, dropName } from "./net/drops";
import { HashReports, REPORTS, REPORT_NAMES } from "../drivers/net/hash-report";
import { QUEUE_COUNTERS, QueueStatistics } from "../drivers/net/statistics";

/** QueueStatistics in its order: counters, then the driver's reasons for dropping. */
const COUNTERS: StaticArray<string> = [
  "packets",
  "bytes",
  "kicks",
  "kicks_suppressed",
  "polls",
  "cycles",
];
const QUEUE_DROPS: StaticArray<string> = [
  "used_length",
  "num_buffers",
  "offload",
  "too_long",
  "reset",
];

/** Places of a lane's numbers in the mail; each direction's drops by the driver are among its. */
const RX: u32 = 0;
const TX: u32 = RX + QUEUE_COUNTERS + 2;
const POOL_FREE: u32 = TX + QUEUE_COUNTERS + 2;
const POOL_SIZE: u32 = POOL_FREE + 1;
const ACCEPTED: u32 = POOL_FREE + 2;
const DISCARDED: u32 = POOL_FREE + 3;
const DROPS: u32 = POOL_FREE + 4;
/** Reports of hashes: packets with each kind, the last hash and its kind. */
const HASHES: u32 = DROPS + DROP_REASONS;
const HASH_VALUE: u32 = HASHES + REPORTS;
const HASH_REPORT: u32 = HASH_VALUE + 1;
const WATCHDOG: u32 = HASH_REPORT + 1;

/** Puts a lane's numbers where CPU 0 can read them. */
export function publish(cpu: u32, lane: Lane): void {
  const pair = lane.pair;
  // Sent packets go back to the pool first, so that the numbers of free ones are true.
  lanes.reclaimAll();
  publishDirection(cpu, RX, pair.rx.statistics, pair.rxInterrupts(), pair.rx.ring.free);
  publishDirection(cpu, TX, pair.tx.statistics, pair.txInterrupts(), pair.tx.ring.free);
  mail.setStatistic(cpu, POOL_FREE, pair.pool.free);
  mail.setStatistic(cpu, POOL_SIZE, pair.pool.size);
  const drops = lane.stack.drops;
  mail.setStatistic(cpu, ACCEPTED, drops.accepted);
  mail.setStatistic(cpu, DISCARDED, drops.discarded);
  for (let i: u32 = 0; i < DROP_REASONS; i++) {
    mail.setStatistic(cpu, DROPS + i, drops.get(<DropReason>i));
  }
  publishHashes(cpu, pair.rx.hashes);
  mail.setStatistic(cpu, WATCHDOG, lane.watchdog.actions);
}

function publishHashes(cpu: u32, hashes: HashReports): void {
  for (let i: u32 = 0; i < REPORTS; i++) mail.setStatistic(cpu, HASHES + i, hashes.count(i));
  mail.setStatistic(cpu, HASH_VALUE, hashes.value);
  mail.setStatistic(cpu, HASH_REPORT, hashes.report);
}

function publishDirection(
  cpu: u32,
  first: u32,
  counters: QueueStatistics,
  interrupts: u32,
  free: u32,
): void {
  for (let i: u32 = 0; i < QUEUE_COUNTERS; i++) {
    mail.setStatistic(cpu, first + i, load<u64>(changetype<usize>(counters) + (i << 3)));
  }
  mail.setStatistic(cpu, first + QUEUE_COUNTERS, interrupts);
  mail.setStatistic(cpu, first + QUEUE_COUNTERS + 1, free);
}

/** Prints the event of one NIC. */
export function print(nic: Nic): void {
  const crew = nic.crew;
  crew.gatherStatistics();
  publish(0, nic.lane);
  events.begin("stats");
  events.num("nic", nic.device.link.index);
  if (!nic.present) events.flag("removed", true);
  events.beginArray("queues");
  for (let cpu: u32 = 0; cpu < crew.lanes; cpu++) printLane(cpu);
  events.endArray();
  events.num("accepted", sum(crew, ACCEPTED));
  events.num("discarded", sum(crew, DISCARDED));
  events.num("recoveries", nic.recoveries);
  events.num("queue_resets", nic.queueResets);
  events.end();
}

function sum(crew: Crew, place: u32): u64 {
  let total: u64 = 0;
  for (let cpu: u32 = 0; cpu < crew.lanes; cpu++) total += mail.statistic(cpu, place);
  return total;
}

function printLane(cpu: u32): void {
  events.beginItem();
  events.num("index", cpu);
  events.num("cpu", cpu);
  printDirection("rx", cpu, RX);
  printDirection("tx", cpu, TX);
  events.num("pool_free", mail.statistic(cpu, POOL_FREE));
  events.num("pool_size", mail.statistic(cpu, POOL_SIZE));
  events.endItem();
}

function printDirection(name: string, cpu: u32, first: u32): void {
  events.beginObject(name);
  for (let i = 0; i < COUNTERS.length; i++) {
    events.num(COUNTERS[i], mail.statistic(cpu, first + i));
  }
  events.num("interrupts", mail.statistic(cpu, first + QUEUE_COUNTERS));
  events.num("free", mail.statistic(cpu, first + QUEUE_COUNTERS + 1));
  events.beginObject("drops");
  for (let i = 0; i < QUEUE_DROPS.length; i++) {
    printIfAny(QUEUE_DROPS[i], mail.statistic(cpu, first + COUNTERS.length + i));
  }
  if (first == RX) {
    for (let i: u32 = 0; i < DROP_REASONS; i++) {
      printIfAny(dropName(<DropReason>i), mail.statistic(cpu, DROPS + i));
    }
  }
  events.endObject();
  if (first == RX) printHashes(cpu);
  else printIfAny("watchdog", mail.statistic(cpu, WATCHDOG));
  events.endObject();
}

/** Packets by what the device said of their hashes, and the last hash. */
function printHashes(cpu: u32): void {
  let total: u64 = 0;
  for (let i: u32 = 0; i < REPORTS; i++) total += mail.statistic(cpu, HASHES + i);
  if (total == 0) return;
  events.beginObject("hashes");
  for (let i: u32 = 0; i < REPORTS; i++) {
    printIfAny(REPORT_NAMES[i], mail.statistic(cpu, HASHES + i));
  }
  events.endObject();
  const report = <u32>mail.statistic(cpu, HASH_REPORT);
  if (report == 0) return;
  events.text("last_hash_report", REPORT_NAMES[report]);
  events.hex("last_hash", mail.statistic(cpu, HASH_VALUE), 8);
}

function printIfAny(name: string, count: u64): void {
  if (count != 0) events.num(name, count);
}
