// One vCPU: an instance of the module over its own linear memory, and the machine interface of
// kernel/machine.ts as its imports. Every call of the guest comes through `enter`, which counts it,
// lets time pass, and offers the test a place to interleave. Made by Machine.

import { GuestExit, GuestPanic, ModelError } from "../errors";
import type { Machine } from "./machine";
import { Arena } from "./ram";
import type { Watcher } from "./watcher";

/** Time that a call of the machine takes, in ticks, and that a pause takes. */
const CALL_TICKS = 20;
export const PAUSE_TICKS = 2_000;
const VECTORS = 256;
/** What one CPU interrupts another one with (boot/layout.h). */
const WAKE_VECTOR = 0x21;
/** Words that all CPUs share (kernel/mail.ts). */
export const MAILBOX_WORDS = 64 * 1024;

/** When a vCPU may run again: 0 at once, Infinity only for an interrupt. */
type Deadline = number;

/** Pointers from `start` on and below `end`, and who wants to know of them. */
interface Watched {
  readonly start: number;
  readonly end: number;
  readonly watcher: Watcher;
}

interface Exports {
  boot(): void;
  step(): bigint;
  readonly memory: WebAssembly.Memory;
  /** Only of a module whose globals were made visible. */
  readonly [global: string]: unknown;
}

export class Vcpu {
  readonly arena: Arena;
  /** Interrupts since boot by vector, and their sum. */
  readonly interrupts = new Uint32Array(VECTORS);
  interruptTotal = 0;
  /** Steps and machine calls so far. */
  steps = 0;
  calls = 0;
  deadline: Deadline = 0;
  /** How many barriers of each kind it has passed. A full one is of all kinds. */
  acquires = 0;
  releases = 0;
  fullBarriers = 0;
  /** The number of the last call that was a release or a full barrier. */
  releasedAt = 0;
  /** It is in the midst of a step, or of its boot. */
  isInside = false;
  /** How long the next pause of this step takes. */
  pauseTicks = PAUSE_TICKS;
  private seen = 0;
  private callLimit = 0;
  private memoryLimit = Infinity;
  readonly exports: Exports;
  /** Ranges of linear memory: few, so that they are tried one after the other. */
  private watched: readonly Watched[] = [];

  constructor(
    readonly machine: Machine,
    readonly index: number,
    base: number,
  ) {
    this.callLimit = machine.callsMax;
    const instance = new WebAssembly.Instance(machine.module, { machine: this.imports() });
    this.exports = instance.exports as unknown as Exports;
    this.arena = new Arena(base, this.exports.memory);
  }

  /** Calls `boot`. After it linear memory must not grow: nothing is allocated any more. */
  boot(): void {
    this.enterGuest(() => this.exports.boot());
    this.memoryLimit = this.arena.bytes;
  }

  /** Calls `step` once. */
  step(): void {
    this.steps++;
    this.seen = this.interruptTotal;
    const answer = this.enterGuest(() => this.exports.step());
    if (this.arena.bytes > this.memoryLimit) {
      this.machine.violations.add("linear memory has grown after boot: something was allocated");
      this.memoryLimit = this.arena.bytes;
    }
    if (answer === undefined) return;
    const deadline = BigInt.asUintN(64, answer);
    this.deadline = deadline === 0xffff_ffff_ffff_ffffn ? Infinity : Number(deadline);
  }

  /** Whether the guest said that it may sleep, and no interrupt has come since it looked. */
  get sleeps(): boolean {
    return this.deadline > this.machine.clock.now && this.interruptTotal === this.seen;
  }

  interrupt(vector: number): void {
    this.interrupts[vector] = (this.interrupts[vector] ?? 0) + 1;
    this.interruptTotal++;
  }

  /** Tells `watcher` of shared accesses to so many bytes at a physical address. */
  watch(physical: number, bytes: number, watcher: Watcher): void {
    const start = physical - this.arena.base;
    this.watched = [...this.watched, { start, end: start + bytes, watcher }];
  }

  unwatch(watcher: Watcher): void {
    this.watched = this.watched.filter((one) => one.watcher !== watcher);
  }

  private watcherOf(pointer: number): Watcher | undefined {
    for (const { start, end, watcher } of this.watched) {
      if (pointer >= start && pointer < end) return watcher;
    }
    return undefined;
  }

  /** Runs guest code; its end, wanted or not, is the machine's. */
  private enterGuest<Result>(work: () => Result): Result | undefined {
    this.callLimit = this.calls + this.machine.callsMax;
    this.pauseTicks = PAUSE_TICKS;
    this.isInside = true;
    try {
      return work();
    } catch (error) {
      if (error instanceof GuestExit || error instanceof GuestPanic) this.machine.end(error);
      else if (error instanceof WebAssembly.RuntimeError || error instanceof RangeError) {
        this.machine.end(new GuestPanic(`wasm trap: ${error.stack ?? error.message}`));
      } else throw error;
      return undefined;
    } finally {
      this.isInside = false;
    }
  }

  private mailboxWord(word: number): number {
    if (word >>> 0 < MAILBOX_WORDS) return word;
    throw new GuestPanic(`CPU ${this.index}: mailbox word ${word >>> 0} of ${MAILBOX_WORDS}`);
  }

  private enter(ticks = CALL_TICKS): void {
    this.calls++;
    if (this.calls > this.callLimit) {
      const { callsMax } = this.machine;
      throw new ModelError(`CPU ${this.index}: ${callsMax} machine calls in one step, endless?`);
    }
    this.machine.clock.advance(ticks);
    this.machine.onAccess?.(this);
  }

  /** A call in which guest and device meet: the other side may act before it. */
  private meet(): void {
    this.enter();
    this.machine.meeting?.before();
  }

