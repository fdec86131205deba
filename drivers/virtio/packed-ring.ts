/**
 * The packed virtqueue, the other ring format behind drivers/net/. This part takes back, and knows who
 * wants to be notified of what; packed-offer.ts offers, and knows what is where; packed-relay.ts
 * makes it whole. virtio 1.4 §2.8
 *
 * A used descriptor is read as one 64-bit word, length, id and flags together, and once. An id
 * counts only if it is that of the slot, or of another buffer that is outstanding. How many slots a buffer
 * took is ours to know, and so is whether it was for the device to write: WRITE, which should say that the
 * length means something (§2.8.4), is never set by QEMU.
 */
import * as machine from "../../kernel/machine";
import { BURST_MAX, Burst, Packet } from "../net/packet";
import { BufferIds } from "./buffer-ids";
import {
  AVAIL,
  EVENT_ENABLE,
  FLAGS,
  FLAGS_SHIFT,
  ID_SHIFT,
  MARKS,
  META,
  PackedOffer,
  WRAP,
} from "./packed-offer";
import { DESC_BYTES, INDIRECT_MAX, NOT_STRAIGHT, RingFault } from "./ring";

/** In the upper half of a used descriptor's word: the marks and the id, which say what came back. */
export const MARKS_SHIFT: u32 = 16;
const ID_MASK: u32 = 0xffff;
export const TURN_MASK: u32 = (MARKS << MARKS_SHIFT) | ID_MASK;

/** The flags of an event suppression structure that are not EVENT_ENABLE. virtio 1.4 §2.8.14 */
const EVENT_DISABLE: u32 = 1;
const EVENT_DESC: u32 = 2;
const EVENT_FLAGS: usize = 2;

export abstract class PackedRing extends PackedOffer {
  /** Bytes of memory that a ring of `size` entries takes, rounding included. */
  static bytes(size: u32, chains: bool): u32 {
    const tables = chains ? size * INDIRECT_MAX * DESC_BYTES : 0;
    return size * (2 * DESC_BYTES) + BufferIds.bytes(size) + tables + 4096 + 6 * 64;
  }

  // ---- taking back ------------------------------------------------------------------------------

  take(burst: Burst, max: u32): u32 {
    const count = min(max, BURST_MAX - burst.count);
    if (count == 0) return 0;
    if (this.batchLeft != 0) return this.takeInOrder(burst, count);
    let word = this.isAside ? this.aside : this.word(this.used);
    this.isAside = false;
    let taken: u32 = 0;
    // A slot may be marked that was never offered, in every way as if it had been.
    const most = min(count, this.outstanding);
    if (most != 0 && this.ids.straight) {
      const size = this.size;
      const desc = this.desc;
      const held = this.ids.held;
      const filled = burst.count;
      let used = this.used;
      // What the next used descriptor has in the upper half of its word: marks and id.
      let ours = (this.usedMarks << MARKS_SHIFT) | used;
      while ((<u32>(word >> 32) & TURN_MASK) == ours) {
        burst.put(filled + taken, changetype<Packet>(load<usize>(held + (used << 3))));
        burst.putUsed(filled + taken, <u32>word);
        ours++;
        if (++used == size) {
          used = 0;
          ours = (ours - size) ^ (MARKS << MARKS_SHIFT);
        }
        if (++taken == most) break;
        word = machine.sharedRead64(desc + (used << 4) + META);
      }
      this.used = used;
      this.usedMarks = (ours >> MARKS_SHIFT) & MARKS;
      this.finish(burst, taken, taken);
      if (taken == count) return count;
      if (taken == most) word = this.word(used);
    }
    if ((<u32>(word >> FLAGS_SHIFT) & MARKS) != this.usedMarks) return taken;
    if (!this.inOrder) return taken + this.takeBent(burst, count - taken, word);
    this.beginBatch(word);
    if (this.batchLeft == 0) return taken;
    return taken + this.takeInOrder(burst, count - taken);
  }

