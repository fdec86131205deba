// The packed virtqueue, the device's side over vhost-user. virtio 1.4 §2.8
//
//   desc      address 8 | length 4 | id 2 | flags 2     N slots, both sides write
//   driver    off_wrap 2 | flags 2                      the driver writes: when to interrupt it
//   device    off_wrap 2 | flags 2                      the device writes: when to notify it

import type { GuestMemory } from "./vhost-user-device-memory";
import {
  type Chain,
  checkSegments,
  DESC_BYTES,
  type DeviceRing,
  DriverFault,
  F_INDIRECT,
  F_NEXT,
  F_WRITE,
  passes,
  type RingSetup,
  type Segment,
} from "./vhost-user-device-ring";

export const F_AVAIL = 0x80;
export const F_USED = 0x8000;
const MARKS = F_AVAIL | F_USED;
const WRAP = 0x8000;
const EVENT_ENABLE = 0;
const EVENT_DISABLE = 1;
const EVENT_DESC = 2;

/** A place in the ring: a slot, and the wrap counter with which it is passed. §2.8.1 */
export interface Place {
  readonly slot: number;
  readonly wrap: boolean;
}

const placeOf = (word: number): Place => ({ slot: word & (WRAP - 1), wrap: (word & WRAP) !== 0 });
const wordOf = ({ slot, wrap }: Place) => slot | (wrap ? WRAP : 0);

interface Used {
  readonly slots: number;
  readonly id: number;
  readonly bytes: number;
}

export class PackedDeviceRing implements DeviceRing {
  /** The next slot to take a buffer from, and the next for a used descriptor. */
  private next: Place;
  used: Place;
  /** Used descriptors that wait for `publish`. */
  private readonly waiting: Used[] = [];
  /** Buffer ids that were taken and not given back, and the slots that they take. */
  private readonly taken = new Map<number, number>();
  /** Slots of used descriptors for which no interrupt was considered yet. */
  private moved = 0;

  constructor(
    private readonly memory: GuestMemory,
    readonly setup: RingSetup,
  ) {
    this.next = placeOf(setup.base & 0xffff);
    this.used = placeOf((setup.base >>> 16) & 0xffff);
  }

  get areas() {
    const { desc, device, driver, size } = this.setup;
    return {
      desc: { address: desc, bytes: DESC_BYTES * size },
      driver: { address: driver, bytes: 4 },
      device: { address: device, bytes: 4 },
    };
  }

  private fault(what: string): DriverFault {
    return new DriverFault(`${this.setup.name}: ${what}`);
  }

  /** The place `slots` further on. */
  plus({ slot, wrap }: Place, slots: number): Place {
    const { size } = this.setup;
    const sum = slot + slots;
    return sum < size ? { slot: sum, wrap } : { slot: sum - size, wrap: !wrap };
  }

  private meta(slot: number): { bytes: number; id: number; flags: number } {
    const word = this.memory.load64(this.setup.desc + DESC_BYTES * slot + 8);
    return {
      bytes: Number(word & 0xffff_ffffn),
      id: Number((word >> 32n) & 0xffffn),
      flags: Number(word >> 48n),
    };
  }

  /** §2.8.1: AVAIL as the driver's wrap counter is, USED the opposite. */
  private isOffered({ slot, wrap }: Place): boolean {
    const { flags } = this.meta(slot);
    return ((flags & F_AVAIL) !== 0) === wrap && ((flags & F_USED) !== 0) !== wrap;
  }

  take(): Chain | undefined {
    const { name, size } = this.setup;
    if (!this.isOffered(this.next)) return undefined;
    const segments: Segment[] = [];
    let place = this.next;
    let slots = 0;
    let id = 0;
    for (let more = true; more; place = this.plus(place, 1)) {
      if (slots === size) throw this.fault("§2.8.17: a list longer than the ring");
      if (!this.isOffered(place)) throw this.fault(`§2.8.17: slot ${place.slot} is not in place`);
      const meta = this.meta(place.slot);
      more = (meta.flags & F_NEXT) !== 0;
      id = meta.id;
      slots++;
      segments.push(...this.segmentsAt(place.slot, more || slots > 1));
    }
    const held = [...this.taken.values()].reduce((sum, count) => sum + count, 0);
    if (held + slots > size) throw this.fault(`§2.8.16: ${held + slots} slots in use of ${size}`);
    if (id >= size) throw this.fault(`buffer id ${id} in a ring of ${size}`);
    if (this.taken.has(id)) throw new DriverFault(`${name}: buffer ${id} is outstanding already`);
    checkSegments(this.memory, this.setup, segments);
    this.taken.set(id, slots);
    this.next = place;
    return { id, slots, segments };
  }

