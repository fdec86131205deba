// The packed virtqueue, the device's side: takes buffers, gives them back, and keeps the two
// suppression rules. Everything that it reads is checked against what a driver must do. `writeUsed`
// and `lieInSlot`, for hostile tests, check nothing. virtio 1.4 §2.8
//
//   desc      address 8 | length 4 | id 2 | flags 2     N slots, both sides write
//   driver    off_wrap 2 | flags 2                      the driver writes: when to interrupt it
//   device    off_wrap 2 | flags 2                      the device writes: when to notify it

import { DriverError, OwnLie } from "../errors";
import type { Arena, Ram } from "../machine/ram";
import { Chain, type Segment } from "./chain";
import type { DeviceRing, RingOptions } from "./device-ring";
import type { Queue } from "./queue";
import { passes } from "./split-ring";
import { UsedBatch } from "./used-batch";

const DESC_BYTES = 16;
const F_NEXT = 1;
const F_WRITE = 2;
const F_INDIRECT = 4;
const F_AVAIL = 0x80;
const F_USED = 0x8000;
export const EVENT = { enable: 0, disable: 1, desc: 2 } as const;

/** A place in the ring: a slot, and the wrap counter with which it is passed. §2.8.1 */
export class Place {
  constructor(
    private readonly size: number,
    readonly slot = 0,
    readonly wrap = true,
  ) {}

  /** The place `slots` further on. */
  plus(slots: number): Place {
    const slot = this.slot + slots;
    if (slot < this.size) return new Place(this.size, slot, this.wrap);
    return new Place(this.size, slot - this.size, !this.wrap);
  }

  /** As off_wrap and notifications have it. */
  get word(): number {
    return this.slot | (this.wrap ? 0x8000 : 0);
  }
}

/** Whether the `moved` slots up to `current` pass the place that `event` names. §2.8.10 */
export function passesPlace(event: number, current: Place, moved: number, size: number): boolean {
  const slot = event & 0x7fff;
  const lap = event >> 15 === Number(current.wrap) ? 0 : size;
  return passes(slot - lap, current.slot, current.slot - moved);
}

interface Found {
  readonly chain: Chain;
  readonly next: Place;
}

/** A buffer that was seen in the ring, and a hash of its descriptors as they were then. */
interface Seen {
  readonly chain: Chain;
  readonly hash: number;
}

export class PackedRing implements DeviceRing {
  /** Buffers given back, and slots that used descriptors stand for, modulo 65,536. */
  usedIdx = 0;
  /** How many used descriptors were written; and how many slots each slot's one stands for. */
  usedWritten = 0;
  readonly covers: Uint32Array;
  /** The next slot for a used descriptor. */
  used: Place;
  /**
   * A test wrote something that was not given back. What the driver then offers, and where it
   * looks, follows from the lie: until the next reset it is not judged.
   */
  hasLied = false;
  /** §2.8.4: WRITE is set where a length is given. QEMU's devices do without. */
  marksWritten = true;
  private readonly arena: Arena;
  private readonly desc: number;
  private readonly driver: number;
  private readonly device: number;
  /** Buffers that were seen in the ring and not taken; and the place behind the last of them. */
  private readonly seen: Seen[] = [];
  private scanned: Place;
  /** Slots from `used` to `scanned`: the driver must not have more there than the ring has. */
  private slotsInUse = 0;
  private readonly taken: Uint8Array;
  private readonly waiting: { chain: Chain; bytes: number }[] = [];
  private readonly batch: UsedBatch;
  /** Slots of used descriptors for which no interrupt was considered yet. */
  private moved = 0;
  /** The last lie in each slot: length, and id; -1: none since the device was honest there. */
  private readonly liedBytes: Uint32Array;
  private readonly liedId: Int32Array;
  /** It has looked for an offer and met a lie of its own. */
  private isLost = false;

  constructor(
    private readonly ram: Ram,
    readonly queue: Queue,
    readonly options: RingOptions,
  ) {
    const { size, name } = queue;
    this.arena = ram.find(queue.desc, DESC_BYTES * size, name);
    this.desc = queue.desc - this.arena.base;
    this.driver = queue.driver - this.arena.base;
    this.device = queue.device - this.arena.base;
    this.used = new Place(size);
    this.scanned = new Place(size);
    this.taken = new Uint8Array(size);
    this.covers = new Uint32Array(size);
    this.liedBytes = new Uint32Array(size);
    this.liedId = new Int32Array(size).fill(-1);
    const most = options.inOrder ? options.usedBatch : 1;
    this.batch = new UsedBatch(most, (chains, bytes) => this.writeBatch(chains, bytes));
  }

  // ---- taking ----------------------------------------------------------------------------------

  /** How many buffers the driver has made available and the device has not taken. */
  available(): number {
    this.scan();
    return this.seen.length;
  }

  held(): number {
    this.scan();
    return this.slotsInUse;
  }

  get nextOffer(): number {
    this.scan();
    this.checkOwn(this.scanned.slot);
    return this.scanned.word;
  }

