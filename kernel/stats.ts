/**
 * The `stats` event: what the driver's queues and the network stack counted. Called by main.ts on
 * request, every `stats=` seconds, and at the end of a run.
 */
import * as events from "./events";
import * as machine from "./machine";
import { Stack } from "./net/stack";
import { NetDevice } from "../drivers/net/device";
import { QueuePair } from "../drivers/net/queue-pair";
import { QueueStatistics } from "../drivers/net/statistics";

/** Prints the event for one NIC. Sent packets go back to the pool first, so that `free` is true. */
export function print(device: NetDevice, pair: QueuePair, stack: Stack): void {
  pair.tx.reclaim(pair.tx.ring.size);
  events.begin("stats");
  events.num("nic", device.index);
  events.beginArray("queues");
  events.beginItem();
  events.num("index", 0);
  events.num("cpu", machine.cpuIndex());
  printDirection("rx", pair.rx.statistics, stack, pair.rxInterrupts(), pair.rx.ring.free);
  printDirection("tx", pair.tx.statistics, null, pair.txInterrupts(), pair.tx.ring.free);
  events.num("pool_free", pair.pool.free);
  events.num("pool_size", pair.pool.size);
  events.endItem();
  events.endArray();
  events.num("accepted", stack.drops.accepted);
  events.num("discarded", stack.drops.discarded);
  events.num("recoveries", device.recoveries);
  events.end();
}

/** `stack`: whose reasons for dropping belong to this direction as well. */
function printDirection(
  name: string,
  counters: QueueStatistics,
  stack: Stack | null,
  interrupts: u32,
  free: u32,
): void {
  events.beginObject(name);
  events.num("packets", counters.packets);
  events.num("bytes", counters.bytes);
  events.beginObject("drops");
  counters.printDrops();
  if (stack != null) stack.drops.print();
  events.endObject();
  counters.print(interrupts, free);
  events.endObject();
}
