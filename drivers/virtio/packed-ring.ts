/**
 * The packed virtqueue, the other ring format behind drivers/net/. virtio 1.4 §2.8
 *
 * What the device sees, in linear memory (N = size, any number):
 *
 *   desc      16 N   address 8 | length 4 | id 2 | flags 2    we offer, the device writes back
 *   driver    4      off_wrap 2 | flags 2                     we write: when to interrupt us
 *   device    4      off_wrap 2 | flags 2                     the device writes: when to notify it
 *
 * The ring is passed by both sides, lap after lap. A slot is offered when its AVAIL bit is as our
 * wrap counter and its USED bit is not; it is used when both are as the device's wrap counter. The
 * counters begin at 1 and flip at the end of the ring (§2.8.1).
 *
 * Everything offered between two calls of `publish` is one batch: all of its descriptors are
 * written with their final flags but the first, whose two bits are both inverted, which means
 * neither offered nor used. `publish` then writes its flags, and the whole batch is there.
 *
 * What only we see: the buffers' ids (buffer-ids.ts). As long as they are straight, an id is the slot
 * of its descriptor.
 *
 * The device writes into the lines that we write into, so there is nothing to be won by leaving
 * out a store as in split-ring.ts, and it may write into any field of a used descriptor (§2.8.4):
 * each offer writes all of it, in two stores, without reading anything.
 *
 * A used descriptor is read as one 64-bit word, length, id and flags together, and once. An id
 * counts only if it names a slot that holds a packet. How many slots a buffer took is ours to know,
 * and so is whether it was for the device to write: WRITE, which should say that the length means
 * something (§2.8.4), is never set by QEMU.
 */
import { allocate } from "../../kernel/memory/arena";
import * as machine from "../../kernel/machine";
import { BURST_MAX, Burst, Packet } from "../net/packet";
import { BufferIds, ONE_DESCRIPTOR } from "./buffer-ids";
import {
  DESC_BYTES,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  INDIRECT_MAX,
  Ring,
  RingFault,
  RingOptions,
} from "./ring";

const AVAIL: u32 = 1 << 7;
const USED: u32 = 1 << 15;
const MARKS: u32 = AVAIL | USED;
const META: usize = 8;
const FLAGS: usize = 14;
/** Where flags and id are in the second half of a descriptor. */
const FLAGS_SHIFT: u64 = 48;
const ID_SHIFT: u64 = 32;
/** In the upper half of that word: the marks and the id, which say what came back. */
const MARKS_SHIFT: u32 = 16;
const ID_MASK: u32 = 0xffff;

/** The flags of an event suppression structure. virtio 1.4 §2.8.14 */
const EVENT_ENABLE: u32 = 0;
const EVENT_DISABLE: u32 = 1;
const EVENT_DESC: u32 = 2;
const EVENT_FLAGS: usize = 2;
const WRAP: u32 = 1 << 15;

export class PackedRing extends Ring {
  /** The next slot that we offer, and the marks that offer it. */
  private next: u32 = 0;
  private nextMarks: u32 = AVAIL;
  /** The next slot that the device uses, and the marks by which we know that it did. */
  private used: u32 = 0;
  private usedMarks: u32 = MARKS;
  /** The first slot of the batch under way and its flags; 0: there is no batch. */
  private batchHead: u32 = 0;
  private batchFlags: u32 = 0;
  /** Slots published since `needsNotification` looked. */
  private moved: u32 = 0;
  /** The event structure that was last answered by a notification, and slots published since. */
  private rungFor: u32 = 0;
  private sinceRung: u32 = 0;
  /** With IN_ORDER, when ids are no longer straight: the one that comes back next. */
  private oldest: u32 = 0;
  /** What a buffer takes that the device may write; 0 in a ring of buffers to read. */
  private writableBytes: u32 = 0;
  private driverFlags: u32 = EVENT_ENABLE;
  private readonly dma: u64;

  private readonly desc: usize;
  private readonly driver: usize;
  private readonly device: usize;
  private readonly ids: BufferIds;
  private readonly tables: usize;

  /** A ring of `size` entries. `chains`: packets may have several segments. */
  constructor(size: u32, chains: bool) {
    super(size);
    // virtio 1.4 §2.8.11: alignments 16, 4 and 4; a cache line each keeps the parts apart.
    this.desc = allocate(size * DESC_BYTES, 4096);
    this.driver = allocate(4, 64);
    this.device = allocate(4, 64);
    this.ids = new BufferIds(size);
    this.tables = chains ? allocate(size * INDIRECT_MAX * DESC_BYTES, 64) : 0;
    this.dma = machine.dmaBase();
  }

  /** Bytes of memory that a ring of `size` entries takes, rounding included. */
  static bytes(size: u32, chains: bool): u32 {
    const tables = chains ? size * INDIRECT_MAX * DESC_BYTES : 0;
    return size * DESC_BYTES + BufferIds.bytes(size) + tables + 4096 + 6 * 64;
  }

