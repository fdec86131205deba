/**
 * The split virtqueue, the half that offers; split-ring.ts is the other one and makes it a ring format
 * behind the queues of drivers/net/. virtio 1.4 §2.7
 *
 * What the device sees, in one piece of linear memory (N = size):
 *
 *   desc    16 N      address 8 | length 4 | flags 2 | next 2      we write, the device reads
 *   avail   6 + 2 N   flags 2 | idx 2 | ring 2 N | used_event 2    we write, the device reads
 *   used    6 + 8 N   flags 2 | idx 2 | ring 8 N | avail_event 2   the device writes, we read
 *
 * What only we see: the buffers' ids (buffer-ids.ts), and what we last wrote into desc and the
 * avail ring. Both begin with the ids in turn, 0 to N - 1, and as long as the ids stay straight the avail
 * ring is never written again, and a descriptor only for another packet or length. What is not
 * written stays in the cache of the device's CPU.
 *
 * Nothing is read back from desc or avail; used is read once a word, and an id counts only if it is
 * outstanding.
 */
import { allocate } from "../../kernel/memory/arena";
import * as machine from "../../kernel/machine";
import { Burst, Packet } from "../net/packet";
import { BufferIds } from "./buffer-ids";
import {
  DESC_BYTES,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  INDIRECT_MAX,
  Ring,
  RingOptions,
} from "./ring";

const USED_F_NO_NOTIFY: u32 = 1;

/** Where length, flags and next are in a descriptor, as one word. */
export const META: usize = 8;

export abstract class SplitOffer extends Ring {
  protected mask: u32;
  protected availIdx: u32 = 0;
  protected usedIdx: u32 = 0;
  /** The avail index up to which `needsNotification` has looked. */
  private notifiedIdx: u32 = 0;
  private dma: u64 = 0;

  protected desc: usize;
  protected avail: usize;
  protected used: usize;
  protected readonly ids: BufferIds;
  /** What we last wrote to desc, and to the avail ring, 16 bits an entry. */
  protected descShadow: usize;
  protected availShadow: usize;
  private tables: usize = 0;

  /** A ring of `size` entries, a power of two. `chains`: packets may have several segments. */
  constructor(size: u32, chains: bool) {
    super(size);
    this.mask = size - 1;
    // virtio 1.4 §2.7.1: alignments 16, 2 and 4; a cache line each keeps the parts apart.
    this.desc = allocate(size * DESC_BYTES, 4096);
    this.avail = allocate(6 + 2 * size, 64);
    this.used = allocate(6 + 8 * size, 64);
    this.ids = new BufferIds(size);
    this.descShadow = allocate(size * DESC_BYTES, 64);
    this.availShadow = allocate(size * 2, 64);
    if (chains) this.tables = allocate(size * INDIRECT_MAX * DESC_BYTES, 64);
    this.dma = machine.dmaBase();
  }

