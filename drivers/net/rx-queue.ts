/**
 * A receive queue: `provide` gives the device empty buffers, `take` gives the caller packets. Used by
 * queue-pair.ts. virtio 1.4 §5.1.9.3, §5.1.9.4
 */
import * as machine from "../../kernel/machine";
import { Doorbell } from "../virtio/doorbell";
import { Ring, RingFault } from "../virtio/ring";
import {
  BURST_MAX,
  Burst,
  ETHERNET_BYTES,
  HASH_HEADER_BYTES,
  PLAIN_HEADER_BYTES,
  Packet,
  PacketPool,
} from "./packet";
import { Offloads, accept } from "./header";
import { HashReports } from "./hash-report";
import { QueueDrop, QueueStatistics } from "./statistics";
import { TxQueue } from "./tx-queue";

/** Offset of csum_offset, with num_buffers behind it. virtio 1.4 §5.1.9 */
const CSUM_OFFSET: usize = 8;

export class RxQueue {
  readonly ring: Ring;
  readonly statistics: QueueStatistics = new QueueStatistics();
  readonly doorbell: Doorbell = new Doorbell();
  /** What the device said of packets' hashes, with HASH_REPORT. */
  readonly hashes: HashReports = new HashReports();
  /** num_buffers announced more buffers than the ring has. */
  mergeFault: bool = false;
  private pool: PacketPool;
  private mergeable: bool = false;
  private plain: bool = true;
  private offloads: Offloads;
  /** Segments on their way from the ring to packets. */
  private raw: Burst = Burst.create();
  /** A merged packet whose last buffers have not come yet, and how many they are. */
  private partial: Packet | null = null;
  private missing: u32 = 0;
  /** Its last buffer so far; what it is without such a packet means nothing. */
  private partialEnd: Packet = new Packet();
  /** The header of the packet at hand, as the device wrote it. */
  private first: u64 = 0;
  private csumOffset: u32 = 0;
  /** Packets of the last `take`, if nothing else stood in the way of `giveBack`; otherwise 0. */
  private whole: u32 = 0;
  /** The buffers that they took. */
  private wholeBuffers: u32 = 0;
  /** Packets that nobody looks at but this queue. */
  private seen: Burst = Burst.create();

  constructor(ring: Ring, pool: PacketPool, offloads: Offloads) {
    this.offloads = offloads;
    this.ring = ring;
    this.pool = pool;
  }

  /** For a device that has just been reset. `mergeable`: MRG_RXBUF was negotiated. */
  reset(mergeable: bool): void {
    this.mergeable = mergeable;
    const hashed = this.pool.headerBytes == HASH_HEADER_BYTES;
    this.plain = !mergeable && !this.offloads.guestCsum && !hashed;
    this.mergeFault = false;
    this.partial = null;
    this.missing = 0;
    this.whole = 0;
  }

  /** Fills the ring with free packets of the pool. Tells the device only through `kick`. */
  provide(): void {
    this.provideUpTo(this.ring.size);
  }

  /** The same with `most` packets at most. */
  provideUpTo(most: u32): void {
    const ring = this.ring;
    const raw = this.raw;
    const pool = this.pool;
    this.whole = 0;
    let room = min(most, min(ring.free, pool.free));
    if (room == 0) return;
    while (room > 0) {
      const count = min(room, BURST_MAX);
      pool.takeBurst(raw, count);
      ring.offerWritable(raw, count, pool.stride);
      room -= count;
    }
    ring.publish();
  }

  /** Notifies the device of what was provided, if it wants to know. virtio 1.4 §2.7.13.4 */
  kick(): void {
    if (this.ring.needsNotification()) {
      this.doorbell.ring(this.ring);
      this.statistics.kicks++;
    } else {
      this.statistics.kicksSuppressed++;
    }
  }

  /** Appends up to `max` received packets to the burst. Answers how many buffers were used. */
  take(burst: Burst, max: u32): u32 {
    const free = this.pool.free;
    // What comes out of a full ring can go back to where it was, if it is in the burst to the last.
    const canReturn = burst.count == 0 && this.ring.free == 0 && this.missing == 0;
    const taken = this.plain ? this.takePlain(burst, max) : this.takeSpecial(burst, max);
    const isAll = this.missing == 0 && this.pool.free == free;
    this.whole = canReturn && isAll ? burst.count : 0;
    this.wholeBuffers = taken;
    return taken;
  }