  /** Looks at what the driver has offered beyond what was seen already. */
  private scan(): void {
    for (let found = this.find(); found !== undefined; found = this.find()) {
      this.seen.push({ chain: found.chain, hash: this.hashOf(found.chain) });
      this.scanned = found.next;
    }
  }

  take(): Chain {
    this.scan();
    const seen = this.seen.shift();
    if (seen === undefined) throw this.wrong("nothing is available");
    const { chain, hash } = seen;
    if (!this.hasLied && hash !== this.hashOf(chain)) {
      throw this.wrong(`§2.8.16: buffer ${chain.head} has changed since it was offered`);
    }
    return chain;
  }

  /** Puts back the buffers that were taken last. */
  untake(chains: readonly Chain[]): void {
    this.seen.unshift(...chains.map((chain) => ({ chain, hash: this.hashOf(chain) })));
  }

  private hashOf({ descriptors }: Chain): number {
    const { view } = this.arena;
    let hash = 0;
    for (const slot of descriptors) {
      const at = this.desc + DESC_BYTES * slot;
      for (let word = at; word < at + DESC_BYTES; word += 4) {
        hash = (Math.imul(hash, 31) + view.getUint32(word, true)) | 0;
      }
    }
    return hash;
  }

  private wrong(what: string): DriverError {
    return new DriverError(`${this.queue.name}: slot ${this.scanned.slot}: ${what}`);
  }

  private flagsAt(slot: number): number {
    return this.arena.view.getUint16(this.desc + DESC_BYTES * slot + 14, true);
  }

  /**
   * Throws if length and id in a slot are those of a lie: what would be followed there, or missed, is
   * the device's own writing. The driver writes both, with one store, when it offers the slot; the
   * flags of a batch's first one it writes later, perhaps over the lie.
   */
  private checkOwn(slot: number): void {
    if (!this.isLost && !this.isLie(slot)) return;
    // What the driver had offered there is gone, so that nobody knows what it offers next.
    this.isLost = true;
    throw new OwnLie(`${this.queue.name}: slot ${slot}: what stands there is the device's lie`);
  }

  private isLie(slot: number): boolean {
    const { view } = this.arena;
    const at = this.desc + DESC_BYTES * slot;
    const bytes = view.getUint32(at + 8, true);
    return view.getUint16(at + 12, true) === this.liedId[slot] && bytes === this.liedBytes[slot];
  }

  /** §2.8.1: AVAIL as the driver's wrap counter is, USED the opposite. */
  private isOffered({ slot, wrap }: Place): boolean {
    const flags = this.flagsAt(slot);
    return ((flags & F_AVAIL) !== 0) === wrap && ((flags & F_USED) !== 0) !== wrap;
  }

  /** The buffer at the place behind those that were seen, if it is offered. */
  private find(): Found | undefined {
    const { queue, taken } = this;
    let place = this.scanned;
    if (!this.isOffered(place)) return undefined;
    const slots: number[] = [];
    const segments: Segment[] = [];
    for (let more = true; more; place = place.plus(1)) {
      if (slots.length === queue.size) throw this.wrong("§2.8.17: a list longer than the ring");
      this.checkOwn(place.slot);
      if (!this.isOffered(place)) {
        throw this.wrong(`§2.8.17: slot ${place.slot} of the list is not in place`);
      }
      if (this.slotsInUse + slots.length >= queue.size && !this.hasLied) {
        throw this.wrong(`§2.8.16: slot ${place.slot} is offered again before it was used`);
      }
      const flags = this.flagsAt(place.slot);
      more = (flags & F_NEXT) !== 0;
      slots.push(place.slot);
      segments.push(...this.segmentsOf(place.slot, flags, slots.length > 1 || more));
    }
    const last = this.desc + DESC_BYTES * (slots.at(-1) ?? 0);
    const id = this.arena.view.getUint16(last + 12, true);
    if (id >= queue.size) throw this.wrong(`buffer id ${id} in a ring of ${queue.size}`);
    if (taken[id] !== 0 && !this.hasLied)
      throw this.wrong(`buffer id ${id} is outstanding already`);
    taken[id] = 1;
    this.slotsInUse += slots.length;
    this.checkOrder(segments);
    return { chain: new Chain(this.ram, id, slots, segments), next: place };
  }

  private checkOrder(segments: readonly Segment[]): void {
    const first = segments.findIndex(({ writable }) => writable);
    if (first >= 0 && segments.slice(first).some(({ writable }) => !writable)) {
      throw this.wrong("§2.8.17: a readable piece behind a writable one");
    }
  }

  private segmentsOf(slot: number, flags: number, isListed: boolean): Segment[] {
    const at = this.desc + DESC_BYTES * slot;
    const known = F_NEXT | F_WRITE | F_INDIRECT | F_AVAIL | F_USED;
    if ((flags & ~known) !== 0) throw this.wrong(`flags ${flags}`);
    if ((flags & F_INDIRECT) === 0) return [this.segment(this.arena.view, at, flags)];
    if (!this.options.indirect) throw this.wrong("§2.8.19: INDIRECT was not negotiated");
    if (isListed) throw this.wrong("§2.8.19: an indirect table within a list");
    return this.readTable(at);
  }

