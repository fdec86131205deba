/**
 * The split virtqueue: one ring format behind the queues of drivers/net/. This part takes back and
 * asks for interrupts; split-offer.ts offers, and knows what is where; split-relay.ts makes it
 * whole. virtio 1.4 §2.7
 */
import * as machine from "../../kernel/machine";
import { BURST_MAX, Burst, Packet } from "../net/packet";
import { BufferIds } from "./buffer-ids";
import { DESC_BYTES, INDIRECT_MAX, NOT_STRAIGHT, RingFault } from "./ring";
import { META, SplitOffer } from "./split-offer";

const AVAIL_F_NO_INTERRUPT: u32 = 1;

export abstract class SplitRing extends SplitOffer {
  /** Bytes of memory that a ring of `size` entries takes, rounding included. */
  static bytes(size: u32, chains: bool): u32 {
    const tables = chains ? size * INDIRECT_MAX * DESC_BYTES : 0;
    return size * (2 * DESC_BYTES + 2 + 8 + 2) + BufferIds.bytes(size) + tables + 4096 + 6 * 64;
  }

  // ---- taking back ------------------------------------------------------------------------------

  take(burst: Burst, max: u32): u32 {
    const ready = this.ready();
    const count = min(min(ready, max), BURST_MAX - burst.count);
    if (count == 0) return 0;
    if (this.batchLeft != 0) return this.takeInOrder(burst, count, ready);
    const position = this.usedIdx;
    let element = this.isAside ? this.aside : this.element(position);
    this.isAside = false;
    let taken: u32 = 0;
    if (this.ids.straight) {
      const mask = this.mask;
      const elements = this.used + 4;
      const held = this.ids.held;
      const filled = burst.count;
      let place = position & mask;
      while (<u32>element == place) {
        burst.put(filled + taken, changetype<Packet>(load<usize>(held + (place << 3))));
        burst.putUsed(filled + taken, <u32>(element >> 32));
        if (++taken == count) break;
        place = (place + 1) & mask;
        element = machine.sharedRead64(elements + (place << 3));
      }
      burst.count = filled + taken;
      this.retire(taken, taken);
      if (taken == count) return count;
    }
    if (!this.inOrder) return taken + this.takeBent(burst, count - taken, element);
    this.beginBatch(element, ready - taken);
    if (this.batchLeft == 0) return taken;
    return taken + this.takeInOrder(burst, count - taken, ready - taken);
  }

  /** One store for all of them: descriptors and avail entries stay as they are. */
  recycle(max: u32, room: u32): i32 {
    this.recycledBytes = 0;
    this.recycledWrong = 0;
    if (!this.ids.straight || this.isAside) return NOT_STRAIGHT;
    const ready = this.ready();
    const count = min(ready, max);
    if (count == 0) return 0;
    let taken: u32 = 0;
    while (taken < count) {
      if (this.batchLeft == 0) taken += this.recycleRun(count - taken, ready - taken, room);
      if (this.batchLeft == 0) break;
      if (taken < count) taken += this.recycleBatch(count - taken, room);
    }
    if (taken > 0) this.publish();
    this.recycled += taken;
    return taken == 0 && this.isAside ? NOT_STRAIGHT : <i32>taken;
  }

  protected isUsedAhead(ahead: u32): bool {
    return ((machine.sharedRead16(this.used + 2) - this.usedIdx) & 0xffff) > ahead;
  }

  /** Takes up to `most` buffers back, at least 1, and offers as many; `ready`: those to be had. */
  @inline
  private recycleRun(most: u32, ready: u32, room: u32): u32 {
    const headerBytes = this.headerBytes;
    const mask = this.mask;
    const elements = this.used + 4;
    let place = this.usedIdx & mask;
    let element: u64 = 0;
    let count: u32 = 0;
    let bytes: u64 = 0;
    let wrong: u32 = 0;
    for (; count < most; count++) {
      element = machine.sharedRead64(elements + (place << 3));
      if (<u32>element != place) break;
      const length = <u32>(element >> 32) - headerBytes;
      if (length <= room) bytes += length;
      else wrong++;
      place = (place + 1) & mask;
    }
    this.recycledBytes += bytes;
    this.recycledWrong += wrong;
    this.usedIdx += count;
    this.availIdx += count;
    if (count == most) return count;
    if (this.inOrder) this.beginBatch(element, ready - count);
    else this.setAside(element);
    return count;
  }

  /** Takes up to `max` buffers of the batch at hand back, and offers as many. */
  private recycleBatch(max: u32, room: u32): u32 {
    const count = min(max, this.batchLeft);
    this.batchLeft -= count;
    const whole = this.headerBytes + room;
    this.countBatch(count, room, this.batchLeft == 0 ? this.batchBytes : whole);
    this.usedIdx += count;
    this.availIdx += count;
    return count;
  }

  /** How many buffers the device says that it has used. 0 and a fault: more than it has. */
  @inline
  protected ready(): u32 {
    const ready = (machine.sharedRead16(this.used + 2) - this.usedIdx) & 0xffff;
    if (ready == 0) return 0;
    // virtio 1.4 §2.7.8: entries are written before the index; read them after it.
    machine.acquire();
    if (ready <= this.outstanding) return ready;
    this.fault = RingFault.USED_INDEX;
    return 0;
  }

