// Watches what the driver does to the shared words of a split ring, in order, and notes where it
// breaks the rules of §2.7.13 and §2.7.14: barriers, suppression words, notifications that are
// missing or needless, entries read twice, interrupts asked for without another look. Made by the
// device for each queue when it starts. It sees accesses, not time: what the guest stores into
// descriptors is ordinary memory and is checked when the device takes it.

import type { Machine } from "../machine/machine";
import type { Vcpu } from "../machine/vcpu";
import type { RingAudit } from "./device-ring";
import type { Queue } from "./queue";
import { passes, type SplitRing } from "./split-ring";

export class QueueAudit implements RingAudit {
  /** Notifications that the rule asked for since the device started. */
  required = 0;
  /** Buffers whose used elements the driver has read. */
  consumed = 0;
  private readonly queue: Queue;
  private readonly eventIdx: boolean;
  private readonly availFlags: number;
  private readonly availIdx: number;
  private readonly usedEvent: number;
  private readonly usedFlags: number;
  private readonly usedIdx: number;
  private readonly usedRing: number;
  private readonly availEvent: number;
  private current = 0;
  /** The avail index at the last look at a suppression word. */
  private looked = 0;
  private due = false;
  private seenUsed = 0;
  private releasesSeen = -1;
  private fullsAtIndex = -1;
  private acquiresAtLook = 0;
  /** Full barriers at the last request for an interrupt; -1: none that waits for a look. */
  private fullsAtRequest = -1;

  constructor(
    private readonly machine: Machine,
    private readonly cpu: Vcpu,
    private readonly ring: SplitRing,
  ) {
    this.queue = ring.queue;
    this.eventIdx = ring.options.eventIdx;
    const { driver, device, size } = this.queue;
    this.availFlags = driver;
    this.availIdx = driver + 2;
    this.usedEvent = driver + 4 + 2 * size;
    this.usedFlags = device;
    this.usedIdx = device + 2;
    this.usedRing = device + 4;
    this.availEvent = device + 4 + 8 * size;
    cpu.watch(driver, 6 + 2 * size, this);
    cpu.watch(device, 6 + 8 * size, this);
    this.current = cpu.arena.view.getUint16(this.availIdx - cpu.arena.base, true);
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

  // ---- what the driver does --------------------------------------------------------------------

  write(physical: number, value: number): void {
    if (physical === this.availIdx) this.publish(value);
    else if (physical === this.availFlags) this.writeFlags(value);
    else if (physical === this.usedEvent) this.request("used_event", value);
    else this.wrong(`the driver writes into the used ring, value ${value}`);
  }

  read(physical: number, value: number): void {
    if (physical === this.usedIdx) this.lookAtUsed(value);
    else if (physical === this.usedFlags) this.lookAtFlags(value);
    else if (physical === this.availEvent) this.lookAtEvent(value);
    else if (physical >= this.usedRing && physical < this.availEvent) this.readElement(physical);
  }

  notified(): void {
    if (!this.due) this.wrong("§2.7.10.1: a notification that the device did not ask for");
    this.due = false;
  }

  /** At the end of a guest's step: what had to follow must have followed. */
  settle(): void {
    if (this.due) this.wrong("§2.7.10.1: the notification that the device asked for is missing");
    this.due = false;
    if (this.fullsAtRequest >= 0) this.wrong("§2.7.14: interrupts are on, but nobody looked again");
    this.fullsAtRequest = -1;
  }

  unread(): number {
    return (this.ring.usedIdx - this.consumed) & 0xffff;
  }

  // ---- rules -----------------------------------------------------------------------------------

  private wrong(what: string): void {
    this.machine.violations.add(`${this.queue.name}: ${what}`);
  }

  private log(action: "read" | "write", word: string, value: number): void {
    const { log } = this.machine;
    if (log.enabled) log.add(action, `${this.queue.name}.${word}`, value);
  }

  private publish(value: number): void {
    this.log("write", "avail_idx", value);
    if (this.due) this.wrong("§2.7.10.1: a notification is missing before the next buffers");
    this.due = false;
    // The barrier of another queue, long ago, does not count: it is the last thing before the index.
    const isReleased = this.cpu.releasedAt === this.cpu.calls - 1;
    if (this.cpu.releases === this.releasesSeen || !isReleased) {
      this.wrong("§2.7.13.3.1: no barrier between the buffers and the available index");
    }
    if (((value - this.current) & 0xffff) > this.queue.size) {
      this.wrong(`§2.7.6.1: the available index jumps from ${this.current} to ${value}`);
    }
    this.current = value;
    this.releasesSeen = this.cpu.releases;
    this.fullsAtIndex = this.cpu.fullBarriers;
  }

  private lookAtFlags(value: number): void {
    this.log("read", "used_flags", value);
    if (this.eventIdx) this.wrong("§2.7.10.1: used flags read with EVENT_IDX");
    else this.decide((value & 1) === 0 && this.current !== this.looked);
  }

  private lookAtEvent(value: number): void {
    this.log("read", "avail_event", value);
    if (!this.eventIdx) this.wrong("§2.7.10.1: avail_event read without EVENT_IDX");
    else this.decide(passes(value, this.current, this.looked));
  }

  private decide(required: boolean): void {
    if (this.cpu.fullBarriers === this.fullsAtIndex) {
      this.wrong("§2.7.13.4.1: no full barrier between the index and the suppression word");
    }
    // The barrier of this look does not count for what is published next.
    this.releasesSeen = this.cpu.releases;
    this.looked = this.current;
    this.due = required;
    if (required) this.required++;
  }

  private writeFlags(value: number): void {
    if (this.eventIdx && value !== 0) this.wrong(`§2.7.7.1: avail flags ${value} with EVENT_IDX`);
    if (value > 1) this.wrong(`§2.7.7.1: avail flags ${value}`);
    if (value === 0) this.request("avail_flags", value);
    else {
      this.log("write", "avail_flags", value);
      this.fullsAtRequest = -1;
    }
  }

  private request(word: string, value: number): void {
    this.log("write", word, value);
    this.fullsAtRequest = this.cpu.fullBarriers;
  }

  private lookAtUsed(value: number): void {
    this.log("read", "used_idx", value);
    if (this.fullsAtRequest >= 0 && this.cpu.fullBarriers === this.fullsAtRequest) {
      this.wrong("§2.7.14: no full barrier between asking for an interrupt and looking again");
    }
    this.fullsAtRequest = -1;
    this.seenUsed = value;
    this.acquiresAtLook = this.cpu.acquires;
  }

  private readElement(physical: number): void {
    const index = (physical - this.usedRing) / 8;
    if (this.cpu.acquires === this.acquiresAtLook) {
      this.wrong("§2.7.8: no barrier between the used index and the element");
    }
    if (index !== (this.consumed & (this.queue.size - 1))) {
      this.wrong(`used element ${index} is read when ${this.consumed} is next`);
    } else if (((this.seenUsed - this.consumed) & 0xffff) === 0) {
      this.wrong(`used element ${index} is read before the used index says so`);
    }
    // §2.7.9: with IN_ORDER an element may stand for several.
    this.consumed = (this.consumed + (this.ring.covers[index] || 1)) & 0xffff;
  }
}