  reset(options: RingOptions): void {
    this.begin(options);
    this.indirect = options.indirect && this.tables != 0;
    this.next = 0;
    this.nextMarks = AVAIL;
    this.used = 0;
    this.usedMarks = MARKS;
    this.batchFlags = 0;
    this.moved = 0;
    this.rungFor = 0;
    this.sinceRung = 0;
    this.writableBytes = 0;
    this.ids.reset();
    this.driverFlags = EVENT_ENABLE;
    // virtio 1.4 §2.8.13: the ring is zero when the device gets it.
    memory.fill(this.desc, 0, this.size * DESC_BYTES);
    store<u32>(this.driver, 0);
    store<u32>(this.device, 0);
  }

  descAddress(): u64 {
    return this.dma + this.desc;
  }

  driverAddress(): u64 {
    return this.dma + this.driver;
  }

  deviceAddress(): u64 {
    return this.dma + this.device;
  }

  // ---- offering ---------------------------------------------------------------------------------

  offerWritable(burst: Burst, count: u32, bytes: u32): void {
    this.writableBytes = bytes;
    this.offerRun(burst, 0, count, bytes, 0, DESC_F_WRITE);
  }

  offerReadable(burst: Burst, first: u32, count: u32): void {
    this.offerRun(burst, first, count, this.headerBytes, u32.MAX_VALUE, 0);
  }

  /**
   * One descriptor a packet. Its length is `bytes` plus the packet's where `lengthMask` lets it
   * through.
   */
  @inline
  private offerRun(
    burst: Burst,
    first: u32,
    count: u32,
    bytes: u32,
    lengthMask: u32,
    flags: u32,
  ): void {
    if (count == 0) return;
    const size = this.size;
    const ids = this.ids;
    const straight = ids.straight;
    const held = ids.held;
    const dma = this.dma;
    const desc = this.desc;
    let next = this.next;
    let word = (<u64>(flags | this.nextMarks)) << FLAGS_SHIFT;
    let hidden = this.openBatch(flags);
    for (const end = first + count; first < end; first++) {
      const packet = burst.get(first);
      const id = straight ? next : ids.take();
      store<u64>(held + (id << 3), changetype<usize>(packet) | ONE_DESCRIPTOR);
      const length = bytes + (packet.length & lengthMask);
      const slot = desc + (next << 4);
      store<u64>(slot, dma + packet.buffer);
      store<u64>(slot, (word ^ hidden) | length | ((<u64>id) << ID_SHIFT), META);
      hidden = 0;
      if (++next == size) {
        next = 0;
        word ^= (<u64>MARKS) << FLAGS_SHIFT;
      }
    }
    this.advance(next, <u32>(word >> FLAGS_SHIFT) & MARKS, count);
  }

  @inline
  private advance(next: u32, marks: u32, count: u32): void {
    this.next = next;
    this.nextMarks = marks;
    this.moved += count;
    this.free -= count;
    this.outstanding += count;
  }

  /** The device may have written into every field, so that all of them are written again. */
  offerAgain(count: u32): bool {
    if (!this.ids.straight) return false;
    if (count == 0) return true;
    const size = this.size;
    const held = this.ids.held;
    const dma = this.dma;
    const desc = this.desc;
    const isWritable = this.writableBytes != 0;
    const bytes = isWritable ? this.writableBytes : this.headerBytes;
    const lengthMask: u32 = isWritable ? 0 : u32.MAX_VALUE;
    const flags = isWritable ? DESC_F_WRITE : 0;
    let next = this.next;
    let word = (<u64>(flags | this.nextMarks)) << FLAGS_SHIFT;
    let hidden = this.openBatch(flags);
    for (let left = count; left > 0; left--) {
      const packet = changetype<Packet>(load<usize>(held + (next << 3)));
      const length = bytes + (packet.length & lengthMask);
      const slot = desc + (next << 4);
      store<u64>(slot, dma + packet.buffer);
      store<u64>(slot, (word ^ hidden) | length | ((<u64>next) << ID_SHIFT), META);
      hidden = 0;
      if (++next == size) {
        next = 0;
        word ^= (<u64>MARKS) << FLAGS_SHIFT;
      }
    }
    this.advance(next, <u32>(word >> FLAGS_SHIFT) & MARKS, count);
    return true;
  }

  nextHeld(ahead: u32): usize {
    let id = this.next + ahead;
    if (id >= this.size) id -= this.size;
    return this.ids.straight ? <usize>this.ids.holds(id) : 0;
  }

  /** What is free is so in the order of the slots behind those that are outstanding. */
  private bend(): void {
    const ids = this.ids;
    if (!ids.straight) return;
    ids.bend(this.next, this.free);
    this.oldest = this.used;
  }

