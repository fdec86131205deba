// The attacks: what a device can do to a running guest beside its work. Each takes three numbers,
// which mean something whatever they are. Called by workbench.ts.

import type { Guest } from "../model/guest";
import type { Live } from "../model/net/live";
import { CONFIG_FIELDS } from "../model/net/net-options";
import { Random } from "../model/random";
import { COMMON_REGISTERS } from "../model/virtio/registers";
import type { Attack, AttackKind } from "./cases";
import type { Oracle } from "./oracle";

/** What attacks work on; how long the guest is to be left alone is the workbench's business. */
export interface Target {
  readonly guest: Guest;
  readonly oracle: Oracle;
  /** Frames of the usual kinds, made once. */
  readonly frames: readonly Buffer[];
  /** Lies about registers from here on: the run may end. */
  mayEnd: boolean;
  /** Lies in headers: an echo carries a promise of its sender's on, and the sender lied. */
  headersLie: boolean;
  /** Has written to buffers that may be the driver's again: what is sent may be the device's. */
  wasTouched: boolean;
  /** Time to let pass, in microseconds, before the next attack. */
  waitUs: number;
}

type Act = (target: Target, a: number, b: number, c: number) => void;

const FRAMES_MAX = 40;
const GARBAGE_BYTES_MAX = 3000;
const DESC_BYTES = 16;
const STORM_MAX = 64;
const TIME_US_MAX = 3_000_000;

const isRunning = ({ guest }: Target) => guest.nic.pairs.length > 0;

/** A running queue by a number: receive and transmit of each pair, then the control queue. */
function queueOf(target: Target, a: number): Live | undefined {
  const { nic } = target.guest;
  const all: Live[] = nic.pairs.flatMap(({ rx, tx }) => [rx, tx]);
  if (nic.controlLive !== undefined) all.push(nic.controlLive);
  const queue = all[a % Math.max(1, all.length)];
  // While the device is brought up, its answers decide whether it can be used.
  if (queue !== undefined && queue === nic.controlLive) target.mayEnd = true;
  return queue;
}

// ---- traffic -----------------------------------------------------------------------------------

/** a: which frame; b: how many; c: cut to so many bytes less. */
const frames: Act = ({ frames: usual, guest }, a, b, c) => {
  const frame = usual[a % usual.length] ?? Buffer.alloc(60);
  const bytes = Math.max(1, frame.length - (c % 64));
  for (let i = b % FRAMES_MAX; i >= 0; i--) guest.nic.receive(frame.subarray(0, bytes));
};

/** a: seed; b: bytes; c: how much of it looks like a frame to the guest. */
const garbage: Act = ({ frames: usual, guest }, a, b, c) => {
  const frame = Buffer.alloc(14 + (b % GARBAGE_BYTES_MAX));
  const random = new Random(a);
  for (let i = 0; i < frame.length; i++) frame[i] = random.next() >>> 8;
  const like = usual[a % usual.length] ?? frame;
  like.copy(frame, 0, 0, Math.min(frame.length, c % 80));
  guest.nic.receive(frame);
};

/** A frame with something left to do for the guest: a: gso_type and frame, b: gso_size, c: flags. */
const GSO_TYPES = [0, 1, 4, 5, 0x81, 3] as const;
const offload: Act = (target, a, b, c) => {
  const { frames: usual, guest } = target;
  target.headersLie = true;
  const frame = usual[a % 3] ?? Buffer.alloc(60);
  const gsoType = GSO_TYPES[(a >>> 2) % GSO_TYPES.length] ?? 0;
  const flags = (c & 3) === 0 ? (c >>> 2) & 0xff : 1;
  const csumOffset = (c & 4) === 0 ? 6 : 16;
  const fields = { flags, gsoType, gsoSize: b & 0xffff, hdrLen: 42, csumStart: 34, csumOffset };
  guest.nic.receive(frame, fields);
};

/** The next frames have a header that was changed: a: field, b: value, c: bit 0, cleared first. */
const HEADER_FIELDS = [0, 1, 2, 4, 6, 8, 10] as const;
const header: Act = (target, a, b, c) => {
  const { guest } = target;
  target.headersLie = true;
  const at = HEADER_FIELDS[a % HEADER_FIELDS.length] ?? 0;
  const before = guest.nic.receiver.tamper;
  guest.nic.receiver.tamper = (bytes) => {
    before?.(bytes);
    if ((c & 1) !== 0) bytes.fill(0, 0, 10);
    if (at < 2) bytes.writeUInt8(b & 0xff, at);
    else bytes.writeUInt16LE(b & 0xffff, at);
  };
};

// ---- the used ring -----------------------------------------------------------------------------

/** Ids: of a buffer that is there, any of the ring, just beyond it, anything. */
function idOf({ ring, queue }: Live, b: number): number {
  const kind = b % 4;
  const rest = Math.floor(b / 4);
  if (kind === 0 && ring.available() > 0) return ring.take().head;
  if (kind === 1) return rest % queue.size;
  if (kind === 2) return queue.size + (rest % queue.size);
  return b;
}

