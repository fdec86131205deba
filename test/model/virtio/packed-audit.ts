// Watches what the driver does to the shared words of a packed ring, in order, and notes where it
// breaks the rules of §2.8.10, §2.8.21 and §2.8.22: barriers, suppression words, notifications that
// are missing or needless, descriptors read twice, interrupts asked for without another look. Made
// by the device for each queue when it starts.
//
// It sees accesses to what the device and the driver synchronise by: the flags that offer a batch,
// the words that tell what was used, and both event structures. All other descriptors of a batch
// are ordinary memory, and are looked at in the moment in which the batch is offered.

import type { Machine } from "../machine/machine";
import type { Vcpu } from "../machine/vcpu";
import type { RingAudit } from "./device-ring";
import { EVENT, type PackedRing, Place, passesPlace } from "./packed-ring";
import type { Queue } from "./queue";

const DESC_BYTES = 16;
const ADDRESS = 0;
const META = 8;
const FLAGS = 14;
const EVENT_BYTES = 4;
const F_AVAIL = 0x80;
const F_USED = 0x8000;

export class PackedAudit implements RingAudit {
  required = 0;
  private readonly queue: Queue;
  private readonly eventIdx: boolean;
  /** Where the driver reads next, and how many used descriptors it has read. */
  private next: Place;
  private consumed = 0;
  /** Where the driver offers next, and where it did at the last look at a suppression word. */
  private offered: Place;
  private movedSinceLook = 0;
  private due = false;
  private tolerated = false;
  private releasesSeen = -1;
  private fullsAtOffer = -1;
  /** Full barriers at the last request for an interrupt; -1: none that waits for a look. */
  private fullsAtRequest = -1;
  private driverFlags = 0;

  constructor(
    private readonly machine: Machine,
    private readonly cpu: Vcpu,
    private readonly ring: PackedRing,
  ) {
    this.queue = ring.queue;
    this.eventIdx = ring.options.eventIdx;
    const { desc, driver, device, size } = this.queue;
    cpu.watch(desc, DESC_BYTES * size, this);
    cpu.watch(driver, EVENT_BYTES, this);
    cpu.watch(device, EVENT_BYTES, this);
    this.next = new Place(size);
    this.offered = new Place(size);
    this.driverFlags = this.word(driver + 2);
  }

  /** The device was reset: the words are ordinary memory again. */
  close(): void {
    this.settle();
    this.abandon();
  }

  abandon(): void {
    this.due = false;
    this.fullsAtRequest = -1;
    this.cpu.unwatch(this);
  }

  unread(): number {
    return this.ring.usedWritten - this.consumed;
  }

  private word(physical: number): number {
    return this.cpu.arena.view.getUint16(physical - this.cpu.arena.base, true);
  }

  private wrong(what: string): void {
    if (this.ring.hasLied) return;
    this.machine.violations.add(`${this.queue.name}: ${what}`);
  }

  private log(action: "read" | "write", word: string, value: number): void {
    const { log } = this.machine;
    if (log.enabled) log.add(action, `${this.queue.name}.${word}`, value);
  }

  // ---- what the driver does --------------------------------------------------------------------

  write(physical: number, value: number): void {
    const { desc, driver, size } = this.queue;
    if (physical === driver) this.writeOffWrap(value);
    else if (physical === driver + 2) this.writeDriverFlags(value);
    else if (physical >= desc && physical < desc + DESC_BYTES * size) this.offer(physical, value);
    else this.wrong(`the driver writes ${value} into the device's event structure`);
  }

  read(physical: number): void {
    const { desc, device } = this.queue;
    if (physical === device) this.lookAtEvent();
    else if ((physical - desc) % DESC_BYTES === META) this.lookAtUsed(physical);
    else if ((physical - desc) % DESC_BYTES === FLAGS) this.lookAgain(physical);
    else if ((physical - desc) % DESC_BYTES === ADDRESS) this.compareAddress(physical);
    else this.wrong("the driver reads what the device does not write");
  }

  notified(): void {
    if (!this.due && !this.tolerated)
      this.wrong("§2.8.21.3: a notification that the device did not ask for");
    this.due = false;
  }

  /** At the end of a guest's step: what had to follow must have followed. */
  settle(): void {
    if (this.due) this.wrong("§2.8.21.3: the notification that the device asked for is missing");
    this.due = false;
    if (this.fullsAtRequest >= 0) this.wrong("§2.8.22: interrupts are on, but nobody looked again");
    this.fullsAtRequest = -1;
  }

  // ---- offering --------------------------------------------------------------------------------

