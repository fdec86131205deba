/**
 * The split virtqueue: one ring format behind the queues of drivers/net/. virtio 1.4 §2.7
 *
 * What the device sees, in one piece of linear memory (N = size):
 *
 *   desc    16 N      address 8 | length 4 | flags 2 | next 2      we write, the device reads
 *   avail   6 + 2 N   flags 2 | idx 2 | ring 2 N | used_event 2    we write, the device reads
 *   used    6 + 8 N   flags 2 | idx 2 | ring 8 N | avail_event 2   the device writes, we read
 *
 * What only we see: a slot a descriptor, and the ids of free descriptors in a queue, first in
 * first out. With a device that works in order the ids then come round in the same order for ever,
 * so that an avail entry, and with equal buffers a descriptor, already holds what would be
 * written. Such stores are left out: the cache line stays shared with the device's CPU.
 *
 *   slot    32 bytes  address 8 | length, flags, next as in desc 8 | packet 4 | descriptors 4 | -
 *
 * Nothing is read back from desc or avail; used is read once a word, and an id counts only if it
 * names a slot that holds a packet.
 */
import { allocate } from "../../kernel/memory/arena";
import * as machine from "../../kernel/machine";
import { BURST_MAX, Burst, Packet } from "../net/packet";
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

const AVAIL_F_NO_INTERRUPT: u32 = 1;
const USED_F_NO_NOTIFY: u32 = 1;

const SLOT_SHIFT: u32 = 5;
const SLOT_META: usize = 8;
const SLOT_PACKET: usize = 16;
const SLOT_COUNT: usize = 20;
/** A slot's packet and its number of descriptors as one 64-bit word: one descriptor. */
const ONE_DESCRIPTOR: u64 = (<u64>1) << 32;

export class SplitRing extends Ring {
  private mask: u32;
  private availIdx: u32 = 0;
  private usedIdx: u32 = 0;
  /** The avail index up to which `needsNotification` has looked. */
  private notifiedIdx: u32 = 0;
  private freeHead: u32 = 0;
  private freeTail: u32 = 0;
  private dma: u64 = 0;

  private desc: usize;
  private avail: usize;
  private used: usize;
  private slots: usize;
  private freeIds: usize;
  /** What we last wrote to the avail ring, 16 bits an entry. */
  private availShadow: usize;
  private tables: usize = 0;

  /** A ring of `size` entries, a power of two. `chains`: packets may have several segments. */
  constructor(size: u32, chains: bool) {
    super(size);
    this.mask = size - 1;
    // virtio 1.4 §2.7.1: alignments 16, 2 and 4; a cache line each keeps the parts apart.
    this.desc = allocate(size * DESC_BYTES, 4096);
    this.avail = allocate(6 + 2 * size, 64);
    this.used = allocate(6 + 8 * size, 64);
    this.slots = allocate(size << SLOT_SHIFT, 64);
    this.freeIds = allocate(size * 2, 64);
    this.availShadow = allocate(size * 2, 64);
    if (chains) this.tables = allocate(size * INDIRECT_MAX * DESC_BYTES, 64);
    this.dma = machine.dmaBase();
  }

  /** Bytes of memory that a ring of `size` entries takes, rounding included. */
  static bytes(size: u32, chains: bool): u32 {
    const tables = chains ? size * INDIRECT_MAX * DESC_BYTES : 0;
    return size * (DESC_BYTES + 2 + 8 + 32 + 2 + 2) + tables + 4096 + 6 * 64;
  }

  reset(options: RingOptions): void {
    this.begin(options);
    this.indirect = options.indirect && this.tables != 0;
    this.availIdx = 0;
    this.usedIdx = 0;
    this.notifiedIdx = 0;
    this.freeHead = 0;
    this.freeTail = this.size;
    memory.fill(this.desc, 0, this.size * DESC_BYTES);
    // virtio 1.4 §2.7.10.1: the used ring's flags are zero when the device gets it.
    memory.fill(this.avail, 0, 6 + 2 * this.size);
    memory.fill(this.used, 0, 6 + 8 * this.size);
    memory.fill(this.slots, 0, this.size << SLOT_SHIFT);
    for (let id: u32 = 0; id < this.size; id++) {
      store<u16>(this.freeIds + 2 * id, id);
      store<u16>(this.availShadow + 2 * id, 0);
    }
  }

