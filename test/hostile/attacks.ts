// The attacks: what a device can do to a running guest beside its work. Each takes three numbers,
// which mean something whatever they are. Those on rings are in ring-attacks.ts. Called by
// workbench.ts.

import type { Guest } from "../model/guest";
import { CONFIG_FIELDS } from "../model/net/net-options";
import type { ConfigSpace } from "../model/pci/config-space";
import { Random } from "../model/random";
import { COMMON_REGISTERS } from "../model/virtio/registers";
import type { Attack, AttackKind } from "./cases";
import { RING_ACTS } from "./ring-attacks";
import { rootPortOf } from "./setups";
import { type Act, queueOf, type Target } from "./target";

const FRAMES_MAX = 40;
const GARBAGE_BYTES_MAX = 3000;
const STORM_MAX = 64;
const TIME_US_MAX = 3_000_000;
const READS_MAX = 200;

const isRunning = ({ guest }: Target) => guest.nic.pairs.length > 0;

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
  "coal tx 10 4",
  "coal vq 0 20 4",
  "coal vq 0",
  "devstats",
  "stats",
  "reset",
  "help",
  "reset 0",
  "reset 1",
  "offloads -guest_tso4",
  "coal vq 2 20 4",
  "hash types ipv4",
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

/** The functions that a guest may find: its NICs, then a root port. */
function functionsOf(guest: Guest): readonly ConfigSpace[] {
  const port = rootPortOf(guest);
  const nics = guest.nics.map(({ pci }) => pci.space);
  return port === undefined ? nics : [...nics, port.space];
}

/**
 * A byte of a function's whole configuration space reads as something else: identity, BARs, and their
 * sizes, which are read there too. a: where, above bit 7 whose; b: as what, above bit 7 after how
 * many reads; c: how often, 0: for ever.
 */
const lieInSpace: Act = (target, a, b, c) => {
  const functions = functionsOf(target.guest);
  const space = functions[(a >>> 8) % functions.length];
  if (space === undefined) return;
  target.mayEnd = true;
  const at = a & 0xff;
  let before = (b >>> 8) % READS_MAX;
  let left = c % READS_MAX || Number.POSITIVE_INFINITY;
  const honest = space.tamper ?? ((_offset, _width, value) => value);
  space.tamper = (offset, width, truth) => {
    const value = honest(offset, width, truth);
    if (at < offset || at >= offset + width || before-- > 0 || left-- <= 0) return value;
    const unit = 2 ** (8 * (at - offset));
    return value + ((b & 0xff) - (Math.floor(value / unit) % 0x100)) * unit;
  };
};

/**
 * NICs that come and go: a: by surprise, back again, asked for by ACPI, or at the slot of a root port;
 * b: which NIC, or the slot's status; c: bit 0: it comes back without MSI-X.
 */
const plug: Act = ({ guest }, a, b, c) => {
  const index = b % guest.nics.length;
  const nic = guest.nicAt(index);
  const isThere = guest.machine.pci.has(nic.options.bdf);
  const kind = a % 4;
  if (kind === 0 && isThere) nic.unplug();
  if (kind === 1 && !isThere) {
    const change = (c & 1) === 0 ? {} : { msixEntries: 0 };
    const { sender } = guest.plugIn(index, { ...nic.options, hasFirmware: false, ...change });
    sender.onTransmit = nic.sender.onTransmit;
    sender.isDiscarding = nic.sender.isDiscarding;
  }
  if (kind === 2) guest.machine.pci.hotplug?.ask(nic.options.bdf >> 8, (nic.options.bdf >> 3) & 31);
  const port = rootPortOf(guest);
  if (kind === 3 && port !== undefined) port.status = b;
};

/** A word of the command line (setups.ts), which the guest had before anything else: a: which. */
const word: Act = () => undefined;

const ACTS: Readonly<Record<AttackKind, Act>> = {
  frames,
  garbage,
  offload,
  header,
  ...RING_ACTS,
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
  plug,
  word,
  function: lieInSpace,
};

/** Before DRIVER_OK, and while the device is being reset, there are no rings to be attacked. */
export function attack(target: Target, { kind, a, b, c }: Attack): void {
  if (kind in RING_ACTS && !isRunning(target)) return;
  ACTS[kind](target, a, b, c);
}
