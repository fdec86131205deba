/**
 * Counters of one direction of a queue pair, in private memory, and their place in the `stats`
 * event. Written by rx-queue.ts, tx-queue.ts and queue-pair.ts, printed by device.ts.
 */
import * as events from "../../kernel/events";

/** Why the driver itself dropped a packet; the network stack has reasons of its own. */
export enum QueueDrop {
  /** A used length below the net header or beyond the buffer. */
  USED_LENGTH,
  /** num_buffers is 0 in a received header. */
  NUM_BUFFERS,
  /** A packet to send is longer than the device takes, or has too many segments. */
  TOO_LONG,
}

@unmanaged
export class QueueStatistics {
  packets: u64 = 0;
  /** Bytes of Ethernet frames, without the net header. */
  bytes: u64 = 0;
  /** Notifications sent to the device, and those that it did not want. */
  kicks: u64 = 0;
  kicksSuppressed: u64 = 0;
  /** How often the queue was looked at, and the time stamp cycles of looks that found work. */
  polls: u64 = 0;
  cycles: u64 = 0;
  usedLengthDrops: u64 = 0;
  numBuffersDrops: u64 = 0;
  tooLongDrops: u64 = 0;

  drop(reason: QueueDrop): void {
    if (reason == QueueDrop.USED_LENGTH) this.usedLengthDrops++;
    else if (reason == QueueDrop.NUM_BUFFERS) this.numBuffersDrops++;
    else this.tooLongDrops++;
  }

  /** The driver's own drops, where there are any, as fields of the event's open object. */
  printDrops(): void {
    if (this.usedLengthDrops != 0) events.num("used_length", this.usedLengthDrops);
    if (this.numBuffersDrops != 0) events.num("num_buffers", this.numBuffersDrops);
    if (this.tooLongDrops != 0) events.num("too_long", this.tooLongDrops);
  }

  /** The counters behind `drops`; `interrupts` and `free` are known elsewhere. */
  print(interrupts: u32, free: u32): void {
    events.num("kicks", this.kicks);
    events.num("kicks_suppressed", this.kicksSuppressed);
    events.num("interrupts", interrupts);
    events.num("polls", this.polls);
    events.num("cycles", this.cycles);
    events.num("free", free);
  }
}