/** Uses a buffer that it may not have: a: queue, b: id, c: length; interrupts. */
const use: Act = (target, a, b, c) => {
  const live = queueOf(target, a);
  if (live === undefined) return;
  const { guest, oracle } = target;
  const id = guest.machine.violations.guard(() => idOf(live, b)) ?? b;
  oracle.showAll();
  live.ring.writeUsed(id, (c & 1) === 0 ? (c >>> 1) % 5000 : c);
  live.ring.publish();
  guest.nic.pci.interruptQueue(live.queue);
};

/** Moves the used index: a: queue, b: by how much. */
const jump: Act = (target, a, b) => {
  const live = queueOf(target, a);
  if (live === undefined) return;
  live.split.setUsedIdx(live.ring.usedIdx + b);
  target.guest.nic.pci.interruptQueue(live.queue);
};

/** Gives the same buffer back again and again: a: queue, b: how often, c: length. */
const again: Act = (target, a, b, c) => {
  const live = queueOf(target, a);
  if (live === undefined) return;
  const { guest } = target;
  const id = guest.machine.violations.guard(() => idOf(live, 0)) ?? 0;
  target.oracle.showAll();
  for (let i = b % live.queue.size; i >= 0; i--) live.ring.writeUsed(id, c % 5000);
  live.ring.publish();
  guest.nic.pci.interruptQueue(live.queue);
};

// ---- memory ------------------------------------------------------------------------------------

/**
 * Writes where only the driver writes, or into the used ring: a: queue and part, b: where, c: what.
 * The device itself then follows no descriptor any more: what it would write to is anybody's memory,
 * and from that only an IOMMU protects.
 */
const scribble: Act = (target, a, b, c) => {
  const live = queueOf(target, a >>> 2);
  if (live === undefined) return;
  const { queue, cpu } = live;
  const parts = [
    { start: queue.desc, bytes: DESC_BYTES * queue.size },
    { start: queue.driver, bytes: 6 + 2 * queue.size },
    { start: queue.device, bytes: 6 + 8 * queue.size },
    { start: queue.desc, bytes: DESC_BYTES },
  ];
  const { start, bytes } = parts[a & 3] ?? parts[0] ?? { start: queue.desc, bytes: DESC_BYTES };
  const at = start - cpu.arena.base + 2 * ((b >>> 0) % Math.floor(bytes / 2));
  target.oracle.showAll();
  target.oracle.isBlind = true;
  target.guest.nic.isBroken = true;
  // A device that falls silent while it is brought up cannot be used.
  if (target.guest.machine.bootCpu.isInside) target.mayEnd = true;
  cpu.arena.view.setUint16(at, c & 0xffff, true);
};

/** Writes into a buffer that stands in a ring, whoever has it: a: queue, b: which, c: what, where. */
const touch: Act = (target, a, b, c) => {
  const live = queueOf(target, a);
  if (live === undefined) return;
  const { queue, cpu } = live;
  const { view } = cpu.arena;
  const at = queue.desc - cpu.arena.base + DESC_BYTES * (b % queue.size);
  const address = Number(view.getBigUint64(at, true));
  const bytes = view.getUint32(at + 8, true);
  const place = (c >>> 8) % 64;
  if (address < cpu.arena.base || address + bytes > cpu.arena.base + cpu.arena.bytes) return;
  if ((view.getUint16(at + 12, true) & 2) === 0 || place >= bytes) return;
  target.oracle.show(address);
  target.wasTouched = true;
  view.setUint8(address - cpu.arena.base + place, c & 0xff);
};

/** Both suppression words of the device: a: queue, b: what, c: bit 0: avail_event. */
const event: Act = (target, a, b, c) => {
  const live = queueOf(target, a);
  if (live === undefined) return;
  const { queue, cpu } = live;
  const offset = (c & 1) === 0 ? 0 : 4 + 8 * queue.size;
  cpu.arena.view.setUint16(queue.device - cpu.arena.base + offset, b & 0xffff, true);
};

// ---- registers ---------------------------------------------------------------------------------

/** Changes the device configuration: a: where, b: what, c: bit 0: says so. */
const config: Act = (target, a, b, c) => {
  const { nic } = target.guest;
  target.mayEnd = true;
  nic.config[a % nic.config.length] = b & 0xff;
  if ((c & 1) !== 0) nic.pci.interruptConfig();
};

/** The generation changes at the next `a` reads; interrupts. */
const churn: Act = (target, a) => {
  let left = a % 200;
  target.mayEnd = true;
  lie(target, (name, value) => {
    if (name !== "config_generation" || left === 0) return value;
    left--;
    return (value + left) & 0xff;
  });
  target.guest.nic.pci.interruptConfig();
};

/** Status bits come or go: a: set, b: kept; then an interrupt. */
const status: Act = (target, a, b) => {
  const { common } = target.guest.nic.pci;
  common.status = (a % 3 === 0 ? common.status | 0x40 : (common.status & b) | (a & 0xff)) & 0xff;
  target.mayEnd ||= a % 3 !== 0;
  target.guest.nic.pci.interruptConfig();
};