  descAddress(): u64 {
    return this.dma + this.desc;
  }

  driverAddress(): u64 {
    return this.dma + this.avail;
  }

  deviceAddress(): u64 {
    return this.dma + this.used;
  }

  // ---- offering ---------------------------------------------------------------------------------

  offerWritable(burst: Burst, count: u32, bytes: u32): void {
    this.offerRun(burst, 0, count, <u64>bytes | ((<u64>DESC_F_WRITE) << 32), 0);
  }

  offerReadable(burst: Burst, first: u32, count: u32): void {
    this.offerRun(burst, first, count, <u64>this.headerBytes, u32.MAX_VALUE);
  }

  /**
   * One descriptor and its avail entry a packet, where they do not hold these values already. The
   * length is that of `meta` plus the packet's where `lengthMask` lets it through.
   */
  @inline
  private offerRun(burst: Burst, first: u32, count: u32, meta: u64, lengthMask: u32): void {
    const mask = this.mask;
    const slots = this.slots;
    const freeIds = this.freeIds;
    const shadow = this.availShadow;
    const dma = this.dma;
    let head = this.freeHead;
    let avail = this.availIdx;
    for (const end = first + count; first < end; first++) {
      const packet = burst.get(first);
      const id = <u32>load<u16>(freeIds + ((head & mask) << 1));
      const slot = slots + (id << SLOT_SHIFT);
      const address = dma + packet.buffer;
      const whole = meta + (packet.length & lengthMask);
      if (load<u64>(slot) != address || load<u64>(slot, SLOT_META) != whole) {
        this.describe(id, address, whole);
      }
      store<u64>(slot, changetype<usize>(packet) | ONE_DESCRIPTOR, SLOT_PACKET);
      const entry = (avail & mask) << 1;
      if (load<u16>(shadow + entry) != id) {
        store<u16>(shadow + entry, id);
        store<u16>(this.avail + entry, id, 4);
      }
      head++;
      avail++;
    }
    this.freeHead = head;
    this.availIdx = avail;
    this.free -= count;
    this.outstanding += count;
  }

  private describe(id: u32, address: u64, meta: u64): void {
    const slot = this.slots + (id << SLOT_SHIFT);
    if (load<u64>(slot) == address && load<u64>(slot, SLOT_META) == meta) return;
    const desc = this.desc + (id << 4);
    store<u64>(slot, address);
    store<u64>(slot, meta, SLOT_META);
    store<u64>(desc, address);
    store<u64>(desc, meta, 8);
  }

  private enqueue(id: u32): void {
    const entry = (this.availIdx & this.mask) << 1;
    this.availIdx++;
    if (load<u16>(this.availShadow + entry) == id) return;
    store<u16>(this.availShadow + entry, id);
    store<u16>(this.avail + entry, id, 4);
  }

  /** Offers a packet of several segments to read: an indirect table where it pays, or a chain. */
  offerChain(packet: Packet, segments: u32): void {
    if (segments > 1 && this.descriptorsFor(segments) == 1) this.offerTable(packet, segments);
    else this.offerLinked(packet, segments);
    this.outstanding++;
  }

  /** virtio 1.4 §2.7.5.3.1: a table is not linked on, and its entries are no tables. */
  private offerTable(packet: Packet, segments: u32): void {
    const id = <u32>load<u16>(this.freeIds + ((this.freeHead & this.mask) << 1));
    const table = this.tables + id * (INDIRECT_MAX * DESC_BYTES);
    let segment: Packet | null = packet;
    for (let i: u32 = 0; i < segments && segment != null; i++) {
      const last = i + 1 == segments;
      const entry = table + (i << 4);
      const flags = last ? 0 : <u64>DESC_F_NEXT | ((<u64>(i + 1)) << 16);
      store<u64>(entry, this.dma + segment.buffer);
      store<u64>(entry, <u64>this.segmentBytes(segment, i) | (flags << 32), 8);
      segment = segment.next;
    }
    const bytes = segments * DESC_BYTES;
    this.freeHead++;
    this.describe(id, this.dma + table, <u64>bytes | ((<u64>DESC_F_INDIRECT) << 32));
    const slot = this.slots + (id << SLOT_SHIFT);
    store<u64>(slot, changetype<usize>(packet) | ONE_DESCRIPTOR, SLOT_PACKET);
    this.free--;
    this.enqueue(id);
  }