  /** The way of buffers whose header has something to say. */
  private takeSpecial(burst: Burst, max: u32): u32 {
    const raw = this.raw;
    raw.clear();
    const taken = this.ring.take(raw, min(max, BURST_MAX - burst.count));
    // The headers are in the other CPU's cache. All are fetched at once, or each would be waited
    // for.
    for (let i: u32 = 0; i < taken; i++) machine.prefetch(raw.get(i).buffer);
    let bytes: u64 = 0;
    const before = burst.count;
    let count = before;
    const pool = this.pool;
    const headerBytes = pool.headerBytes;
    const room = pool.stride - headerBytes;
    const checked = this.offloads.guestCsum;
    // What a header must say, from csum_offset on, if there is nothing to be done.
    const ordinary: u32 = this.mergeable ? 1 << 16 : 0;
    const asked: u32 = this.mergeable ? 0xffff_0000 : 0;
    for (let i: u32 = 0; i < taken; i++) {
      const segment = raw.get(i);
      // The length is the device's word: nothing beyond the buffer is ever looked at. One that is
      // shorter than the header becomes too long by the subtraction.
      const length = raw.used(i) - headerBytes;
      const head = this.partial;
      if (head != null) {
        const packet = this.append(head, segment, raw.used(i));
        if (packet == null) continue;
        bytes += packet.total;
        burst.put(count++, packet);
        continue;
      }
      if (length > room) {
        this.drop(segment);
        continue;
      }
      segment.receive(headerBytes, length);
      const first = checked ? machine.sharedRead64(segment.buffer) : 0;
      const rest = machine.sharedRead32(segment.buffer + CSUM_OFFSET);
      if (first != 0 || (rest & asked) != ordinary) {
        const buffers = this.mergeable ? rest >> 16 : 1;
        if (this.beginSpecial(segment, buffers, first, rest & 0xffff) == null) continue;
      }
      bytes += length;
      burst.put(count++, segment);
    }
    burst.count = count;
    this.count(count - before, bytes);
    if (headerBytes == HASH_HEADER_BYTES) this.hashes.read(burst, before);
    return taken;
  }

  /**
   * Without MRG_RXBUF num_buffers is 1, and without GUEST_CSUM there are no offloads, whatever the
   * header says: where it has no hash either it is not even looked at, and every buffer is a packet
   * where it lies.
   */
  private takePlain(burst: Burst, max: u32): u32 {
    const before = burst.count;
    const taken = this.ring.take(burst, max);
    const room = this.pool.stride - PLAIN_HEADER_BYTES;
    let bytes: u64 = 0;
    let kept = before;
    for (let i = before, end = before + taken; i < end; i++) {
      const packet = burst.get(i);
      const length = burst.used(i) - PLAIN_HEADER_BYTES;
      if (length > room) {
        this.drop(packet);
        continue;
      }
      machine.prefetch(packet.buffer);
      packet.receive(PLAIN_HEADER_BYTES, length);
      bytes += length;
      burst.put(kept++, packet);
    }
    burst.count = kept;
    this.count(kept - before, bytes);
    return taken;
  }

  @inline
  private count(packets: u32, bytes: u64): void {
    this.statistics.packets += packets;
    this.statistics.bytes += bytes;
  }

  /**
   * Counts up to `max` received packets and gives their buffers back to the device, without anybody
   * looking at them. Answers how many buffers. Tells the device only through `kick`.
   */
  discard(max: u32): u32 {
    if (!this.plain || this.ring.free != 0) {
      const seen = this.seen;
      seen.clear();
      const used = this.take(seen, max);
      if (used > 0) this.giveBack(seen);
      return used;
    }
    const room = this.pool.stride - PLAIN_HEADER_BYTES;
    const recycled = this.recycle(max, room);
    if (recycled >= 0) return recycled;
    const raw = this.raw;
    raw.clear();
    const taken = this.ring.take(raw, max);
    if (taken == 0) return 0;
    let bytes: u64 = 0;
    let wrong: u32 = 0;
    for (let i: u32 = 0; i < taken; i++) {
      const length = raw.used(i) - PLAIN_HEADER_BYTES;
      if (length <= room) bytes += length;
      else wrong++;
    }
    this.count(taken - wrong, bytes);
    this.statistics.usedLengthDrops += wrong;
    if (this.ring.offerAgain(taken)) {
      this.ring.publish();
    } else {
      for (let i: u32 = 0; i < taken; i++) this.pool.give(raw.get(i));
      this.provide();
    }
    return taken;
  }