function lie({ guest: { nic } }: Target, change: (name: string, value: number) => number): void {
  const before = nic.pci.tamper;
  nic.pci.tamper = (name, value) => change(name, before?.(name, value) ?? value);
}

const REGISTERS = [...COMMON_REGISTERS, ...CONFIG_FIELDS];

/** A register reads as something else for a while: a: which, b: as what, c: how often, how. */
const register: Act = (target, a, b, c) => {
  const wanted = REGISTERS[a % REGISTERS.length];
  if (wanted === undefined) return;
  const mask = 2 ** (8 * wanted.width) - 1;
  let left = 1 + ((c >>> 2) % 300);
  lie(target, (name, value) => {
    if (name !== wanted.name || left === 0) return value;
    left--;
    const kinds = [b, value ^ b, value & b, value | b];
    return ((kinds[c & 3] ?? b) & mask) >>> 0;
  });
  target.mayEnd = true;
  if ((c & 0x8000) !== 0) target.guest.nic.pci.needReset();
};

// ---- interrupts, time, console -----------------------------------------------------------------

/** Interrupts for nothing: a: queue; b: how many; c: bit 0: of the configuration as well. */
const storm: Act = (target, a, b, c) => {
  const live = queueOf(target, a);
  for (let i = b % STORM_MAX; i >= 0; i--) {
    if (live !== undefined) target.guest.nic.pci.interruptQueue(live.queue);
    if ((c & 1) !== 0) target.guest.nic.pci.interruptConfig();
  }
};

const silence: Act = ({ guest: { nic } }, a) => {
  nic.pci.isSilent = (a & 1) === 0;
};

/** The control queue from here on: a: how, b, c: numbers of the answer. */
const answer: Act = (target, a, b, c) => {
  const { control } = target.guest.nic;
  target.mayEnd = true;
  const kind = a % 6;
  control.delayUs = kind === 0 ? b % TIME_US_MAX : 0;
  control.refuses = kind === 1 ? () => true : undefined;
  if (kind < 2) return;
  const data = Buffer.alloc(c % 300, b & 0xff);
  control.tamper = (_, usual) => {
    if (kind === 2) return "never";
    if (kind === 3) return { ack: b & 0xff };
    if (kind === 4) return { ...usual, usedId: b, usedBytes: c };
    return { ack: 0, data, usedBytes: b % 400 };
  };
};

/** What a test could type; those that the device has no feature for are errors, and welcome. */
export const COMMAND_LINES = [
  "rx promiscuous on",
  "rx allmulti off",
  "rx nobcast on",
  "mac set 52:54:00:12:34:57",
  "mac table 52:54:00:00:00:07 01:00:5e:00:00:01",
  "vlan add 5",
  "vlan del 5",
  "queues 1",
  "queues 2",
  "announce",
  "offloads -guest_csum",
  "offloads +guest_csum",
  "rss on",
  "rss off",
  "rss table 0,0",
  "rss types ipv4,udpv4",
  "coal rx 50 8",
  "coal vq 0 20 4",
  "coal vq 0",
  "devstats",
  "stats",
  "reset",
  "help",
] as const;

/** Types a line: a. */
const command: Act = ({ guest }, a) => {
  guest.machine.console.type(COMMAND_LINES[a % COMMAND_LINES.length] ?? "help");
};

/** Directions stand still: a: bits. */
const pause: Act = ({ guest: { nic } }, a) => {
  nic.paused.rx = (a & 1) !== 0;
  nic.paused.tx = (a & 2) !== 0;
};

/** Time passes before the next attack: a, in microseconds. */
const time: Act = (target, a) => {
  target.waitUs = a % TIME_US_MAX;
};

/** A byte of configuration space, its header left alone, from here on: a: where, b: what. */
const space: Act = (target, a, b) => {
  target.guest.nic.pci.space.bytes[0x40 + (a % 0xc0)] = b & 0xff;
  target.mayEnd = true;
};

/** A byte of a capability in the list: a: which one, b: which byte, c: what. */
const capability: Act = (target, a, b, c) => {
  const { bytes } = target.guest.nic.pci.space;
  let at = bytes[0x34] ?? 0;
  for (let i = a % 6; i > 0; i--) at = bytes[(at + 1) & 0xff] || at;
  bytes[(at + (b % 20)) & 0xff] = c & 0xff;
  target.mayEnd = true;
};

const ACTS: Readonly<Record<AttackKind, Act>> = {
  frames,
  garbage,
  offload,
  header,
  use,
  jump,
  again,
  scribble,
  touch,
  event,
  config,
  churn,
  status,
  register,
  storm,
  silence,
  answer,
  command,
  pause,
  time,
  space,
  capability,
};

/** Those that need rings. Before DRIVER_OK, and while the device is being reset, nothing happens. */
const RING_ACTS: ReadonlySet<AttackKind> = new Set([
  "use",
  "jump",
  "again",
  "scribble",
  "touch",
  "event",
]);

export function attack(target: Target, { kind, a, b, c }: Attack): void {
  if (RING_ACTS.has(kind) && !isRunning(target)) return;
  ACTS[kind](target, a, b, c);
}
