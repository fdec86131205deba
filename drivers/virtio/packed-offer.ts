/**
 * The packed virtqueue, the half that offers; packed-ring.ts is the other one and makes it a ring
 * format behind the queues of drivers/net/. virtio 1.4 §2.8
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
 * What only we see: the buffers' ids (buffer-ids.ts), and what we last wrote into a slot, without its
 * marks:
 *
 *   shadow    16 N   address 8 | length 4 | id 2 | flags 2    of buffers of one descriptor
 *
 * As long as ids are straight, an id is the slot of its descriptor.
 *
 * The device may write into any field of a used descriptor (§2.8.4), so an offer writes all of it, in
 * two stores. What is offered again as it was is copied from the shadow, without a look at its packet, and
 * then the address is compared first: it is there as a rule, and a store into a line that has to be
 * fetched from the other CPU costs more than a load from it.
 */
import { allocate } from "../../kernel/memory/arena";
import * as machine from "../../kernel/machine";
import { Burst, Packet } from "../net/packet";
import { BufferIds, ONE_DESCRIPTOR } from "./buffer-ids";
import {
  DESC_BYTES,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  INDIRECT_MAX,
  Ring,
  RingOptions,
} from "./ring";

export const AVAIL: u32 = 1 << 7;
const USED: u32 = 1 << 15;
export const MARKS: u32 = AVAIL | USED;
export const META: usize = 8;
export const FLAGS: usize = 14;
/** Where flags and id are in the second half of a descriptor. */
export const FLAGS_SHIFT: u64 = 48;
export const ID_SHIFT: u64 = 32;
export const ALL_MARKS: u64 = (<u64>MARKS) << FLAGS_SHIFT;

/** What an event suppression structure begins with, and its wrap counter. virtio 1.4 §2.8.14 */
export const EVENT_ENABLE: u32 = 0;
export const WRAP: u32 = 1 << 15;

export abstract class PackedOffer extends Ring {
  /** The next slot that we offer, and the marks that offer it. */
  protected next: u32 = 0;
  protected nextMarks: u32 = AVAIL;
  /** The next slot that the device uses, and the marks by which we know that it did. */
  protected used: u32 = 0;
  protected usedMarks: u32 = MARKS;
  /** The first slot of the batch under way and its flags; 0: there is no batch. */
  private batchHead: u32 = 0;
  private batchFlags: u32 = 0;
  /** Slots published since `needsNotification` looked. */
  protected moved: u32 = 0;
  /** The event structure that was last answered by a notification, and slots published since. */
  protected rungFor: u32 = 0;
  protected sinceRung: u32 = 0;
  /** With IN_ORDER, when ids are no longer straight: the one that comes back next. */
  protected oldest: u32 = 0;
  /** What a buffer takes that the device may write; 0 in a ring of buffers to read. */
  protected writableBytes: u32 = 0;
  protected driverFlags: u32 = EVENT_ENABLE;
  protected readonly dma: u64;

  protected readonly desc: usize;
  protected readonly driver: usize;
  protected readonly device: usize;
  protected readonly ids: BufferIds;
  protected readonly shadow: usize;
  private readonly tables: usize;

  /** A ring of `size` entries. `chains`: packets may have several segments. */
  constructor(size: u32, chains: bool) {
    super(size);
    // virtio 1.4 §2.8.11: alignments 16, 4 and 4; a cache line each keeps the parts apart.
    this.desc = allocate(size * DESC_BYTES, 4096);
    this.driver = allocate(4, 64);
    this.device = allocate(4, 64);
    this.ids = new BufferIds(size);
    this.shadow = allocate(size * DESC_BYTES, 64);
    this.tables = chains ? allocate(size * INDIRECT_MAX * DESC_BYTES, 64) : 0;
    this.dma = machine.dmaBase();
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
    const shadow = this.shadow;
    const kind = (<u64>flags) << FLAGS_SHIFT;
    let next = this.next;
    let marks = (<u64>this.nextMarks) << FLAGS_SHIFT;
    let hidden = this.openBatch(flags);
    for (const end = first + count; first < end; first++) {
      const packet = burst.get(first);
      const id = straight ? next : ids.take();
      store<u64>(held + (id << 3), changetype<usize>(packet) | ONE_DESCRIPTOR);
      const address = dma + packet.buffer;
      const word = kind | (bytes + (packet.length & lengthMask)) | ((<u64>id) << ID_SHIFT);
      const own = shadow + (next << 4);
      store<u64>(own, address);
      store<u64>(own, word, META);
      const slot = desc + (next << 4);
      store<u64>(slot, address);
      store<u64>(slot, word | (marks ^ hidden), META);
      hidden = 0;
      if (++next == size) {
        next = 0;
        marks ^= ALL_MARKS;
      }
    }
    this.advance(next, <u32>(marks >> FLAGS_SHIFT), count);
  }

  @inline
  private advance(next: u32, marks: u32, count: u32): void {
    this.next = next;
    this.nextMarks = marks;
    this.moved += count;
    this.free -= count;
    this.outstanding += count;
  }

  /** `count` slots of the straight ring are offered. */
  @inline
  protected passOffered(count: u32): void {
    this.moved += count;
    this.next += count;
    if (this.next < this.size) return;
    this.next = 0;
    this.nextMarks ^= MARKS;
  }

  /** The device may have written into every field, so that each is written again or compared. */
  offerAgain(count: u32): bool {
    if (!this.ids.straight) return false;
    const size = this.size;
    const desc = this.desc;
    const shadow = this.shadow;
    let next = this.next;
    let marks = (<u64>this.nextMarks) << FLAGS_SHIFT;
    let hidden = this.openBatch(this.kindOf(next));
    for (let left = count; left > 0; left--) {
      const own = shadow + (next << 4);
      const slot = desc + (next << 4);
      const address = load<u64>(own);
      if (machine.sharedRead64(slot) != address) store<u64>(slot, address);
      store<u64>(slot, load<u64>(own, META) | (marks ^ hidden), META);
      hidden = 0;
      if (++next == size) {
        next = 0;
        marks ^= ALL_MARKS;
      }
    }
    this.advance(next, <u32>(marks >> FLAGS_SHIFT), count);
    return true;
  }

  /** The flags but the marks of what a slot held last. */
  @inline
  protected kindOf(slot: u32): u32 {
    return load<u16>(this.shadow + (slot << 4), FLAGS);
  }

  nextHeld(ahead: u32): usize {
    let id = this.next + ahead;
    if (id >= this.size) id -= this.size;
    return this.ids.straight ? <usize>this.ids.holds(id) : 0;
  }

  /** What is free is so in the order of the slots behind those that are outstanding. */
  protected bend(): void {
    const ids = this.ids;
    if (!ids.straight) return;
    ids.bend(this.next, this.free);
    this.oldest = this.used;
  }

  /** Begins a batch if none is under way; answers what hides its first descriptor, or 0. */
  @inline
  protected openBatch(flags: u32): u64 {
    if (this.batchFlags != 0) return 0;
    this.batchHead = this.next;
    this.batchFlags = flags | this.nextMarks;
    return ALL_MARKS;
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
    // virtio 1.4 §2.8.21.1.1: all of the batch before the flags that offer it.
    machine.release();
    machine.sharedWrite16(this.desc + (this.batchHead << 4) + FLAGS, this.batchFlags);
    this.batchFlags = 0;
  }

  nextOffer(): u32 {
    return this.next | (this.nextMarks == AVAIL ? WRAP : 0);
  }
}