  /** The flags of the first descriptor of a batch: with them all of it is offered. */
  private offer(physical: number, value: number): void {
    const slot = (physical - FLAGS - this.queue.desc) / DESC_BYTES;
    this.log("write", "flags", value);
    if (this.due) this.wrong("§2.8.21.3: a notification is missing before the next buffers");
    this.due = false;
    if (slot !== this.offered.slot) {
      this.wrong(`slot ${slot} is offered when ${this.offered.slot} is next`);
    }
    if (this.cpu.releases === this.releasesSeen) {
      this.wrong("§2.8.21.1.1: no barrier between the descriptors and the flags that offer them");
    }
    this.releasesSeen = this.cpu.releases;
    this.fullsAtOffer = this.cpu.fullBarriers;
    // What a device sees that looks in this very moment: every list must be whole.
    const word = this.machine.violations.guard(() => this.ring.nextOffer) ?? this.offered.word;
    const { size } = this.queue;
    const lap = word >> 15 === Number(this.offered.wrap) ? 0 : size;
    const moved = lap + (word & 0x7fff) - this.offered.slot;
    if (moved === 0) this.wrong("flags were written, but nothing is offered");
    this.offered = this.offered.plus(moved);
    this.movedSinceLook += moved;
  }

  private lookAtEvent(): void {
    const event = this.word(this.queue.device);
    const flags = this.word(this.queue.device + 2);
    this.log("read", "device_event", flags * 0x1_0000 + event);
    const { eventIdx, movedSinceLook, offered } = this;
    const byPlace = eventIdx && flags === EVENT.desc;
    const passed = () => passesPlace(event, offered, movedSinceLook, this.queue.size);
    const wanted = byPlace ? passed() : flags !== EVENT.disable;
    if (this.cpu.fullBarriers === this.fullsAtOffer) {
      this.wrong("§2.8.21.3.1: no full barrier between the flags and the suppression words");
    }
    // The barrier of this look does not count for what is offered next.
    this.releasesSeen = this.cpu.releases;
    this.due = wanted && movedSinceLook > 0;
    // A place passed long ago: a device that does not name a new one may be QEMU, asleep.
    this.tolerated = byPlace && !wanted && event !== offered.word;
    this.movedSinceLook = 0;
    if (this.due) this.required++;
  }

  // ---- taking back -----------------------------------------------------------------------------

  /** The flags alone: whether there is anything, before a sleep; or how far the device is. */
  private lookAgain(physical: number): void {
    const slot = (physical - FLAGS - this.queue.desc) / DESC_BYTES;
    this.log("read", "flags", slot);
    if (slot !== this.next.slot) {
      if (!this.isLent(slot))
        this.wrong(`slot ${slot} is looked at, which the device does not have`);
      return;
    }
    if (this.fullsAtRequest >= 0 && this.cpu.fullBarriers === this.fullsAtRequest) {
      this.wrong("§2.8.22: no full barrier between asking for an interrupt and looking again");
    }
    this.fullsAtRequest = -1;
  }

  /** Whether the device has a slot, or has written into it without the driver having read that. */
  private isLent(slot: number): boolean {
    const { size } = this.queue;
    const ahead = (place: number) => (place - this.next.slot + size) % size;
    const isFull = this.offered.slot === this.next.slot && this.offered.wrap !== this.next.wrap;
    return isFull || ahead(slot) < ahead(this.offered.slot);
  }

  private lookAtUsed(physical: number): void {
    if (this.fullsAtRequest >= 0) this.lookAgain(physical - META + FLAGS);
    const slot = (physical - META - this.queue.desc) / DESC_BYTES;
    const { slot: expected, wrap } = this.next;
    if (slot !== expected) {
      this.wrong(`used element: slot ${slot} is read when ${expected} is next`);
      return;
    }
    const flags = this.word(physical - META + FLAGS);
    const isUsed = ((flags & F_AVAIL) !== 0) === wrap && ((flags & F_USED) !== 0) === wrap;
    this.log("read", "used", Number(isUsed));
    if (!isUsed) return;
    this.consumed++;
    this.next = this.next.plus(this.ring.covers[slot] || 1);
  }

  /** Whether the address of a descriptor that came back need be written again. */
  private compareAddress(physical: number): void {
    const slot = (physical - this.queue.desc) / DESC_BYTES;
    if (this.isLent(slot)) {
      this.wrong(`the address in slot ${slot} is read while the device has it`);
    }
  }

  // ---- asking for interrupts -------------------------------------------------------------------

  private writeOffWrap(value: number): void {
    this.log("write", "driver_off_wrap", value);
    if ((value & 0x7fff) >= this.queue.size) this.wrong(`§2.8.14: driver event at ${value}`);
    if (this.driverFlags === EVENT.desc) this.fullsAtRequest = this.cpu.fullBarriers;
  }

  private writeDriverFlags(value: number): void {
    this.log("write", "driver_flags", value);
    this.driverFlags = value;
    if (value > EVENT.desc) this.wrong(`§2.8.14: driver event flags ${value}`);
    if (value === EVENT.desc && !this.eventIdx) this.wrong("§2.8.10: mode 2 without EVENT_IDX");
    this.fullsAtRequest = value === EVENT.disable ? -1 : this.cpu.fullBarriers;
  }
}