  private saw(value: number): void {
    this.machine.meeting?.read(value);
  }

  private barrier(kind: "acquire" | "release" | "full"): void {
    this.enter();
    if (kind !== "release") this.acquires++;
    if (kind !== "acquire") {
      this.releases++;
      this.releasedAt = this.calls;
    }
    if (kind === "full") this.fullBarriers++;
    this.machine.log.add("barrier", kind, 0);
  }

  private text(pointer: number, bytes: number, encoding: "latin1" | "utf16le"): string {
    return Buffer.from(this.exports.memory.buffer, pointer, bytes).toString(encoding);
  }

  private sharedRead16(pointer: number): number {
    this.meet();
    const value = this.arena.view.getUint16(pointer, true);
    this.saw(value);
    this.watcherOf(pointer)?.read(pointer + this.arena.base, value);
    return value;
  }

  private sharedRead32(pointer: number): number {
    this.enter();
    const value = this.arena.view.getUint32(pointer, true);
    this.watcherOf(pointer)?.read(pointer + this.arena.base, value);
    return value;
  }

  private sharedRead64(pointer: number): bigint {
    this.meet();
    const value = this.arena.view.getBigUint64(pointer, true);
    this.saw(Number(value));
    this.watcherOf(pointer)?.read(pointer + this.arena.base, 0);
    return value;
  }

  private sharedWrite16(pointer: number, value: number): void {
    this.meet();
    this.arena.view.setUint16(pointer, value, true);
    this.watcherOf(pointer)?.write(pointer + this.arena.base, value & 0xffff);
  }

  private commandLine(pointer: number, capacity: number): number {
    const line = Buffer.from(this.machine.options.commandLine, "latin1");
    line.copy(this.arena.array, pointer, 0, Math.min(capacity, line.length));
    return line.length;
  }

  /** The functions of module "machine". */
  private imports(): Record<string, unknown> {
    return { ...this.deviceImports(), ...this.sharedImports(), ...this.systemImports() };
  }

  private deviceImports(): Record<string, unknown> {
    const { bus, pci } = this.machine;
    const read = (width: 1 | 2 | 4) => (address: number) => {
      this.enter();
      return bus.read(address >>> 0, width);
    };
    const write = (width: 1 | 2 | 4, mask: number) => (address: number, value: number) => {
      this.meet();
      bus.write(address >>> 0, width, (value & mask) >>> 0);
    };
    return {
      mapDevice: (physical: bigint, bytes: number) =>
        bus.mapDevice(Number(BigInt.asUintN(64, physical)), bytes >>> 0),
      mmioRead8: read(1),
      mmioRead16: read(2),
      mmioRead32: read(4),
      mmioWrite8: write(1, 0xff),
      mmioWrite16: write(2, 0xffff),
      mmioWrite32: write(4, -1),
      portRead32: (port: number) => pci.portRead(port),
      portWrite32: (port: number, value: number) => pci.portWrite(port, value >>> 0),
    };
  }

  private sharedImports(): Record<string, unknown> {
    return {
      dmaBase: () => BigInt(this.arena.base),
      sharedRead8: (pointer: number) => {
        this.enter();
        return this.arena.view.getUint8(pointer >>> 0);
      },
      sharedRead16: (pointer: number) => this.sharedRead16(pointer >>> 0),
      sharedRead32: (pointer: number) => this.sharedRead32(pointer >>> 0),
      sharedRead64: (pointer: number) => this.sharedRead64(pointer >>> 0),
      sharedWrite16: (pointer: number, value: number) => this.sharedWrite16(pointer >>> 0, value),
      acquire: () => this.barrier("acquire"),
      release: () => this.barrier("release"),
      fullBarrier: () => this.barrier("full"),
      prefetch: () => undefined,
    };
  }

  private systemImports(): Record<string, unknown> {
    const { machine } = this;
    return {
      cpuIndex: () => this.index,
      memoryEnd: () => BigInt(machine.memoryEnd),
      cpuStart: (index: number, apicId: number, _block: bigint, arena: bigint, bytes: bigint) =>
        machine.startCpu(index, apicId, Number(arena), Number(bytes)) ? 1 : 0,
      mailboxRead: (word: number) => machine.mailbox[this.mailboxWord(word)] ?? 0,
      mailboxWrite: (word: number, value: number) => {
        machine.mailbox[this.mailboxWord(word)] = value;
      },
      wake: (apicId: number) => machine.interrupt(apicId, WAKE_VECTOR),
      interruptCount: (vector: number) => {
        this.meet();
        const count = this.interrupts[vector & 255] ?? 0;
        this.saw(count);
        return count;
      },
      tsc: () => {
        this.enter();
        return BigInt(Math.floor(machine.clock.now));
      },
      tscKhz: () => machine.tscKhz,
      bootTsc: () => BigInt(machine.bootTsc),
      pause: () => {
        this.enter(this.pauseTicks);
        machine.paused(this);
      },
      acpiRoot: () => BigInt(machine.acpiRoot),
      commandLine: (pointer: number, capacity: number) => this.commandLine(pointer >>> 0, capacity),
      consoleWrite: (pointer: number, bytes: number) =>
        machine.console.write(this.text(pointer, bytes, "latin1")),
      consoleRead: () => machine.console.read(),
      entropy: () => (BigInt(machine.random.next()) << 32n) | BigInt(machine.random.next()),
      exit: (status: number, pointer: number, bytes: number) => {
        machine.console.write(this.text(pointer, bytes, "latin1"));
        throw new GuestExit(status);
      },
      panic: (message: number, characters: number) => {
        throw new GuestPanic(this.text(message, 2 * characters, "utf16le"));
      },
    };
  }
}
