// Attacks on the rings, in either format: used buffers that are none, indices and wrap counters that
// jump, and memory that is overwritten. Called through attacks.ts.

import type { Live } from "../model/net/live";
import { descriptorAt, F_WRITE, partsOf } from "./ring-layout";
import { type Act, queueOf, type Target } from "./target";

const F_AVAIL = 0x80;
const F_USED = 0x8000;
const FLAGS_MAX = 0x1_0000;
const BYTES_MAX = 5000;

/** Ids: of a buffer that is there, any of the ring, just beyond it, anything. */
function idOf({ guest }: Target, { queue, ring }: Live, b: number): number {
  const kind = b % 4;
  const rest = Math.floor(b / 4);
  // A ring that was overwritten says nothing of what the driver has offered.
  if (kind === 0 && !guest.nic.isBroken) {
    const take = () => (ring.available() > 0 ? ring.take().head : b);
    return guest.machine.violations.guard(take) ?? b;
  }
  if (kind === 1) return rest % queue.size;
  if (kind === 2) return queue.size + (rest % queue.size);
  return b;
}

/** The device does nothing more of its own accord before its next reset. */
function fallSilent(target: Target): void {
  target.guest.nic.isBroken = true;
  // One that does while it is brought up cannot be used.
  if (target.guest.machine.bootCpu.isInside) target.mayEnd = true;
}

// ---- what was used -----------------------------------------------------------------------------

/** Uses a buffer that it may not have: a: queue, b: id, c: length; interrupts. */
const use: Act = (target, a, b, c) => {
  const live = queueOf(target, a);
  if (live === undefined) return;
  const { guest, oracle } = target;
  const id = idOf(target, live, b);
  oracle.showAll();
  live.ring.writeUsed(id, (c & 1) === 0 ? (c >>> 1) % BYTES_MAX : c);
  live.ring.publish();
  guest.nic.pci.interruptQueue(live.queue);
};

/** Gives the same buffer back again and again: a: queue, b: how often, c: length. */
const again: Act = (target, a, b, c) => {
  const live = queueOf(target, a);
  if (live === undefined) return;
  const { guest } = target;
  const id = idOf(target, live, 0);
  target.oracle.showAll();
  for (let i = b % live.queue.size; i >= 0; i--) live.ring.writeUsed(id, c % BYTES_MAX);
  live.ring.publish();
  guest.nic.pci.interruptQueue(live.queue);
};

/**
 * Claims that so many more buffers were used than were. a: queue, b: how many; packed: c: the first
 * id, and bit 0: with the wrap counter of the other lap.
 */
const jump: Act = (target, a, b, c) => {
  const live = queueOf(target, a);
  if (live === undefined) return;
  target.oracle.showAll();
  if (live.ring.options.packed) markRun(live, b % (2 * live.queue.size), c);
  else live.split.setUsedIdx(live.ring.usedIdx + b);
  target.guest.nic.pci.interruptQueue(live.queue);
};

function markRun({ packed, queue }: Live, count: number, c: number): void {
  let place = packed.used;
  for (let i = 0; i <= count; i++) {
    const isUsed = place.wrap === ((c & 1) === 0);
    packed.lieInSlot(place.slot, (c + i) % queue.size, 60, isUsed ? F_AVAIL | F_USED : 0);
    place = place.plus(1);
  }
}

/**
 * Writes where the driver looks next, or will look: a: queue, b: how far ahead, c: id, length, and in
 * a packed ring flags. In a split ring the index stays as it is.
 */
const mark: Act = (target, a, b, c) => {
  const live = queueOf(target, a);
  if (live === undefined) return;
  const { guest, oracle } = target;
  const { cpu, queue, ring } = live;
  const ahead = b % queue.size;
  const id = idOf(target, live, Math.floor(b / queue.size));
  oracle.showAll();
  if (ring.options.packed) {
    const { slot } = live.packed.used.plus(ahead);
    const marks = [F_AVAIL | F_USED, 0, F_AVAIL, F_USED];
    const flags = (c & 4) === 0 ? (marks[c & 3] ?? 0) : (c >>> 3) % FLAGS_MAX;
    live.packed.lieInSlot(slot, id, (c >>> 3) % BYTES_MAX, flags);
    // The device would take it for something that the driver offers, and follow its own lie.
    if (((flags & F_AVAIL) !== 0) !== ((flags & F_USED) !== 0)) fallSilent(target);
  } else {
    const at = queue.device - cpu.arena.base + 4 + 8 * ((ring.usedIdx + ahead) % queue.size);
    cpu.arena.view.setUint32(at, id >>> 0, true);
    cpu.arena.view.setUint32(at + 4, c, true);
  }
  guest.nic.pci.interruptQueue(queue);
};

// ---- memory ------------------------------------------------------------------------------------

/**
 * Writes where only the driver writes, or into what the device itself writes: a: queue and part, b:
 * where, c: what. The device itself then follows no descriptor any more: what it would write to is
 * anybody's memory, and from that only an IOMMU protects.
 */
const scribble: Act = (target, a, b, c) => {
  const live = queueOf(target, a >>> 2);
  if (live === undefined) return;
  const { cpu } = live;
  const part = partsOf(live)[a & 3];
  if (part === undefined) return;
  const at = part.start - cpu.arena.base + 2 * ((b >>> 0) % Math.floor(part.bytes / 2));
  target.oracle.showAll();
  target.oracle.isBlind = true;
  fallSilent(target);
  cpu.arena.view.setUint16(at, c & 0xffff, true);
};

/** Writes into a buffer that stands in a ring, whoever has it: a: queue, b: which, c: what, where. */
const touch: Act = (target, a, b, c) => {
  const live = queueOf(target, a);
  if (live === undefined) return;
  const { arena } = live.cpu;
  const { address, bytes, flags } = descriptorAt(live, b % live.queue.size);
  const place = (c >>> 8) % 64;
  if (address < arena.base || address + bytes > arena.base + arena.bytes) return;
  if ((flags & F_WRITE) === 0 || place >= bytes) return;
  target.oracle.show(address);
  target.wasTouched = true;
  arena.view.setUint8(address - arena.base + place, c & 0xff);
};

/** The device's suppression words: a: queue, b: what, c: bit 0: the second of them. */
const event: Act = (target, a, b, c) => {
  const live = queueOf(target, a);
  if (live === undefined) return;
  const { queue, cpu, ring } = live;
  const second = ring.options.packed ? 2 : 4 + 8 * queue.size;
  const offset = (c & 1) === 0 ? 0 : second;
  cpu.arena.view.setUint16(queue.device - cpu.arena.base + offset, b & 0xffff, true);
};

export const RING_ACTS = { use, jump, again, mark, scribble, touch, event } as const;