  /**
   * As long as there is more, and more than once: then the device is told once for all, and what a turn
   * costs is shared by more packets.
   */
  private recycle(max: u32, room: u32): i32 {
    const ring = this.ring;
    let all: u32 = 0;
    let count: i32 = 0;
    do {
      count = ring.recycle(max - all, room);
      if (count <= 0) break;
      this.count(count - ring.recycledWrong, ring.recycledBytes);
      this.statistics.usedLengthDrops += ring.recycledWrong;
      all += count;
    } while (all < max);
    return all > 0 ? <i32>all : count;
  }

  /**
   * Gives the device the buffers of the burst that was taken last and of which nobody has kept
   * anything, and fills the ring. Tells the device only through `kick`.
   */
  giveBack(burst: Burst): void {
    const isWhole = this.whole != 0 && this.whole == burst.count;
    this.whole = 0;
    if (isWhole && this.ring.offerAgain(this.wholeBuffers)) {
      this.ring.publish();
    } else {
      this.pool.releaseBurst(burst);
      this.provide();
    }
  }

  /**
   * Sends up to `max` received packets on `tx`, which has the same pool, without anybody looking at
   * them; answers how many. 0: there are none, or the next one is for `take`. Tells the devices only
   * through `kick`.
   */
  relay(tx: TxQueue, max: u32): u32 {
    if (!this.plain) return 0;
    const least = PLAIN_HEADER_BYTES + ETHERNET_BYTES;
    const most = min(this.pool.stride, PLAIN_HEADER_BYTES + tx.frameMax);
    const moved = this.ring.relay(tx.ring, max, least, most);
    if (moved == 0) return 0;
    const bytes = this.ring.recycledBytes;
    this.count(moved, bytes);
    tx.relayed(moved, bytes);
    return moved;
  }

  /**
   * The device of `tx` has sent packets: they are this queue's again. Answers how many; 0: there
   * are none, or they are for `reclaim`.
   */
  takeOver(tx: TxQueue): u32 {
    const moved = tx.ring.giveTo(this.ring, this.ring.size, this.pool.stride);
    if (moved == 0) return 0;
    this.whole = 0;
    tx.buffers -= moved;
    this.ring.publish();
    return moved;
  }

  /** Packets of several buffers, and those with something left to do. */
  private beginSpecial(segment: Packet, buffers: u32, first: u64, csumOffset: u32): Packet | null {
    if (buffers == 0) {
      this.statistics.drop(QueueDrop.NUM_BUFFERS);
      this.pool.give(segment);
      return null;
    }
    // More than the ring holds cannot be: from here on we would not know where packets begin.
    if (buffers > this.ring.size) {
      this.mergeFault = true;
      this.pool.give(segment);
      return null;
    }
    this.first = first;
    this.csumOffset = csumOffset;
    if (buffers == 1) return this.complete(segment);
    this.partial = segment;
    this.partialEnd = segment;
    this.missing = buffers - 1;
    return null;
  }

  /** All buffers of the packet are there: its header can be checked against its length. */
  private complete(packet: Packet): Packet | null {
    if (accept(packet, this.offloads, this.first, this.csumOffset)) return packet;
    this.statistics.drop(QueueDrop.OFFLOAD);
    this.pool.release(packet);
    return null;
  }

  /** A later buffer of a merged packet: all of it is data. */
  private append(head: Packet, segment: Packet, reported: u32): Packet | null {
    const used = min(reported, this.pool.stride);
    if (used == 0) {
      // Nothing is in it, and a piece of no bytes could not be sent on.
      this.pool.give(segment);
    } else {
      segment.data = segment.buffer;
      segment.length = used;
      segment.next = null;
      head.total += used;
      this.partialEnd.next = segment;
      this.partialEnd = segment;
    }
    if (--this.missing > 0) return null;
    this.partial = null;
    return this.complete(head);
  }

  private drop(segment: Packet): void {
    this.statistics.drop(QueueDrop.USED_LENGTH);
    this.pool.give(segment);
  }

  /** The queue was reset alone: what the device had is in the pool again. */
  letGo(): void {
    while (this.ring.abandon(this.raw) > 0) {
      for (let i: u32 = 0; i < this.raw.count; i++) this.pool.give(this.raw.get(i));
    }
    const partial = this.partial;
    if (partial != null) this.pool.release(partial);
    this.whole = 0;
    this.mergeFault = false;
    this.partial = null;
    this.missing = 0;
  }

  /** Whether the device broke the rules of the ring, so that only a reset helps. */
  isBroken(): bool {
    return this.ring.fault != RingFault.NONE || this.mergeFault;
  }
}