  reset(options: RingOptions): void {
    this.begin(options);
    this.ids.reset();
    this.indirect = options.indirect && this.tables != 0;
    this.availIdx = 0;
    this.usedIdx = 0;
    this.notifiedIdx = 0;
    memory.fill(this.desc, 0, this.size * DESC_BYTES);
    memory.fill(this.descShadow, 0, this.size * DESC_BYTES);
    // virtio 1.4 §2.7.10.1: the used ring's flags are zero when the device gets it.
    memory.fill(this.avail, 0, 6 + 2 * this.size);
    memory.fill(this.used, 0, 6 + 8 * this.size);
    for (let id: u32 = 0; id < this.size; id++) {
      store<u16>(this.avail + 2 * id, id, 4);
      store<u16>(this.availShadow + 2 * id, id);
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
    const end = first + count;
    if (this.ids.straight) {
      const mask = this.mask;
      const held = this.ids.held;
      const shadow = this.descShadow;
      for (let place = this.availIdx; first < end; first++, place++) {
        const packet = burst.get(first);
        const id = place & mask;
        const whole = meta + (packet.length & lengthMask);
        const same = load<u32>(held + (id << 3)) == changetype<usize>(packet);
        if (!same || load<u64>(shadow + (id << 4), META) != whole) this.offerAt(id, packet, whole);
      }
      this.availIdx += count;
    } else {
      for (; first < end; first++) {
        const packet = burst.get(first);
        const id = this.ids.take();
        this.offerAt(id, packet, meta + (packet.length & lengthMask));
        this.enqueue(id);
      }
    }
    this.free -= count;
    this.outstanding += count;
  }

  protected offerAt(id: u32, packet: Packet, meta: u64): void {
    this.ids.hold(id, packet, 1);
    this.describe(id, this.dma + packet.buffer, meta);
  }

  private describe(id: u32, address: u64, meta: u64): void {
    const shadow = this.descShadow + (id << 4);
    if (load<u64>(shadow) == address && load<u64>(shadow, META) == meta) return;
    const desc = this.desc + (id << 4);
    store<u64>(shadow, address);
    store<u64>(shadow, meta, META);
    store<u64>(desc, address);
    store<u64>(desc, meta, META);
  }

  private enqueue(id: u32): void {
    const entry = (this.availIdx & this.mask) << 1;
    this.availIdx++;
    if (load<u16>(this.availShadow + entry) == id) return;
    store<u16>(this.availShadow + entry, id);
    store<u16>(this.avail + entry, id, 4);
  }

  offerAgain(count: u32): bool {
    if (!this.ids.straight) return false;
    this.advance(count);
    return true;
  }

  /** `count` places of the straight ring are offered. */
  @inline
  protected advance(count: u32): void {
    this.availIdx += count;
    this.free -= count;
    this.outstanding += count;
  }

  nextHeld(ahead: u32): usize {
    const id = (this.availIdx + ahead) & this.mask;
    return this.ids.straight ? load<u32>(this.ids.held + (id << 3)) : 0;
  }

  /** What is free is so in the order of the places behind those that are outstanding. */
  protected bend(): void {
    if (this.ids.straight) this.ids.bend(this.availIdx & this.mask, this.free);
  }

  /** Offers a packet of several segments to read: an indirect table where it pays, or a chain. */
  offerChain(packet: Packet, segments: u32): void {
    this.bend();
    if (segments > 1 && this.descriptorsFor(segments) == 1) this.offerTable(packet, segments);
    else this.offerLinked(packet, segments);
    this.outstanding++;
  }

  /** virtio 1.4 §2.7.5.3.1: a table is not linked on, and its entries are no tables. */
  private offerTable(packet: Packet, segments: u32): void {
    const id = this.ids.take();
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
    this.describe(id, this.dma + table, <u64>bytes | ((<u64>DESC_F_INDIRECT) << 32));
    this.ids.hold(id, packet, 1);
    this.free--;
    this.enqueue(id);
  }

  private offerLinked(packet: Packet, segments: u32): void {
    const ids = this.ids;
    const head = ids.next;
    let segment: Packet | null = packet;
    for (let i: u32 = 0; i < segments && segment != null; i++) {
      const id = ids.take();
      const flags = i + 1 == segments ? 0 : <u64>DESC_F_NEXT | ((<u64>ids.next) << 16);
      const bytes = this.segmentBytes(segment, i);
      this.describe(id, this.dma + segment.buffer, <u64>bytes | (flags << 32));
      segment = segment.next;
    }
    ids.hold(head, packet, segments);
    this.free -= segments;
    this.enqueue(head);
  }

  /** virtio 1.4 §2.7.4.2: what the device writes comes last. */
  offerCommand(token: Packet, out: usize, outBytes: u32, into: usize, inBytes: u32): void {
    this.bend();
    const head = this.ids.take();
    const tail = this.ids.take();
    const next = ((<u64>DESC_F_NEXT) << 32) | ((<u64>tail) << 48);
    this.describe(head, this.dma + out, <u64>outBytes | next);
    this.describe(tail, this.dma + into, <u64>inBytes | ((<u64>DESC_F_WRITE) << 32));
    this.ids.hold(head, token, 2);
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
}