  private segmentsAt(slot: number, isListed: boolean): Segment[] {
    const at = this.setup.desc + DESC_BYTES * slot;
    const address = Number(this.memory.load64(at));
    const { bytes, flags } = this.meta(slot);
    if ((flags & ~(F_NEXT | F_WRITE | F_INDIRECT | MARKS)) !== 0)
      throw this.fault(`flags ${flags}`);
    if ((flags & F_INDIRECT) === 0) {
      return [{ address, bytes, writable: (flags & F_WRITE) !== 0 }];
    }
    if (!this.setup.indirect) throw this.fault("§2.8.19: INDIRECT was not negotiated");
    if (isListed) throw this.fault("§2.8.19: an indirect table within a list");
    return this.table(address, bytes);
  }

  private table(address: number, bytes: number): Segment[] {
    const entries = bytes / DESC_BYTES;
    if (!Number.isInteger(entries) || entries === 0 || entries > this.setup.size) {
      throw this.fault(`§2.8.19: a table of ${bytes} bytes`);
    }
    return Array.from({ length: entries }, (_, entry) => {
      const at = address + DESC_BYTES * entry;
      const meta = this.memory.load64(at + 8);
      const flags = Number(meta >> 48n);
      if ((flags & ~F_WRITE) !== 0) throw this.fault(`§2.8.19: flags ${flags} in a table`);
      const writable = (flags & F_WRITE) !== 0;
      return {
        address: Number(this.memory.load64(at)),
        bytes: Number(meta & 0xffff_ffffn),
        writable,
      };
    });
  }

  untake(chains: readonly Chain[]): void {
    const slots = chains.reduce((sum, chain) => sum + chain.slots, 0);
    for (const { id } of chains) this.taken.delete(id);
    const { size } = this.setup;
    const slot = this.next.slot - slots;
    this.next =
      slot >= 0 ? { slot, wrap: this.next.wrap } : { slot: slot + size, wrap: !this.next.wrap };
  }

  give({ id, slots }: Chain, bytes: number): void {
    this.taken.delete(id);
    this.waiting.push({ id, slots, bytes });
  }

  writeUsed(id: number, bytes: number): void {
    this.waiting.push({ id, slots: 1, bytes });
  }

  /**
   * The flags that tell of a used descriptor come last, and those of a batch's first one after all
   * others. §2.8.6
   */
  publish(): void {
    const batch = this.waiting.splice(0);
    const places = batch.map(({ slots }) => {
      const place = this.used;
      this.used = this.plus(place, slots);
      this.moved += slots;
      return place;
    });
    for (let i = batch.length - 1; i >= 0; i--) {
      const [place, used] = [places[i], batch[i]];
      if (place === undefined || used === undefined) continue;
      this.writeSlot(place.slot, used.id, used.bytes, place.wrap ? MARKS : 0);
    }
  }

  /** Writes a used descriptor into any slot, whatever it says. Seen at once. */
  writeSlot(slot: number, id: number, bytes: number, flags: number): void {
    const at = this.setup.desc + DESC_BYTES * slot;
    this.memory.store32(at + 8, bytes);
    this.memory.store16(at + 12, id);
    // §2.8.4: WRITE says that the length is one of bytes written.
    const written = this.setup.receives && bytes !== 0 ? F_WRITE : 0;
    this.memory.store16(at + 14, flags | written);
  }

  wantsInterrupt(): boolean {
    const { driver, eventIdx, size } = this.setup;
    const moved = this.moved;
    this.moved = 0;
    const event = this.memory.load16(driver);
    const flags = this.memory.load16(driver + 2);
    if (flags === EVENT_ENABLE || flags === EVENT_DISABLE) return flags === EVENT_ENABLE;
    if (flags !== EVENT_DESC || !eventIdx) throw this.fault(`§2.8.14: driver event flags ${flags}`);
    const { slot, wrap } = placeOf(event);
    if (slot >= size) throw this.fault(`§2.8.14: driver event at ${slot} of ${size}`);
    const lap = wrap === this.used.wrap ? 0 : size;
    return passes(slot - lap, this.used.slot, this.used.slot - moved);
  }

  enableNotifications(): void {
    if (this.setup.eventIdx) this.writeSuppression(EVENT_DESC, wordOf(this.next));
    else this.writeSuppression(EVENT_ENABLE, 0);
  }

  disableNotifications(): void {
    this.writeSuppression(EVENT_DISABLE, 0);
  }

  writeSuppression(flags: number, event: number): void {
    this.memory.store16(this.setup.device, event);
    this.memory.store16(this.setup.device + 2, flags);
  }

  base(): number {
    return (wordOf(this.next) | (wordOf(this.used) << 16)) >>> 0;
  }
}
