/**
 * Counters of one direction of a queue pair, in private memory. Written by rx-queue.ts,
 * tx-queue.ts and queue-pair.ts, printed by kernel/stats.ts, which knows their order.
 */
/** Why the driver itself dropped a packet; the network stack has reasons of its own. */
export enum QueueDrop {
  /** A used length below the net header or beyond the buffer. */
  USED_LENGTH,
  /** num_buffers is 0 in a received header. */
  NUM_BUFFERS,
  /** A received header asks for an offload that was not negotiated, or points outside. */
  OFFLOAD,
  /**
   * A packet to send is longer than the device takes, has too many segments, or needs an offload.
   */
  TOO_LONG,
  /** The device had not sent it when it, or its queue, was reset. */
  RESET,
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
  offloadDrops: u64 = 0;
  tooLongDrops: u64 = 0;
  resetDrops: u64 = 0;

  drop(reason: QueueDrop): void {
    if (reason == QueueDrop.USED_LENGTH) this.usedLengthDrops++;
    else if (reason == QueueDrop.NUM_BUFFERS) this.numBuffersDrops++;
    else if (reason == QueueDrop.OFFLOAD) this.offloadDrops++;
    else if (reason == QueueDrop.TOO_LONG) this.tooLongDrops++;
    else this.resetDrops++;
  }
}

/** How many counters that is. */
export const QUEUE_COUNTERS: u32 = <u32>(offsetof<QueueStatistics>() >> 3);