  private readTable(at: number): Segment[] {
    const { view } = this.arena;
    const address = Number(view.getBigUint64(at, true));
    const bytes = view.getUint32(at + 8, true);
    const entries = bytes / DESC_BYTES;
    if (bytes === 0 || bytes % DESC_BYTES !== 0) throw this.wrong(`a table of ${bytes} bytes`);
    if (entries > this.queue.size) throw this.wrong("§2.8.19: more entries than the ring");
    const arena = this.ram.find(address, bytes, `${this.queue.name}: indirect table`);
    return Array.from({ length: entries }, (_, entry) => {
      const place = address - arena.base + DESC_BYTES * entry;
      const flags = arena.view.getUint16(place + 14, true);
      if ((flags & ~F_WRITE) !== 0) throw this.wrong(`§2.8.19: flags ${flags} in a table`);
      return this.segment(arena.view, place, flags);
    });
  }

  private segment(view: DataView, at: number, flags: number): Segment {
    const writable = (flags & F_WRITE) !== 0;
    const { use } = this.options;
    if (use !== "command" && writable !== (use === "receive")) {
      throw this.wrong(writable ? "writable" : "not writable");
    }
    const bytes = view.getUint32(at + 8, true);
    return { address: Number(view.getBigUint64(at, true)), bytes, writable };
  }

  // ---- giving back -----------------------------------------------------------------------------

  /** Gives a buffer back, not seen before `publish`. `bytes`: how many were written to it. */
  give(chain: Chain, bytes: number): void {
    this.waiting.push({ chain, bytes });
  }

  publish(): void {
    for (const { chain, bytes } of this.waiting.splice(0)) this.batch.add(chain, bytes);
    this.batch.flush();
  }

  private writeBatch(chains: readonly Chain[], bytes: number): void {
    const slots = chains.reduce((sum, { descriptors }) => sum + descriptors.length, 0);
    for (const { head } of chains) this.taken[head] = 0;
    this.slotsInUse -= slots;
    const last = chains.at(-1);
    if (last !== undefined) this.write(last.head, bytes, slots, chains.length);
  }

  /** Writes the next used descriptor, whatever it says, for one slot. Seen at once. */
  writeUsed(id: number, bytes: number): void {
    const { slot } = this.used;
    this.write(id, bytes, 1, 1);
    this.lied(slot, id, bytes);
  }

  private write(id: number, bytes: number, slots: number, buffers: number): void {
    const { slot, wrap } = this.used;
    this.writeSlot(slot, id, bytes, wrap ? F_AVAIL | F_USED : 0);
    this.covers[slot] = slots;
    this.used = this.used.plus(slots);
    this.usedIdx = (this.usedIdx + buffers) & 0xffff;
    this.usedWritten++;
    this.moved += slots;
  }

  /** Writes a used descriptor into any slot, whatever it says. */
  lieInSlot(slot: number, id: number, bytes: number, flags: number): void {
    this.writeSlot(slot, id, bytes, flags);
    this.lied(slot, id, bytes);
  }

  private lied(slot: number, id: number, bytes: number): void {
    this.hasLied = true;
    this.liedId[slot] = id & 0xffff;
    this.liedBytes[slot] = bytes;
  }

  private writeSlot(slot: number, id: number, bytes: number, flags: number): void {
    const { view } = this.arena;
    const at = this.desc + DESC_BYTES * slot;
    this.liedId[slot] = -1;
    view.setUint32(at + 8, bytes, true);
    view.setUint16(at + 12, id & 0xffff, true);
    view.setUint16(at + 14, flags | (bytes === 0 || !this.marksWritten ? 0 : F_WRITE), true);
  }

  // ---- suppression -----------------------------------------------------------------------------

  /** Whether the driver wants an interrupt for what was published since the last call. */
  wantsInterrupt(): boolean {
    const event = this.arena.view.getUint16(this.driver, true);
    const flags = this.arena.view.getUint16(this.driver + 2, true);
    const { moved } = this;
    this.moved = 0;
    if (flags > EVENT.desc) throw this.wrong(`§2.8.14: driver event flags ${flags}`);
    if (flags !== EVENT.desc) return flags === EVENT.enable;
    if (!this.options.eventIdx) throw this.wrong("§2.8.10: event mode 2 without EVENT_IDX");
    if ((event & 0x7fff) >= this.queue.size) throw this.wrong(`driver event at ${event & 0x7fff}`);
    return passesPlace(event, this.used, moved, this.queue.size);
  }

  /** Asks for a notification with the next buffer beyond those that are there. */
  enableNotifications(): void {
    this.scan();
    if (this.options.eventIdx) this.setDeviceEvent(this.scanned.word, EVENT.desc);
    else this.setDeviceEvent(0, EVENT.enable);
  }

  disableNotifications(): void {
    this.setDeviceEvent(0, EVENT.disable);
  }

  /** Writes the device's event structure, whatever it says. */
  setDeviceEvent(offWrap: number, flags: number): void {
    this.arena.view.setUint16(this.device, offWrap, true);
    this.arena.view.setUint16(this.device + 2, flags, true);
  }
}
