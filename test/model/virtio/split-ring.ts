// The split virtqueue, the device's side: takes buffers, gives them back, and keeps the two
// suppression rules. Everything that it reads is checked against what a driver must do. The verbs
// that hostile tests need (`writeUsed`, `setUsedIdx`) check nothing. virtio 1.4 §2.7
//
//   desc    address 8 | length 4 | flags 2 | next 2        N entries
//   avail   flags 2 | idx 2 | ring 2 N | used_event 2      the driver writes
//   used    flags 2 | idx 2 | ring 8 N | avail_event 2     the device writes

import { DriverError } from "../errors";
import type { Arena, Ram } from "../machine/ram";
import { Chain, type Segment } from "./chain";
import type { DeviceRing, RingOptions } from "./device-ring";
import type { Queue } from "./queue";
import { UsedBatch } from "./used-batch";

const DESC_BYTES = 16;
const F_NEXT = 1;
const F_WRITE = 2;
const F_INDIRECT = 4;
const NO_NOTIFY = 1;
const NO_INTERRUPT = 1;

/** Whether moving an index from `old` to `current` passes `event`. virtio 1.4 §2.7.7.2, §2.7.10 */
export function passes(event: number, current: number, old: number): boolean {
  return ((current - event - 1) & 0xffff) < ((current - old) & 0xffff);
}

export class SplitRing implements DeviceRing {
  /** How far the device has taken buffers, and how far it has given them back. */
  lastAvail = 0;
  usedIdx = 0;
  /** Chains that the device has. */
  outstanding = 0;
  /** With IN_ORDER the descriptor that the next buffer begins with. */
  private nextHead = 0;
  private readonly arena: Arena;
  private readonly desc: number;
  private readonly avail: number;
  private readonly used: number;
  private readonly mask: number;
  private readonly taken: Uint8Array;
  private readonly batch: UsedBatch;
  /** How many buffers each used element stands for. */
  readonly covers: Uint32Array;
  /** The used index up to which an interrupt was considered. */
  private signalled = 0;

  constructor(
    private readonly ram: Ram,
    readonly queue: Queue,
    readonly options: RingOptions,
  ) {
    const { size } = queue;
    this.arena = ram.find(queue.desc, DESC_BYTES * size, queue.name);
    this.desc = queue.desc - this.arena.base;
    this.avail = queue.driver - this.arena.base;
    this.used = queue.device - this.arena.base;
    this.mask = size - 1;
    this.taken = new Uint8Array(size);
    this.covers = new Uint32Array(size);
    const most = options.inOrder ? options.usedBatch : 1;
    this.batch = new UsedBatch(most, (chains, bytes) => this.writeBatch(chains, bytes));
    if (this.arena.view.getUint16(this.used, true) !== 0) {
      throw new DriverError(`§2.7.10.1: ${queue.name}: the used ring's flags are not 0 at first`);
    }
  }

  // ---- taking ----------------------------------------------------------------------------------

  get availIdx(): number {
    return this.arena.view.getUint16(this.avail + 2, true);
  }

  /** §2.9: the low 15 bits are next_off, the highest is next_wrap. */
  get nextOffer(): number {
    return this.availIdx;
  }

  /** How many buffers the driver has made available and the device has not taken. */
  available(): number {
    const count = (this.availIdx - this.lastAvail) & 0xffff;
    if (count + this.outstanding > this.queue.size) {
      throw new DriverError(
        `§2.7.6.1: ${this.queue.name}: ${count} buffers available and ${this.outstanding} ` +
          `outstanding in a ring of ${this.queue.size}`,
      );
    }
    return count;
  }

  held(): number {
    return this.outstanding + this.available();
  }

  /** Takes the next buffer; there must be one. */
  take(): Chain {
    const { view } = this.arena;
    const head = view.getUint16(this.avail + 4 + 2 * (this.lastAvail & this.mask), true);
    const chain = this.follow(head);
    if (this.options.inOrder && head !== this.nextHead) {
      throw this.wrong(head, `§2.7.5: with IN_ORDER descriptor ${this.nextHead} is next`);
    }
    this.nextHead = (head + chain.descriptors.length) & this.mask;
    for (const id of chain.descriptors) {
      if (this.taken[id] !== 0) throw this.wrong(head, `descriptor ${id} is outstanding already`);
      this.taken[id] = 1;
    }
    this.lastAvail = (this.lastAvail + 1) & 0xffff;
    this.outstanding++;
    return chain;
  }

  /** Puts back the buffers that were taken last. */
  untake(chains: readonly Chain[]): void {
    this.nextHead = chains[0]?.head ?? this.nextHead;
    for (const { descriptors } of chains) for (const id of descriptors) this.taken[id] = 0;
    this.lastAvail = (this.lastAvail - chains.length) & 0xffff;
    this.outstanding -= chains.length;
  }

  private wrong(head: number, what: string): DriverError {
    return new DriverError(`${this.queue.name}: buffer ${head}: ${what}`);
  }

  private follow(head: number): Chain {
    const { view } = this.arena;
    const ids: number[] = [];
    const segments: Segment[] = [];
    for (let id = head, more = true; more; ) {
      if (id > this.mask) throw this.wrong(head, `descriptor ${id} is beyond the ring`);
      if (ids.length === this.queue.size) throw this.wrong(head, "§2.7.5.2: the chain loops");
      ids.push(id);
      const at = this.desc + DESC_BYTES * id;
      const flags = view.getUint16(at + 12, true);
      if ((flags & F_INDIRECT) !== 0) {
        if (ids.length > 1) throw this.wrong(head, "an indirect table within a chain");
        return this.chain(head, ids, this.followTable(head, view, at, flags));
      }
      segments.push(this.segment(head, view, at, flags));
      more = (flags & F_NEXT) !== 0;
      const next = view.getUint16(at + 14, true);
      if (more && this.options.inOrder && next !== ((id + 1) & this.mask)) {
        throw this.wrong(head, `§2.7.5.2: with IN_ORDER descriptor ${id} links to ${next}`);
      }
      id = next;
    }
    return this.chain(head, ids, segments);
  }