  @inline
  private element(position: u32): u64 {
    return machine.sharedRead64(this.used + 4 + ((position & this.mask) << 3));
  }

  @inline
  protected retire(buffers: u32, descriptors: u32): void {
    this.usedIdx += buffers;
    this.outstanding -= buffers;
    this.free += descriptors;
  }

  /** Takes up to `count` buffers, at least 1, in whatever order. `first`: the first one's element. */
  private takeBent(burst: Burst, count: u32, first: u64): u32 {
    this.bend();
    const ids = this.ids;
    const filled = burst.count;
    const position = this.usedIdx;
    let element = first;
    let taken: u32 = 0;
    let freed: u32 = 0;
    for (;;) {
      const id = <u32>element;
      if (id > this.mask) {
        this.fault = RingFault.USED_ID;
        break;
      }
      const held = ids.release(id);
      if (held == 0) {
        this.fault = RingFault.USED_NOT_OUTSTANDING;
        break;
      }
      burst.put(filled + taken, changetype<Packet>(<usize>held));
      burst.putUsed(filled + taken, <u32>(element >> 32));
      freed += this.freeIds(id, <u32>(held >> 32));
      if (++taken == count) break;
      element = this.element(position + taken);
    }
    burst.count = filled + taken;
    this.retire(taken, freed);
    return taken;
  }

  /**
   * With IN_ORDER buffers come back in the order of the avail ring. The used index counts all of
   * them, but an element may stand for a batch: it is where that of its first buffer would be, and
   * names the last. Those before it count as used whole. virtio 1.4 §2.7.9
   */
  private takeInOrder(burst: Burst, count: u32, ready: u32): u32 {
    let taken: u32 = 0;
    while (taken < count) {
      if (this.batchLeft == 0) this.beginBatch(this.element(this.usedIdx), ready - taken);
      if (this.batchLeft == 0) break;
      taken += this.takeBatch(burst, min(count - taken, this.batchLeft));
    }
    return taken;
  }

  /**
   * Finds out how many of the oldest `ready` buffers an element stands for; none and a fault if it
   * names none of them. Each buffer looked at is one that is taken then.
   */
  private beginBatch(element: u64, ready: u32): void {
    const mask = this.mask;
    const id = <u32>element;
    const position = this.usedIdx;
    this.batchBytes = <u32>(element >> 32);
    for (let i: u32 = 0; i < ready && id <= mask; i++) {
      if (load<u16>(this.availShadow + (((position + i) & mask) << 1)) != id) continue;
      this.batchLeft = i + 1;
      return;
    }
    this.fault = id > mask ? RingFault.USED_ID : RingFault.USED_NOT_OUTSTANDING;
  }

  /** Takes `count` buffers of the batch at hand. */
  private takeBatch(burst: Burst, count: u32): u32 {
    const ids = this.ids;
    const straight = ids.straight;
    const held = ids.held;
    const mask = this.mask;
    const offered = this.availShadow;
    const described = this.descShadow;
    const filled = burst.count;
    const position = this.usedIdx;
    let freed: u32 = 0;
    for (let i: u32 = 0; i < count; i++) {
      const id = <u32>load<u16>(offered + (((position + i) & mask) << 1));
      const what = straight ? load<u64>(held + (id << 3)) : ids.release(id);
      burst.put(filled + i, changetype<Packet>(<usize>what));
      burst.putUsed(filled + i, load<u32>(described + (id << 4), META));
      freed += straight ? 1 : this.freeIds(id, <u32>(what >> 32));
    }
    this.batchLeft -= count;
    if (this.batchLeft == 0) burst.putUsed(filled + count - 1, this.batchBytes);
    burst.count = filled + count;
    this.retire(count, freed);
    return count;
  }

  hasUsed(): bool {
    return machine.sharedRead16(this.used + 2) != (this.usedIdx & 0xffff);
  }

  abandon(burst: Burst): u32 {
    this.bend();
    this.ids.abandon(burst);
    this.outstanding -= burst.count;
    return burst.count;
  }

  /** Frees the descriptors of a buffer; links are ours, not those in desc. Answers `count`. */
  @inline
  private freeIds(head: u32, count: u32): u32 {
    let id = head;
    this.ids.give(id);
    for (let i: u32 = 1; i < count; i++) {
      id = <u32>(load<u64>(this.descShadow + (id << 4), META) >> 48);
      this.ids.give(id);
    }
    return count;
  }

  // ---- interrupts -------------------------------------------------------------------------------

  enableInterrupts(ahead: u32): bool {
    // virtio 1.4 §2.7.7.1: with event_idx the flags stay 0.
    if (this.eventIdx) {
      machine.sharedWrite16(this.avail + 4 + 2 * this.size, this.usedIdx + ahead - 1);
    } else {
      machine.sharedWrite16(this.avail, 0);
    }
    // The request must be visible before the look, or both sides could miss each other.
    machine.fullBarrier();
    const ready = (machine.sharedRead16(this.used + 2) - this.usedIdx) & 0xffff;
    return ready >= (this.eventIdx ? ahead : 1);
  }

  disableInterrupts(): void {
    // With event_idx the event index just stays behind, and passes once in 65,536 packets.
    if (!this.eventIdx) machine.sharedWrite16(this.avail, AVAIL_F_NO_INTERRUPT);
  }
}
