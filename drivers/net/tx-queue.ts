/**
 * A transmit queue: `submit` gives the device packets to send, `reclaim` takes back those it has
 * sent. Used by queue-pair.ts. virtio 1.4 §5.1.9.2
 */
import { Doorbell } from "../virtio/doorbell";
import { Ring, RingFault } from "../virtio/ring";
import { BURST_MAX, Burst, HASH_HEADER_BYTES, Packet, PacketPool } from "./packet";
import { GSO_FRAME_BYTES_MAX, Offloads, isSegmented, write } from "./header";
import { clearHashes } from "./hash-report";
import { QueueDrop, QueueStatistics } from "./statistics";

export class TxQueue {
  readonly ring: Ring;
  readonly statistics: QueueStatistics = new QueueStatistics();
  readonly doorbell: Doorbell = new Doorbell();
  /** Buffers that the device has; a packet of several segments is one descriptor at times. */
  buffers: u32 = 0;
  private pool: PacketPool;
  private offloads: Offloads;
  /** The longest frame the device takes. virtio 1.4 §5.1.4.2 */
  frameMax: u32 = 0;
  /** The device sends nothing any more (kernel/watchdog.ts). */
  stuck: bool = false;
  private done: Burst = Burst.create();
  private published: bool = false;

  constructor(ring: Ring, pool: PacketPool, offloads: Offloads) {
    this.offloads = offloads;
    this.ring = ring;
    this.pool = pool;
  }

  /** For a device that has just been reset. `frameMax`: MTU and Ethernet header, in bytes. */
  reset(frameMax: u32): void {
    this.frameMax = frameMax;
    this.published = false;
    this.buffers = 0;
  }

  /**
   * Puts a burst into the ring and publishes it. Packets that cannot be sent at all go back to the
   * pool and are counted. The caller has made sure that the ring has room.
   */
  submit(burst: Burst): void {
    const ring = this.ring;
    const offloads = this.offloads;
    const frameMax = this.frameMax;
    const count = burst.count;
    if (this.pool.headerBytes == HASH_HEADER_BYTES) clearHashes(burst);
    let bytes: u64 = 0;
    let sent: u32 = 0;
    // Packets of one segment go into the ring in runs; others interrupt a run.
    let first: u32 = 0;
    for (let i: u32 = 0; i < count; i++) {
      const packet = burst.get(i);
      const simple = packet.next == null && packet.total <= frameMax && write(packet, offloads);
      if (!simple) {
        ring.offerReadable(burst, first, i - first);
        sent += i - first;
        this.buffers += i - first;
        first = i + 1;
        if (!this.offerSegments(packet)) continue;
        sent++;
      }
      bytes += packet.total;
    }
    ring.offerReadable(burst, first, count - first);
    sent += count - first;
    this.buffers += count - first;
    if (sent == 0) return;
    this.statistics.packets += sent;
    this.statistics.bytes += bytes;
    ring.publish();
    this.published = true;
  }

  /**
   * Submits again, as they are, the packets that the next `count` free descriptors held last
   * (`Ring.nextHeld`), `bytes` bytes in all; the caller has them all, and the ring is straight.
   */
  submitAgain(count: u32, bytes: u64): void {
    this.ring.offerAgain(count);
    this.statistics.packets += count;
    this.statistics.bytes += bytes;
    this.ring.publish();
    this.published = true;
  }

  /** `RxQueue.relay` has offered `count` packets, `bytes` bytes in all. */
  @inline
  relayed(count: u32, bytes: u64): void {
    this.buffers += count;
    this.statistics.packets += count;
    this.statistics.bytes += bytes;
    this.ring.publish();
    this.published = true;
  }

  /**
   * Takes up to `max` packets back that were sent and submits as many again, in one pass, `burst`
   * of them at a time; `bytes` bytes each. Answers how many, or NOT_STRAIGHT (`Ring.recycle`). The
   * caller has all that the ring held last, and alike.
   */
  resubmit(max: u32, burst: u32, bytes: u32): i32 {
    let all: u32 = 0;
    let count: i32 = 0;
    do {
      // virtio 1.4 §2.7.8.3: the device writes nothing here, so the used length says nothing.
      count = this.ring.recycle(min(burst, max - all), u32.MAX_VALUE);
      if (count <= 0) break;
      all += count;
    } while (all < max);
    if (all == 0) return count;
    this.statistics.packets += all;
    this.statistics.bytes += <u64>all * bytes;
    this.published = true;
    return all;
  }

  /** The way of packets with several segments or to be cut, and of those that are refused. */
  private offerSegments(packet: Packet): bool {
    const segments = segmentsOf(packet);
    const needed = this.ring.descriptorsFor(segments);
    const limit = isSegmented(packet) ? GSO_FRAME_BYTES_MAX : this.frameMax;
    const fits = packet.total <= limit && needed != 0 && needed <= this.ring.free;
    if (!fits || !write(packet, this.offloads)) {
      this.statistics.drop(QueueDrop.TOO_LONG);
      this.pool.release(packet);
      return false;
    }
    this.ring.offerChain(packet, segments);
    this.buffers += segments;
    return true;
  }

  /** Notifies the device of what was submitted since the last kick, if it wants to know. */
  kick(): void {
    if (!this.published) return;
    this.published = false;
    if (this.ring.needsNotification()) {
      this.doorbell.ring(this.ring);
      this.statistics.kicks++;
    } else {
      this.statistics.kicksSuppressed++;
    }
  }

  /** Gives packets that were sent back to the pool, until `room` descriptors are free. */
  reclaim(room: u32): void {
    const done = this.done;
    while (this.ring.free < room) {
      done.clear();
      // virtio 1.4 §2.7.8.3: the device writes nothing here, so the used length says nothing.
      if (this.ring.take(done, BURST_MAX) == 0) return;
      const before = this.pool.free;
      this.pool.releaseBurst(done);
      this.buffers -= this.pool.free - before;
    }
  }

  /** Packets that the device has sent, or at least given back. */
  get completed(): u64 {
    return this.statistics.packets - this.statistics.resetDrops - this.ring.outstanding;
  }

  /**
   * Notifies the device whether it wants it or not: for one that may have missed the last time.
   */
  kickAnyway(): void {
    this.doorbell.ring(this.ring);
    this.statistics.kicks++;
  }

  /** The device or the queue was reset: what was not sent is lost, and in the pool again. */
  letGo(): void {
    if (this.ring.fault == RingFault.NONE) this.reclaim(this.ring.size);
    while (this.ring.outstanding > 0 && this.ring.abandon(this.done) > 0) {
      for (let i: u32 = 0; i < this.done.count; i++) {
        this.statistics.drop(QueueDrop.RESET);
        this.pool.release(this.done.get(i));
      }
    }
    this.buffers = 0;
    this.published = false;
    this.stuck = false;
  }

  /** Whether the device broke the rules of the ring, or is stuck, so that only a reset helps. */
  isBroken(): bool {
    return this.ring.fault != RingFault.NONE || this.stuck;
  }
}

/**
 * How many segments a packet has. Bounded: the driver linked them itself, at most a ring of them.
 */
export function segmentsOf(packet: Packet): u32 {
  let count: u32 = 0;
  let segment: Packet | null = packet;
  while (segment != null) {
    count++;
    segment = segment.next;
  }
  return count;
}
