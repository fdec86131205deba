// What must hold however a device behaves, in one place: used by every hostile test and by the
// fuzzer.
//
//   - no trap, no failed check, and an end only where the device cannot be used
//   - bounded time: machine calls a step, steps until all is quiet, virtual time
//   - the device is given addresses in packet buffers and command buffers only, whole, each once
//   - canaries: bytes that belong to nobody, and buffers that nobody had, are as they were
//   - every reset of the driver's own accord has an `error` event that names the fault, or the warning
//     that a queue is stuck
//   - the driver keeps to the rules as far as they can be kept with such a device
//   - after a reset a device that behaves carries traffic, and the driver breaks no rule at all; no
//     packet is lost, and none is there twice
//
// `Oracle` is made for a guest at rest, before a snapshot is taken of it: it puts the canaries in.

import { GuestExit, GuestPanic } from "../model/errors";
import type { Guest } from "../model/guest";
import type { Vcpu } from "../model/machine/vcpu";
import { HASH_HEADER_BYTES, HEADER_BYTES } from "../model/net/net-header";
import { addressAt, DESC_BYTES, type Descriptor, descriptorAt, F_INDIRECT } from "./ring-layout";
import type { Range } from "./snapshot";

/** Linear memory below the module's data (asconfig.json's memoryBase) belongs to nobody. */
const NULL_BYTES = 1024;
const CANARY = 0xa5;
const MAC_BYTES = 6;
/** Packets beyond what the rings hold (queue-pair.ts). */
const SPARE_PACKETS = 128;

/** Rules that a driver can break only because its device has lied about the ring. */
const LIED_TO =
  /used element|lost wake-up|unread|notification|available|looked again|outstanding already/;
/**
 * Rules that the driver keeps by what it reads in registers, and by what it is answered on the
 * control queue: features, sizes, an MTU, which commands there are and whether one is still to come.
 */
const REGISTER_RULE = new RegExp(
  [
    ...["§2\\.1\\.1", "§2\\.2", "§3\\.1\\.1", "§4\\.1\\.4", "§4\\.1\\.5", "§5\\.1\\.3"],
    ...["§5\\.1\\.9\\.5", "EVENT_IDX", "with an MTU of", "not offered", "not negotiated"],
    ...["needs", "there is no queue", "beyond"],
  ].join("|"),
);
/** Rules about what is to be summed and cut, which an echo keeps if its sender has. */
const HEADER_RULE = /csum_start \d+, csum|checksum|gso_size is 0|CWR|TCP header is cut/;

/** A device that only stands still has done nothing wrong: its reset has a warning (kernel/nic.ts). */
const STUCK = "the device sends nothing any more";

/** What the device has lied about in a case. */
interface Lies {
  /** In registers: the run may end. */
  readonly mayEnd: boolean;
  readonly headersLie: boolean;
  readonly wasTouched: boolean;
}

function isExcused(text: string, { headersLie, mayEnd, wasTouched }: Lies): boolean {
  if (wasTouched && text.includes("§5.1.9.2.1")) return true;
  if (mayEnd && REGISTER_RULE.test(text)) return true;
  return LIED_TO.test(text) || (headersLie && HEADER_RULE.test(text));
}

/** What `stats` says of a pair's packets. */
interface Pool {
  readonly pool_free: number;
}

/** The packet buffers of one pair, in one piece of memory. */
interface Buffers {
  readonly cpu: Vcpu;
  /** Physical. */
  readonly base: number;
  readonly stride: number;
  readonly count: number;
  /** Buffers that the device has had or been shown in this case. */
  readonly seen: Uint8Array;
}

/** Buffers that the device has not had, in ranges of linear memory: side by side as far as they are. */
function rangesUnseen({ base, count, cpu, seen, stride }: Buffers): Range[] {
  const origin = base - cpu.arena.base;
  const ranges: Range[] = [];
  let first = 0;
  for (let index = 0; index <= count; index++) {
    if (index < count && seen[index] === 0) continue;
    if (index > first)
      ranges.push({ start: origin + first * stride, end: origin + index * stride });
    first = index + 1;
  }
  return ranges;
}

export class Oracle {
  /** What was found wrong in this case. */
  readonly faults: string[] = [];
  /** The device has overwritten what the driver wrote: what it reads there now proves nothing. */
  isBlind = false;
  private readonly buffers: readonly Buffers[];
  private readonly canary: Buffer;
  /** The command buffers: where commands are, and where answers. */
  private readonly commands: readonly number[];
  private poolsAtRest: readonly number[] = [];
  private errorsBefore = 0;
  private stuckBefore = 0;
  private resetsBefore = 0;

  constructor(private readonly guest: Guest) {
    const { machine, nic } = guest;
    this.buffers = nic.pairs.map((_, pair) => this.findBuffers(pair));
    const bytes = this.buffers.map(({ count, stride }) => count * stride);
    this.canary = Buffer.alloc(Math.max(NULL_BYTES, ...bytes), CANARY);
    this.commands = this.findCommandBuffers();
    for (const { arena } of machine.cpus) arena.array.fill(CANARY, 0, NULL_BYTES);
    for (const buffers of this.buffers) this.plant(buffers);
    machine.ram.onAccess = (address, bytes, purpose) => this.checkAccess(address, bytes, purpose);
    nic.onStop = () => this.showAll();
  }

