// The split virtqueue, the device's side over vhost-user. virtio 1.4 §2.7
//
//   desc    address 8 | length 4 | flags 2 | next 2        N entries
//   avail   flags 2 | idx 2 | ring 2 N | used_event 2      the driver writes
//   used    flags 2 | idx 2 | ring 8 N | avail_event 2     the device writes

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

const NO_NOTIFY = 1;
const NO_INTERRUPT = 1;

export class SplitDeviceRing implements DeviceRing {
  /** How far buffers were taken, and how far they were given back. */
  private lastAvail: number;
  usedIdx: number;
  /** The used index up to which an interrupt was considered. */
  private signalled: number;
  /** Heads that were taken and not given back. */
  private readonly taken = new Set<number>();

  constructor(
    private readonly memory: GuestMemory,
    readonly setup: RingSetup,
  ) {
    this.lastAvail = setup.base & 0xffff;
    this.usedIdx = memory.load16(setup.device + 2);
    this.signalled = this.usedIdx;
  }

  get areas() {
    const { desc, device, driver, size } = this.setup;
    return {
      desc: { address: desc, bytes: DESC_BYTES * size },
      driver: { address: driver, bytes: 6 + 2 * size },
      device: { address: device, bytes: 6 + 8 * size },
    };
  }

  private get availIdx(): number {
    return this.memory.load16(this.setup.driver + 2);
  }

  private fault(what: string): DriverFault {
    return new DriverFault(`${this.setup.name}: ${what}`);
  }

  take(): Chain | undefined {
    const { driver, size } = this.setup;
    const count = (this.availIdx - this.lastAvail) & 0xffff;
    if (count === 0) return undefined;
    if (count + this.taken.size > size) {
      throw this.fault(`§2.7.6.1: ${count} available and ${this.taken.size} taken of ${size}`);
    }
    const id = this.memory.load16(driver + 4 + 2 * (this.lastAvail & (size - 1)));
    const chain = this.follow(id);
    if (this.taken.has(id)) throw this.fault(`buffer ${id} is outstanding already`);
    this.taken.add(id);
    this.lastAvail = (this.lastAvail + 1) & 0xffff;
    return chain;
  }

  untake(chains: readonly Chain[]): void {
    for (const { id } of chains) this.taken.delete(id);
    this.lastAvail = (this.lastAvail - chains.length) & 0xffff;
  }

  private follow(head: number): Chain {
    const { desc, size } = this.setup;
    const segments: Segment[] = [];
    let slots = 0;
    for (let id = head, more = true; more; slots++) {
      if (id >= size) throw this.fault(`descriptor ${id} is beyond the ring`);
      if (slots === size) throw this.fault(`§2.7.5.2: the chain of ${head} loops`);
      const at = desc + DESC_BYTES * id;
      const { flags, next, segment } = this.descriptor(at);
      if ((flags & F_INDIRECT) !== 0) {
        if (slots > 0 || (flags & F_NEXT) !== 0) throw this.fault("§2.7.5.3.1: a table in a chain");
        segments.push(...this.table(segment));
      } else segments.push(segment);
      more = (flags & F_NEXT) !== 0;
      id = next;
    }
    checkSegments(this.memory, this.setup, segments);
    return { id: head, slots, segments };
  }

  private descriptor(at: number): { flags: number; next: number; segment: Segment } {
    const address = Number(this.memory.load64(at));
    const meta = this.memory.load64(at + 8);
    const flags = Number((meta >> 32n) & 0xffffn);
    if ((flags & ~(F_NEXT | F_WRITE | F_INDIRECT)) !== 0) throw this.fault(`flags ${flags}`);
    const bytes = Number(meta & 0xffff_ffffn);
    const segment = { address, bytes, writable: (flags & F_WRITE) !== 0 };
    return { flags, next: Number(meta >> 48n), segment };
  }

  private table({ address, bytes }: Segment): Segment[] {
    const entries = bytes / DESC_BYTES;
    if (!this.setup.indirect) throw this.fault("§2.7.5.3.1: INDIRECT was not negotiated");
    if (!Number.isInteger(entries) || entries === 0 || entries > this.setup.size) {
      throw this.fault(`§2.7.5.3.1: a table of ${bytes} bytes`);
    }
    const segments: Segment[] = [];
    for (let entry = 0, more = true; more; ) {
      if (entry >= entries || segments.length === entries) {
        throw this.fault(`entry ${entry} of a table of ${entries}`);
      }
      const { flags, next, segment } = this.descriptor(address + DESC_BYTES * entry);
      if ((flags & F_INDIRECT) !== 0) throw this.fault("§2.7.5.3.1: a table in a table");
      segments.push(segment);
      more = (flags & F_NEXT) !== 0;
      entry = next;
    }
    return segments;
  }

  give({ id }: Chain, bytes: number): void {
    this.taken.delete(id);
    this.writeUsed(id, bytes);
  }

  writeUsed(id: number, bytes: number): void {
    const { device, size } = this.setup;
    const at = device + 4 + 8 * (this.usedIdx & (size - 1));
    this.memory.store32(at, id);
    this.memory.store32(at + 4, bytes);
    this.usedIdx = (this.usedIdx + 1) & 0xffff;
  }

  publish(): void {
    this.writeUsedIdx(this.usedIdx);
  }

  /** Writes the used index, whatever it says. */
  writeUsedIdx(value: number): void {
    this.memory.store16(this.setup.device + 2, value);
  }

  wantsInterrupt(): boolean {
    const { driver, eventIdx, size } = this.setup;
    const old = this.signalled;
    this.signalled = this.usedIdx;
    if (!eventIdx) return (this.memory.load16(driver) & NO_INTERRUPT) === 0;
    return passes(this.memory.load16(driver + 4 + 2 * size), this.usedIdx, old);
  }

  enableNotifications(): void {
    if (this.setup.eventIdx) this.writeSuppression(0, this.lastAvail);
    else this.writeSuppression(0, 0);
  }

  /** With EVENT_IDX the event stays where it is, which is behind: nothing is asked for. */
  disableNotifications(): void {
    if (!this.setup.eventIdx) this.writeSuppression(NO_NOTIFY, 0);
  }

  writeSuppression(flags: number, event: number): void {
    const { device, size } = this.setup;
    this.memory.store16(device + 4 + 8 * size, event);
    this.memory.store16(device, flags);
  }

  base(): number {
    return this.lastAvail;
  }
}