  /**
   * A slot is written again while its line is in this CPU's cache. The place that is read and the one
   * that is written are the same, or a few slots apart; within a run neither wraps.
   */
  recycle(max: u32, room: u32): i32 {
    this.recycledBytes = 0;
    this.recycledWrong = 0;
    if (!this.ids.straight) return NOT_STRAIGHT;
    // A slot may be marked that was never offered, in every way as if it had been.
    const outstanding = this.outstanding;
    if (outstanding == 0) return 0;
    let taken: u32 = 0;
    while (taken < max && !this.isAside) {
      if (this.batchLeft != 0) {
        taken += this.recycleBatch(max - taken, room);
        continue;
      }
      const most = min(
        min(max - taken, outstanding),
        min(this.size - this.used, this.size - this.next),
      );
      const count = this.recycleRun(most, room);
      taken += count;
      if (count < most && this.batchLeft == 0) break;
    }
    if (taken > 0) this.publish();
    this.countTurn(taken);
    return taken == 0 && this.isAside ? NOT_STRAIGHT : <i32>taken;
  }

  /** In order, one slot stands for a batch of them, so that none can be looked at ahead. */
  @inline
  protected countTurn(moved: u32): void {
    if (!this.inOrder) this.recycled += moved;
  }

  protected isUsedAhead(ahead: u32): bool {
    let place = this.used + ahead;
    const wraps = place >= this.size;
    if (wraps) place -= this.size;
    const flags = machine.sharedRead16(this.desc + (place << 4) + FLAGS);
    return (flags & MARKS) == (wraps ? this.usedMarks ^ MARKS : this.usedMarks);
  }

  /** Takes up to `most` buffers back, at least 1, and offers as many. */
  @inline
  private recycleRun(most: u32, room: u32): u32 {
    const headerBytes = this.headerBytes;
    const next = this.next;
    const start = this.desc + (this.used << 4);
    // What the next used descriptor has in the upper half of its word: marks and id.
    let ours = (this.usedMarks << MARKS_SHIFT) | this.used;
    let word = machine.sharedRead64(start + META);
    if ((<u32>(word >> 32) & TURN_MASK) != ours) {
      this.judge(word);
      return 0;
    }
    const end = start + (most << 4);
    const offered = (<u64>this.nextMarks) << FLAGS_SHIFT;
    let marks = offered ^ this.openBatch(this.kindOf(next));
    let from = start;
    let to = this.desc + (next << 4);
    let own = this.shadow + (next << 4);
    let bytes: u64 = 0;
    let wrong: u32 = 0;
    for (;;) {
      const length = <u32>word - headerBytes;
      if (length <= room) bytes += length;
      else wrong++;
      const address = load<u64>(own);
      if (machine.sharedRead64(to) != address) store<u64>(to, address);
      store<u64>(to, load<u64>(own, META) | marks, META);
      marks = offered;
      to += DESC_BYTES;
      own += DESC_BYTES;
      from += DESC_BYTES;
      if (from == end) break;
      ours++;
      word = machine.sharedRead64(from + META);
      if ((<u32>(word >> 32) & TURN_MASK) != ours) break;
    }
    const count = <u32>(from - start) >> 4;
    this.recycledBytes += bytes;
    this.recycledWrong += wrong;
    this.passUsed(count);
    this.passOffered(count);
    if (count < most) this.judge(word);
    return count;
  }

  /** What comes next is not used yet, or stands for a batch, or is out of turn. */
  protected judge(word: u64): void {
    if ((<u32>(word >> FLAGS_SHIFT) & MARKS) != this.usedMarks) return;
    if (this.inOrder) this.beginBatch(word);
    else this.setAside(word);
  }

  /** Takes up to `max` buffers of the batch at hand back, and offers as many. */
  private recycleBatch(max: u32, room: u32): u32 {
    const count = min(max, this.batchLeft);
    this.batchLeft -= count;
    const whole = this.headerBytes + room;
    this.countBatch(count, room, this.batchLeft == 0 ? this.batchBytes : whole);
    this.free += this.passUsed(count);
    this.outstanding -= count;
    this.offerAgain(count);
    return count;
  }