  /** The receive ring shows where buffers are, and how long: all of them are full at rest. */
  private findBuffers(pair: number): Buffers {
    const { rx, tx } = { rx: this.guest.nic.live("rx", pair), tx: this.guest.nic.live("tx", pair) };
    const places = Array.from({ length: rx.queue.size }, (_, i) => descriptorAt(rx, i));
    const count = rx.queue.size + tx.queue.size + SPARE_PACKETS;
    return {
      cpu: rx.cpu,
      base: Math.min(...places.map(({ address }) => address)),
      stride: places[0]?.bytes ?? 0,
      count,
      seen: new Uint8Array(count),
    };
  }

  private findCommandBuffers(): number[] {
    const live = this.guest.nic.controlLive;
    if (live === undefined) return [];
    const found: number[] = [];
    const learn = (address: number) => found.push(address);
    this.guest.machine.ram.onAccess = learn;
    this.guest.machine.console.type("vlan add 1");
    this.guest.settle();
    return found;
  }

  /** Fills all buffers: at rest nobody minds what is in them. */
  private plant(buffers: Buffers): void {
    for (let index = 0; index < buffers.count; index++) {
      this.bytesOf(buffers, index).fill(CANARY);
    }
  }

  private bytesOf({ base, cpu, stride }: Buffers, index: number): Uint8Array {
    const start = base - cpu.arena.base + index * stride;
    return cpu.arena.array.subarray(start, start + stride);
  }

  private isCanary(bytes: Uint8Array): boolean {
    return this.canary.compare(bytes, 0, bytes.length, 0, bytes.length) === 0;
  }

  /** A case begins. */
  begin(): void {
    this.faults.length = 0;
    this.isBlind = false;
    for (const { seen } of this.buffers) seen.fill(0);
    this.errorsBefore = this.guest.machine.console.all("error").length;
    this.stuckBefore = this.stuckQueues();
    this.resetsBefore = this.guest.nic.pci.common.resets;
  }

  private fault(what: string): void {
    if (this.faults.length < 20) this.faults.push(what);
  }

  // ---- addresses -------------------------------------------------------------------------------

  private checkAccess(address: number, bytes: number, purpose: string): void {
    if (!purpose.startsWith("buffer")) return;
    if (this.isBlind) {
      this.show(address);
      return;
    }
    const buffers = this.buffers.find(
      ({ base, count, stride }) => address >= base && address < base + count * stride,
    );
    if (buffers === undefined) {
      if (this.commands.includes(address)) return;
      this.fault(`${purpose}: 0x${address.toString(16)}, ${bytes} bytes, is no buffer`);
      return;
    }
    const { base, stride } = buffers;
    const index = Math.floor((address - base) / stride);
    if (address + bytes > base + (index + 1) * stride) {
      this.fault(`${purpose}: ${bytes} bytes from 0x${address.toString(16)} leave the buffer`);
    }
    buffers.seen[index] = 1;
  }

  /** A buffer that the device wrote to without having taken it. */
  show(address: number): void {
    for (const { base, count, seen, stride } of this.buffers) {
      const index = Math.floor((address - base) / stride);
      if (index >= 0 && index < count) seen[index] = 1;
    }
  }

  /** Buffers whose addresses stand in rings: the device has been shown them. */
  showAll(): void {
    for (const buffers of this.buffers) this.showRings(buffers);
  }

  private showRings(buffers: Buffers): void {
    for (const { rx, tx } of this.guest.nic.pairs) {
      for (const live of [rx, tx]) {
        // A queue that is being reset alone has no ring.
        if (live.cpu !== buffers.cpu || !live.queue.enabled) continue;
        for (let slot = 0; slot < live.queue.size; slot++) {
          const found = descriptorAt(live, slot);
          this.show(found.address);
          if ((found.flags & F_INDIRECT) !== 0) this.showTable(live.cpu, found);
        }
      }
    }
  }

  private showTable({ arena }: Vcpu, { address, bytes }: Descriptor): void {
    const start = address - arena.base;
    const end = start + bytes;
    if (start < 0 || end > arena.bytes) return;
    for (let entry = start; entry + DESC_BYTES <= end; entry += DESC_BYTES) {
      this.show(addressAt(arena.view, entry));
    }
  }

  // ---- verdicts --------------------------------------------------------------------------------

  /** The attacks are over and the guest is at rest, or has ended. */
  afterAttacks(lies: Lies): void {
    const { machine } = this.guest;
    const { ended, violations } = machine;
    if (ended instanceof GuestPanic) this.fault(`the guest panicked: ${ended.message}`);
    if (ended instanceof GuestExit) this.checkEnd(ended, lies.mayEnd);
    const resets = this.guest.nic.pci.common.resets - this.resetsBefore;
    const events = machine.console.all("error").length - this.errorsBefore;
    const stuck = this.stuckQueues() - this.stuckBefore;
    if (resets > events + stuck + this.resetsAsked()) {
      this.fault(`${resets} resets, and ${events} errors that say why`);
    }
    for (const text of violations.list) {
      if (!this.isBlind && !isExcused(text, lies)) this.fault(text);
    }
    violations.list.length = 0;
    this.checkCanaries();
  }