  private chain(head: number, ids: readonly number[], segments: readonly Segment[]): Chain {
    const first = segments.findIndex(({ writable }) => writable);
    if (first >= 0 && segments.slice(first).some(({ writable }) => !writable)) {
      throw this.wrong(head, "§2.7.4.2: a readable piece behind a writable one");
    }
    return new Chain(this.ram, head, ids, segments);
  }

  private followTable(head: number, view: DataView, at: number, flags: number): Segment[] {
    if (!this.options.indirect) throw this.wrong(head, "§2.7.5.3.1: INDIRECT was not negotiated");
    if ((flags & F_NEXT) !== 0) throw this.wrong(head, "§2.7.5.3.1: INDIRECT together with NEXT");
    const address = Number(view.getBigUint64(at, true));
    const bytes = view.getUint32(at + 8, true);
    const entries = bytes / DESC_BYTES;
    if (bytes === 0 || bytes % DESC_BYTES !== 0)
      throw this.wrong(head, `a table of ${bytes} bytes`);
    if (entries > this.queue.size) throw this.wrong(head, "§2.7.5.3.1: more entries than the ring");
    const arena = this.ram.find(address, bytes, `${this.queue.name}: indirect table`);
    const table = address - arena.base;
    const segments: Segment[] = [];
    for (let entry = 0, more = true; more; ) {
      if (entry >= entries || segments.length === entries) {
        throw this.wrong(head, `entry ${entry} of a table of ${entries}`);
      }
      const place = table + DESC_BYTES * entry;
      const entryFlags = arena.view.getUint16(place + 12, true);
      if ((entryFlags & F_INDIRECT) !== 0) throw this.wrong(head, "§2.7.5.3.1: table in a table");
      segments.push(this.segment(head, arena.view, place, entryFlags));
      more = (entryFlags & F_NEXT) !== 0;
      const next = arena.view.getUint16(place + 14, true);
      if (more && this.options.inOrder && next !== entry + 1) {
        throw this.wrong(head, `§2.7.5.3.1: with IN_ORDER entry ${entry} links to ${next}`);
      }
      entry = next;
    }
    return segments;
  }

  private segment(head: number, view: DataView, at: number, flags: number): Segment {
    if ((flags & ~(F_NEXT | F_WRITE)) !== 0) throw this.wrong(head, `flags ${flags}`);
    const writable = (flags & F_WRITE) !== 0;
    const { use } = this.options;
    if (use !== "command" && writable !== (use === "receive")) {
      throw this.wrong(head, writable ? "writable" : "not writable");
    }
    const bytes = view.getUint32(at + 8, true);
    return { address: Number(view.getBigUint64(at, true)), bytes, writable };
  }

  // ---- giving back -----------------------------------------------------------------------------

  /** Gives a buffer back, not seen before `publish`. `bytes`: how many were written to it. */
  give(chain: Chain, bytes: number): void {
    for (const id of chain.descriptors) this.taken[id] = 0;
    this.outstanding--;
    this.batch.add(chain, bytes);
  }

  /** §2.7.9: one element, where the first of the batch would have its own, names the last. */
  private writeBatch(chains: readonly Chain[], bytes: number): void {
    this.write(chains.at(-1)?.head ?? 0, bytes, chains.length);
  }

  /** Writes the next used element, whatever it says. */
  writeUsed(id: number, bytes: number): void {
    this.batch.flush();
    this.write(id, bytes, 1);
  }

  private write(id: number, bytes: number, buffers: number): void {
    const element = this.usedIdx & this.mask;
    const at = this.used + 4 + 8 * element;
    this.arena.view.setUint32(at, id, true);
    this.arena.view.setUint32(at + 4, bytes, true);
    this.covers[element] = buffers;
    this.usedIdx = (this.usedIdx + buffers) & 0xffff;
  }

  publish(): void {
    this.batch.flush();
    this.setUsedIdx(this.usedIdx);
  }

  /** Writes the used index, whatever it says. */
  setUsedIdx(value: number): void {
    this.arena.view.setUint16(this.used + 2, value & 0xffff, true);
  }

  /** Whether the driver wants an interrupt for what was published since the last call. */
  wantsInterrupt(): boolean {
    const { view } = this.arena;
    const old = this.signalled;
    this.signalled = this.usedIdx;
    if (!this.options.eventIdx) return (view.getUint16(this.avail, true) & NO_INTERRUPT) === 0;
    const event = view.getUint16(this.avail + 4 + 2 * this.queue.size, true);
    return passes(event, this.usedIdx, old);
  }

  /**
   * Asks for a notification with the next buffer beyond those that are there; the caller then looks
   * at the ring again. (Buffers may be there, but too few for a merged frame.)
   */
  enableNotifications(): void {
    if (this.options.eventIdx) this.setAvailEvent(this.availIdx);
    else this.arena.view.setUint16(this.used, 0, true);
  }

  /** Asks for none: a flag, or an event index that stays where it is. */
  disableNotifications(): void {
    if (!this.options.eventIdx) this.arena.view.setUint16(this.used, NO_NOTIFY, true);
  }

  setAvailEvent(index: number): void {
    this.arena.view.setUint16(this.used + 4 + 8 * this.queue.size, index & 0xffff, true);
  }
}