  /** The second half of a descriptor, which is all that the device has to say. */
  @inline
  private word(slot: u32): u64 {
    return machine.sharedRead64(this.desc + (slot << 4) + META);
  }

  /** Takes up to `count` buffers, at least 1, in whatever order. `first`: the first one's word. */
  private takeBent(burst: Burst, count: u32, first: u64): u32 {
    this.bend();
    const ids = this.ids;
    const filled = burst.count;
    let word = first;
    let taken: u32 = 0;
    let freed: u32 = 0;
    for (;;) {
      const id = <u32>(word >> ID_SHIFT) & ID_MASK;
      if (id >= this.size) {
        this.fault = RingFault.USED_ID;
        break;
      }
      const held = ids.release(id);
      if (held == 0) {
        this.fault = RingFault.USED_NOT_OUTSTANDING;
        break;
      }
      burst.put(filled + taken, changetype<Packet>(<usize>held));
      burst.putUsed(filled + taken, <u32>word);
      ids.give(id);
      freed += this.passUsed(<u32>(held >> 32));
      if (++taken == count) break;
      word = this.word(this.used);
      if ((<u32>(word >> FLAGS_SHIFT) & MARKS) != this.usedMarks) break;
    }
    this.finish(burst, taken, freed);
    return taken;
  }

  /** virtio 1.4 §2.8.6: a used descriptor stands for as many slots as its buffer took. */
  @inline
  protected passUsed(descriptors: u32): u32 {
    this.used += descriptors;
    if (this.used >= this.size) {
      this.used -= this.size;
      this.usedMarks ^= MARKS;
    }
    return descriptors;
  }

  /**
   * With IN_ORDER ids come back as they were given out, and that is from 0 to N - 1 for ever. A
   * used descriptor names the last buffer of a batch; those before it count as used whole.
   * virtio 1.4 §2.8.8
   */
  private takeInOrder(burst: Burst, count: u32): u32 {
    let taken: u32 = 0;
    while (taken < count) {
      if (this.batchLeft == 0) {
        const word = this.word(this.used);
        if ((<u32>(word >> FLAGS_SHIFT) & MARKS) != this.usedMarks) break;
        this.beginBatch(word);
        if (this.batchLeft == 0) break;
      }
      taken += this.takeBatch(burst, min(count - taken, this.batchLeft));
    }
    return taken;
  }

  /**
   * Finds out how many buffers a used descriptor stands for; none and a fault if it names one that
   * is not outstanding.
   */
  private beginBatch(word: u64): void {
    const id = <u32>(word >> ID_SHIFT) & ID_MASK;
    const oldest = this.ids.straight ? this.used : this.oldest;
    const ahead = id - oldest + (id < oldest ? this.size : 0);
    this.batchBytes = <u32>word;
    if (id < this.size && ahead < this.outstanding) this.batchLeft = ahead + 1;
    else this.fault = id < this.size ? RingFault.USED_NOT_OUTSTANDING : RingFault.USED_ID;
  }

  /** Takes `count` buffers of the batch at hand. */
  private takeBatch(burst: Burst, count: u32): u32 {
    const freed = this.ids.straight
      ? this.takeBatchStraight(burst, count)
      : this.takeBatchBent(burst, count);
    this.batchLeft -= count;
    if (this.batchLeft == 0) burst.putUsed(burst.count + count - 1, this.batchBytes);
    this.finish(burst, count, freed);
    return count;
  }

  @inline
  private takeBatchStraight(burst: Burst, count: u32): u32 {
    const size = this.size;
    const held = this.ids.held;
    const whole = this.writableBytes;
    let used = this.used;
    let marks = this.usedMarks;
    for (let i = burst.count, end = i + count; i < end; i++) {
      burst.put(i, changetype<Packet>(load<usize>(held + (used << 3))));
      burst.putUsed(i, whole);
      if (++used == size) {
        used = 0;
        marks ^= MARKS;
      }
    }
    this.used = used;
    this.usedMarks = marks;
    return count;
  }