  private offerLinked(packet: Packet, segments: u32): void {
    const head = <u32>load<u16>(this.freeIds + ((this.freeHead & this.mask) << 1));
    let segment: Packet | null = packet;
    for (let i: u32 = 0; i < segments && segment != null; i++) {
      const id = <u32>load<u16>(this.freeIds + ((this.freeHead & this.mask) << 1));
      this.freeHead++;
      const next = <u32>load<u16>(this.freeIds + ((this.freeHead & this.mask) << 1));
      const flags = i + 1 == segments ? 0 : <u64>DESC_F_NEXT | ((<u64>next) << 16);
      this.describe(
        id,
        this.dma + segment.buffer,
        <u64>this.segmentBytes(segment, i) | (flags << 32),
      );
      segment = segment.next;
    }
    const slot = this.slots + (head << SLOT_SHIFT);
    store<usize>(slot, changetype<usize>(packet), SLOT_PACKET);
    store<u32>(slot, segments, SLOT_COUNT);
    this.free -= segments;
    this.enqueue(head);
  }

  /** virtio 1.4 §2.7.4.2: what the device writes comes last. */
  offerCommand(token: Packet, out: usize, outBytes: u32, into: usize, inBytes: u32): void {
    const head = <u32>load<u16>(this.freeIds + ((this.freeHead & this.mask) << 1));
    const tail = <u32>load<u16>(this.freeIds + (((this.freeHead + 1) & this.mask) << 1));
    this.freeHead += 2;
    const next = ((<u64>DESC_F_NEXT) << 32) | ((<u64>tail) << 48);
    this.describe(head, this.dma + out, <u64>outBytes | next);
    this.describe(tail, this.dma + into, <u64>inBytes | ((<u64>DESC_F_WRITE) << 32));
    const slot = this.slots + (head << SLOT_SHIFT);
    store<usize>(slot, changetype<usize>(token), SLOT_PACKET);
    store<u32>(slot, 2, SLOT_COUNT);
    this.free -= 2;
    this.outstanding++;
    this.enqueue(head);
  }

  publish(): void {
    // virtio 1.4 §2.7.13.3.1: descriptors and entries before the index.
    machine.release();
    machine.sharedWrite16(this.avail + 2, this.availIdx);
  }

  needsNotification(): bool {
    // virtio 1.4 §2.7.13.4.1: the index before the suppression words.
    machine.fullBarrier();
    const old = this.notifiedIdx;
    const current = this.availIdx;
    this.notifiedIdx = current;
    // virtio 1.4 §2.7.10.1: one of the two words counts, never both.
    if (!this.eventIdx) return !(machine.sharedRead16(this.used) & USED_F_NO_NOTIFY);
    const event = machine.sharedRead16(this.used + 4 + 8 * this.size);
    return ((current - event - 1) & 0xffff) < ((current - old) & 0xffff);
  }

  /** virtio 1.4 §2.9: the low 15 bits are next_off, the highest is next_wrap. */
  nextOffer(): u32 {
    return this.availIdx & 0xffff;
  }

  // ---- taking back ------------------------------------------------------------------------------

  take(burst: Burst, max: u32): u32 {
    const ready = (machine.sharedRead16(this.used + 2) - this.usedIdx) & 0xffff;
    if (ready == 0) return 0;
    // virtio 1.4 §2.7.8: entries are written before the index; read them after it.
    machine.acquire();
    if (ready > this.outstanding) {
      this.fault = RingFault.USED_INDEX;
      return 0;
    }
    const filled = burst.count;
    const count = min(min(ready, max), BURST_MAX - filled);
    if (this.inOrder) return this.takeInOrder(burst, count, ready);
    const mask = this.mask;
    const slots = this.slots;
    const entries = this.used + 4;
    const freeIds = this.freeIds;
    const position = this.usedIdx;
    let tail = this.freeTail;
    let taken: u32 = 0;
    for (; taken < count; taken++) {
      const element = machine.sharedRead64(entries + (((position + taken) & mask) << 3));
      const id = <u32>element;
      if (id > mask) {
        this.fault = RingFault.USED_ID;
        break;
      }
      const slot = slots + (id << SLOT_SHIFT);
      const held = load<u64>(slot, SLOT_PACKET);
      if (<u32>held == 0) {
        this.fault = RingFault.USED_NOT_OUTSTANDING;
        break;
      }
      store<u32>(slot, 0, SLOT_PACKET);
      burst.put(filled + taken, changetype<Packet>(<usize>held));
      burst.putUsed(filled + taken, <u32>(element >> 32));
      store<u16>(freeIds + ((tail & mask) << 1), id);
      tail++;
      if (held >> 32 != 1) tail = this.freeRest(slot, tail);
    }
    burst.count = filled + taken;
    this.free += tail - this.freeTail;
    this.outstanding -= taken;
    this.usedIdx = position + taken;
    this.freeTail = tail;
    return taken;
  }