  /** Resets that the watchdog has announced. */
  private stuckQueues(): number {
    const warnings = this.guest.machine.console.all("warning");
    return warnings.filter(({ message }) => message.endsWith(STUCK)).length;
  }

  /** `reset` on the console needs no error. */
  private resetsAsked(): number {
    return this.guest.machine.console
      .all("control")
      .filter(({ command }) => String(command).startsWith("reset")).length;
  }

  private checkEnd({ status }: GuestExit, mayEnd: boolean): void {
    const errors = this.guest.machine.console.all("error");
    const last = errors.at(-1)?.message ?? "no error";
    if (!mayEnd && !this.isSilent(last)) this.fault(`the run ended with status ${status}: ${last}`);
    else if (status === 0) this.fault("the run ended in success");
    else if (errors.length === this.errorsBefore) this.fault("the run ended without an error");
  }

  /**
   * A device that has come upon its own lie does nothing more before its next reset (net-device.ts). One
   * that does so while it is brought up cannot be used.
   */
  private isSilent(last: string): boolean {
    return this.guest.nic.isBroken && last === "the device does not answer a command";
  }

  /**
   * For each CPU, buffers that nobody has had since the case began, and that `afterAttacks` has found as
   * they were: ranges of its linear memory, in order.
   */
  untouched(): Range[][] {
    const { cpus } = this.guest.machine;
    return cpus.map((cpu) => {
      const own = this.buffers.filter((one) => one.cpu === cpu);
      return own.flatMap((one) => rangesUnseen(one)).sort((a, b) => a.start - b.start);
    });
  }

  private checkCanaries(): void {
    for (const { arena, index } of this.guest.machine.cpus) {
      if (!this.isCanary(arena.array.subarray(0, NULL_BYTES))) {
        this.fault(`CPU ${index}: memory below ${NULL_BYTES} was written`);
      }
    }
    this.showAll();
    for (const buffers of this.buffers) this.checkUnseen(buffers);
  }

  /** Buffers that nobody had, as many at a time as lie side by side. */
  private checkUnseen(buffers: Buffers): void {
    const { count, seen } = buffers;
    const { array } = buffers.cpu.arena;
    for (const { start, end } of rangesUnseen(buffers)) {
      if (this.isCanary(array.subarray(start, end))) continue;
      for (let index = 0; index < count; index++) {
        const bytes = this.bytesOf(buffers, index);
        if (seen[index] !== 0 || this.isCanary(bytes)) continue;
        if (this.isUnsent(bytes)) this.show(buffers.base + index * buffers.stride);
        else this.fault(`buffer ${index} was written, and nobody had it`);
      }
      return;
    }
  }

  /**
   * A frame that the guest built, and for which the ring had no room: it comes from the guest's address
   * (commands change the last byte of it), and its net header, which is written when a packet is offered,
   * is still as it was.
   */
  private isUnsent(bytes: Uint8Array): boolean {
    const { mac } = this.guest.nic.options;
    const own = Buffer.from(mac.replaceAll(":", ""), "hex").subarray(0, MAC_BYTES - 1);
    // Which header it is was agreed upon before a reset that may be under way.
    return [HEADER_BYTES, HASH_HEADER_BYTES].some((headerBytes) => {
      const source = headerBytes + MAC_BYTES;
      const isOwn = own.equals(bytes.subarray(source, source + own.length));
      return isOwn && this.isCanary(bytes.subarray(0, headerBytes));
    });
  }

  /** The device behaves again since a while: nothing is excused any more. */
  afterRecovery(): void {
    for (const problem of this.guest.machine.violations.list) this.fault(`recovered: ${problem}`);
    const { ended } = this.guest.machine;
    if (ended !== undefined) this.fault(`recovered, and then the run ended: ${ended.message}`);
    for (const { rx } of this.guest.nic.pairs.slice(0, this.guest.nic.active)) {
      const posted = rx.ring.available();
      if (posted === rx.queue.size) continue;
      this.fault(`recovered: ${posted} of ${rx.queue.size} buffers in ${rx.queue.name}`);
    }
  }

  /** How many packets nobody holds when the guest is at rest. */
  learnPools(queues: readonly Pool[]): void {
    this.poolsAtRest = queues.map(({ pool_free }) => pool_free);
  }

  /** At rest again: none was lost, and none is there twice. */
  checkPools(queues: readonly Pool[]): void {
    queues.forEach(({ pool_free }, pair) => {
      const before = this.poolsAtRest[pair];
      if (pool_free === before) return;
      this.fault(`recovered: ${pool_free} packets are free on pair ${pair}, not ${before}`);
    });
  }

  /** Something did not come to its end in time. */
  late(what: string): void {
    this.fault(what);
  }
}