  private takeBatchBent(burst: Burst, count: u32): u32 {
    const ids = this.ids;
    const filled = burst.count;
    let freed: u32 = 0;
    for (let i: u32 = 0; i < count; i++) {
      const id = this.oldest;
      const held = ids.release(id);
      ids.give(id);
      if (++this.oldest == this.size) this.oldest = 0;
      burst.put(filled + i, changetype<Packet>(<usize>held));
      burst.putUsed(filled + i, this.writableBytes);
      freed += this.passUsed(<u32>(held >> 32));
    }
    return freed;
  }

  @inline
  private finish(burst: Burst, taken: u32, freed: u32): void {
    if (taken == 0) return;
    // Buffers were written before the flags that say so; they are read after them.
    machine.acquire();
    burst.count += taken;
    this.free += freed;
    this.outstanding -= taken;
  }

  hasUsed(): bool {
    if (this.batchLeft != 0) return true;
    const flags = machine.sharedRead16(this.desc + (this.used << 4) + FLAGS);
    return (flags & MARKS) == this.usedMarks;
  }

  abandon(burst: Burst): u32 {
    this.bend();
    this.ids.abandon(burst);
    this.outstanding -= burst.count;
    return burst.count;
  }

  // ---- interrupts -------------------------------------------------------------------------------

  enableInterrupts(ahead: u32): bool {
    let mode = EVENT_ENABLE;
    if (this.eventIdx) {
      mode = EVENT_DESC;
      let place = this.used + ahead - 1;
      let wrap = this.usedMarks != 0;
      if (place >= this.size) {
        place -= this.size;
        wrap = !wrap;
      }
      machine.sharedWrite16(this.driver, place | (wrap ? WRAP : 0));
      // The place before the mode by which it counts.
      machine.release();
    }
    if (this.driverFlags != mode) this.setDriverFlags(mode);
    // The request must be visible before the look, or both sides could miss each other.
    machine.fullBarrier();
    return this.hasUsed();
  }

  disableInterrupts(): void {
    if (this.driverFlags != EVENT_DISABLE) this.setDriverFlags(EVENT_DISABLE);
  }

  private setDriverFlags(flags: u32): void {
    this.driverFlags = flags;
    machine.sharedWrite16(this.driver + EVENT_FLAGS, flags);
  }

  // ---- notifications ----------------------------------------------------------------------------

  needsNotification(): bool {
    // virtio 1.4 §2.8.21.3.1: the flags before the suppression words, which are read at once.
    machine.fullBarrier();
    const moved = this.moved;
    this.moved = 0;
    const event = machine.sharedRead32(this.device);
    const flags = event >> 16;
    this.sinceRung += moved;
    // virtio 1.4 §2.8.10: a place counts only with event_idx.
    if (flags != EVENT_DESC || !this.eventIdx) return flags != EVENT_DISABLE && moved != 0;
    // How many slots ago the place was passed, as far as that can be told: laps are odd or even.
    const size = this.size;
    const lap = ((event & WRAP) != 0) == (this.nextMarks == AVAIL) ? 0 : size;
    let ago = <i32>(this.next + lap - (event & (WRAP - 1)));
    if (ago < 0) ago += 2 * size;
    if (moved == 0 || ago <= 0) return false;
    if (<u32>ago > moved && !this.isLeftBehind(event, ago)) return false;
    this.rungFor = event;
    this.sinceRung = 0;
    return true;
  }

  /**
   * Whether a place that was passed before has to be answered all the same. QEMU names the place
   * at which it stands, goes on from there, and stops further on without naming another: it then
   * waits for a notification that §2.8.10 does not ask for. One for each place is enough; a place
   * that comes back after two laps is a new one.
   */
  private isLeftBehind(event: u32, ago: u32): bool {
    if (ago > this.size + (this.size >> 1)) return false;
    return event != this.rungFor || this.sinceRung >= this.size;
  }
}