  /**
   * With IN_ORDER buffers come back in the order of the avail ring. The used index counts all of
   * them, but an element may stand for a batch: it is where that of its first buffer would be, and
   * names the last. Those before it count as used whole. virtio 1.4 §2.7.9
   */
  private takeInOrder(burst: Burst, count: u32, ready: u32): u32 {
    const mask = this.mask;
    const freeIds = this.freeIds;
    const filled = burst.count;
    const position = this.usedIdx;
    const shadow = this.availShadow;
    const elements = this.used + 4;
    const slots = this.slots;
    let left = this.batchLeft;
    let bytes = this.batchBytes;
    let tail = this.freeTail;
    let taken: u32 = 0;
    for (; taken < count; taken++) {
      const entry = position + taken;
      const id = <u32>load<u16>(shadow + ((entry & mask) << 1));
      if (left == 0) {
        const element = machine.sharedRead64(elements + ((entry & mask) << 3));
        bytes = <u32>(element >> 32);
        left = <u32>element == id ? 1 : this.batchSize(<u32>element, entry, ready - taken);
        if (left == 0) break;
      }
      left--;
      const slot = slots + (id << SLOT_SHIFT);
      const held = load<u64>(slot, SLOT_PACKET);
      store<u32>(slot, 0, SLOT_PACKET);
      burst.put(filled + taken, changetype<Packet>(<usize>held));
      burst.putUsed(filled + taken, left == 0 ? bytes : load<u32>(slot, SLOT_META));
      store<u16>(freeIds + ((tail & mask) << 1), id);
      tail++;
      if (held >> 32 != 1) tail = this.freeRest(slot, tail);
    }
    burst.count = filled + taken;
    this.free += tail - this.freeTail;
    this.outstanding -= taken;
    this.usedIdx = position + taken;
    this.freeTail = tail;
    this.batchLeft = left;
    this.batchBytes = bytes;
    return taken;
  }

  /**
   * How many of the `ready` buffers from `position` on an element stands for that names `id`; 0
   * with a fault. Each buffer looked at is one that is taken then, unless there is a fault.
   */
  private batchSize(id: u32, position: u32, ready: u32): u32 {
    const mask = this.mask;
    if (id > mask) {
      this.fault = RingFault.USED_ID;
      return 0;
    }
    for (let i: u32 = 0; i < ready; i++) {
      const offered = load<u16>(this.availShadow + (((position + i) & mask) << 1));
      if (offered == id) return i + 1;
    }
    this.fault = RingFault.USED_NOT_OUTSTANDING;
    return 0;
  }

  hasUsed(): bool {
    return machine.sharedRead16(this.used + 2) != (this.usedIdx & 0xffff);
  }

  abandon(burst: Burst): u32 {
    burst.clear();
    for (let id: u32 = 0; id < this.size && burst.count < BURST_MAX; id++) {
      const slot = this.slots + (id << SLOT_SHIFT);
      const held = load<u32>(slot, SLOT_PACKET);
      if (held == 0) continue;
      store<u32>(slot, 0, SLOT_PACKET);
      burst.push(changetype<Packet>(<usize>held));
    }
    this.outstanding -= burst.count;
    return burst.count;
  }

  /** Frees the other descriptors of a chain; links are taken from the slots, not from desc. */
  private freeRest(head: usize, tail: u32): u32 {
    const count = load<u32>(head, SLOT_COUNT);
    let slot = head;
    for (let i: u32 = 1; i < count; i++) {
      const id = <u32>(load<u64>(slot, SLOT_META) >> 48);
      store<u16>(this.freeIds + ((tail & this.mask) << 1), id);
      tail++;
      slot = this.slots + (id << SLOT_SHIFT);
    }
    return tail;
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