  /** Begins a batch if none is under way; answers what hides its first descriptor, or 0. */
  @inline
  private openBatch(flags: u32): u64 {
    if (this.batchFlags != 0) return 0;
    this.batchHead = this.next;
    this.batchFlags = flags | this.nextMarks;
    return (<u64>MARKS) << FLAGS_SHIFT;
  }

  /** Takes a free id for a buffer of `descriptors` descriptors. */
  private takeId(packet: Packet, descriptors: u32): u32 {
    this.bend();
    const id = this.ids.take();
    this.ids.hold(id, packet, descriptors);
    this.free -= descriptors;
    this.moved += descriptors;
    this.outstanding++;
    return id;
  }

  /** virtio 1.4 §2.8.6: id, AVAIL and USED are right in each descriptor of a list. */
  private describe(address: u64, length: u32, id: u32, flags: u32): void {
    const hidden = this.openBatch(flags);
    const slot = this.desc + (this.next << 4);
    const word = ((<u64>(flags | this.nextMarks)) << FLAGS_SHIFT) ^ hidden;
    store<u64>(slot, address);
    store<u64>(slot, word | length | ((<u64>id) << ID_SHIFT), META);
    if (++this.next < this.size) return;
    this.next = 0;
    this.nextMarks ^= MARKS;
  }

  offerChain(packet: Packet, segments: u32): void {
    const id = this.takeId(packet, this.descriptorsFor(segments));
    if (segments > 1 && this.descriptorsFor(segments) == 1) {
      this.offerTable(packet, segments, id);
      return;
    }
    let segment: Packet | null = packet;
    for (let i: u32 = 0; i < segments && segment != null; i++) {
      const flags = i + 1 == segments ? 0 : DESC_F_NEXT;
      this.describe(this.dma + segment.buffer, this.segmentBytes(segment, i), id, flags);
      segment = segment.next;
    }
  }

  /** virtio 1.4 §2.8.7, §2.8.19: entries come one after the other and have no flags but WRITE. */
  private offerTable(packet: Packet, segments: u32, id: u32): void {
    const table = this.tables + id * (INDIRECT_MAX * DESC_BYTES);
    let segment: Packet | null = packet;
    for (let i: u32 = 0; i < segments && segment != null; i++) {
      store<u64>(table + (i << 4), this.dma + segment.buffer);
      store<u64>(table + (i << 4), this.segmentBytes(segment, i), META);
      segment = segment.next;
    }
    this.describe(this.dma + table, segments * DESC_BYTES, id, DESC_F_INDIRECT);
  }

  offerCommand(token: Packet, out: usize, outBytes: u32, into: usize, inBytes: u32): void {
    // virtio 1.4 §2.8.17: what the device writes comes last.
    const id = this.takeId(token, 2);
    this.describe(this.dma + out, outBytes, id, DESC_F_NEXT);
    this.describe(this.dma + into, inBytes, id, DESC_F_WRITE);
  }

  publish(): void {
    if (this.batchFlags == 0) return;
    // virtio 1.4 §2.8.21.1.1: all of the batch before the flags that offer it.
    machine.release();
    machine.sharedWrite16(this.desc + (this.batchHead << 4) + FLAGS, this.batchFlags);
    this.batchFlags = 0;
  }

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

  nextOffer(): u32 {
    return this.next | (this.nextMarks == AVAIL ? WRAP : 0);
  }

  // ---- taking back ------------------------------------------------------------------------------

  take(burst: Burst, max: u32): u32 {
    const count = min(max, BURST_MAX - burst.count);
    if (count == 0) return 0;
    if (this.batchLeft != 0) return this.takeInOrder(burst, count);
    let word = this.word(this.used);
    let taken: u32 = 0;
    if (this.ids.straight) {
      const size = this.size;
      const desc = this.desc;
      const held = this.ids.held;
      const filled = burst.count;
      let used = this.used;
      // What the next used descriptor has in the upper half of its word: marks and id.
      let ours = (this.usedMarks << MARKS_SHIFT) | used;
      while ((<u32>(word >> 32) & ((MARKS << MARKS_SHIFT) | ID_MASK)) == ours) {
        burst.put(filled + taken, changetype<Packet>(load<usize>(held + (used << 3))));
        burst.putUsed(filled + taken, <u32>word);
        ours++;
        if (++used == size) {
          used = 0;
          ours = (ours - size) ^ (MARKS << MARKS_SHIFT);
        }
        if (++taken == count) break;
        word = machine.sharedRead64(desc + (used << 4) + META);
      }
      this.used = used;
      this.usedMarks = (ours >> MARKS_SHIFT) & MARKS;
      this.finish(burst, taken, taken);
      if (taken == count) return count;
    }
    if ((<u32>(word >> FLAGS_SHIFT) & MARKS) != this.usedMarks) return taken;
    if (!this.inOrder) return taken + this.takeBent(burst, count - taken, word);
    this.beginBatch(word);
    if (this.batchLeft == 0) return taken;
    return taken + this.takeInOrder(burst, count - taken);
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
  private passUsed(descriptors: u32): u32 {
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
}
