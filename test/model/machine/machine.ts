// The simulated machine: RAM, firmware tables, bus, console, clock, and the vCPUs that run the
// module. A device is anything with a `poll` that is attached to it. Tests use it through
// guest.ts, or directly when they want every step in their own hand.

import { readFileSync } from "node:fs";
import { type GuestExit, type GuestPanic, ModelError, Violations } from "../errors";
import { ConfigSpace } from "../pci/config-space";
import { PciHost } from "../pci/host";
import { Random } from "../random";
import { AccessLog } from "./access-log";
import { type AcpiOptions, buildAcpi } from "./acpi";
import { Bus, Rom } from "./bus";
import { Clock, TSC_KHZ } from "./clock";
import { Console } from "./console";
import { IoApic } from "./io-apic";
import { Ram } from "./ram";
import { MAILBOX_WORDS, PAUSE_TICKS, Vcpu } from "./vcpu";

export interface MachineOptions {
  readonly commandLine: string;
  /** End of RAM in MiB, counted from physical address 0. */
  readonly memoryMib: number;
  readonly cpus: number;
  readonly seed: number;
  readonly acpi: Omit<AcpiOptions, "cpus"> | "none";
  /** Whether the loader tells where the root pointer is; else the guest searches the ROM. */
  readonly tellsRoot: boolean;
  /** Which machine it is by its host bridge. */
  readonly hostBridge: keyof typeof HOST_BRIDGES;
  /** What to run in place of the module under test: it, with its globals made visible. */
  readonly module?: WebAssembly.Module;
}

/** Where a guest and its devices meet: shared words, notifications, interrupts. */
export interface Meeting {
  /** Before the guest reads or writes there. */
  before(): void;
  /** What it has read. */
  read(value: number): void;
}

/** What works on its own beside the vCPUs: a device. */
export interface Worker {
  /** One turn; true if anything was done. */
  turn(): boolean;
  /** A CPU's step is over: what had to follow in it must have followed. */
  settle(cpu: Vcpu): void;
  /** Why it is wrong that this CPU sleeps now, or undefined. */
  needsGuest(cpu: Vcpu): string | undefined;
  /** When it wants its next turn even if everybody sleeps, in ticks; Infinity for never. */
  readonly deadline: number;
}

const MIB = 1 << 20;
const ARENA_BASE = 2 * MIB;
const ROM_BASE = 0xe0000;
const ROM_BYTES = 0x20000;
const ROOT_OFFSET = 0x15a40;
const TABLES_BYTES = 64 << 10;
const CONSOLE_IRQ = 4;
const HOST_BRIDGES = {
  q35: { vendor: 0x8086, device: 0x29c0 },
  pc: { vendor: 0x8086, device: 0x1237 },
  microvm: { vendor: 0x1b36, device: 0x0008 },
} as const;
/** A guest that sleeps no longer than this polls, and so loses nothing. */
const POLL_TICKS = 2 * TSC_KHZ;
const PAUSE_TICKS_MAX = 100_000;
const CALLS_MAX = 20_000_000;

/** The module under test; VIREO_WASM names another one, such as one with a fault put in. */
export const MODULE = process.env.VIREO_WASM ?? "build/vireo.wasm";

const modules = new Map<string, WebAssembly.Module>();

/** The module in a file, compiled once a process. */
function compiled(path: string): WebAssembly.Module {
  const known = modules.get(path);
  if (known !== undefined) return known;
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch {
    throw new ModelError(`${path} is not there: build it with 'make image'`);
  }
  const module = new WebAssembly.Module(bytes);
  modules.set(path, module);
  return module;
}

export class Machine {
  readonly options: MachineOptions;
  readonly module: WebAssembly.Module;
  readonly violations = new Violations();
  readonly clock = new Clock();
  readonly log = new AccessLog();
  readonly random: Random;
  readonly ram = new Ram();
  readonly bus: Bus;
  readonly pci: PciHost;
  readonly console: Console;
  readonly mailbox = new Uint32Array(MAILBOX_WORDS);
  readonly cpus: Vcpu[] = [];
  readonly memoryEnd: number;
  readonly acpiRoot: number;
  readonly tscKhz = TSC_KHZ;
  readonly bootTsc: number;
  /** How the run ended, if it has. */
  ended: GuestExit | GuestPanic | undefined;
  /** A boot or a step with more machine calls than this does not end. */
  callsMax = CALLS_MAX;
  /** How long a pause gets at most, in ticks, when nobody else has anything to do. */
  pauseTicksMax = PAUSE_TICKS_MAX;
  /** Called at every machine call of a guest: the seam for interleaving a device with it. */
  onAccess: ((cpu: Vcpu) => void) | undefined;
  /** The same for a scheduler that tries all orders, which needs less and more than every call. */
  meeting: Meeting | undefined;
  private readonly ioApic: IoApic;
  private workers: Worker[] = [];

  constructor(options: Partial<MachineOptions> = {}) {
    this.options = {
      commandLine: "",
      memoryMib: 32,
      cpus: 1,
      seed: 1,
      acpi: { root: "xsdt", ecam: "mcfg" },
      tellsRoot: true,
      hostBridge: "q35",
      ...options,
    };
    this.module = this.options.module ?? compiled(MODULE);
    this.random = new Random(this.options.seed);
    this.memoryEnd = this.options.memoryMib * MIB;
    this.bootTsc = this.clock.now;
    this.bus = new Bus(this.memoryEnd, this.violations);
    const deliver = (apicId: number, vector: number) => this.interrupt(apicId, vector);
    this.ioApic = new IoApic(deliver, this.violations);
    this.console = new Console(this.violations, () => this.ioApic.raise(CONSOLE_IRQ));
    this.pci = new PciHost(this.violations);
    this.acpiRoot = this.placeFirmware();
    this.bus.add(this.ioApic);
    this.bus.add(this.pci);
    const { vendor, device } = HOST_BRIDGES[this.options.hostBridge];
    this.pci.add(0, new ConfigSpace("host-bridge", vendor, device, this.violations));
  }

  /** Puts the tables in place; answers what the loader tells of them. */
  private placeFirmware(): number {
    const { acpi, cpus, tellsRoot } = this.options;
    const rom = Buffer.alloc(ROM_BYTES);
    this.bus.add(new Rom("rom", ROM_BASE, rom, this.violations));
    if (acpi === "none") return 0;
    const { pointer, tables } = buildAcpi(this.memoryEnd, { ...acpi, cpus });
    pointer.copy(rom, ROOT_OFFSET);
    const whole = Buffer.concat([tables], TABLES_BYTES);
    this.bus.add(new Rom("acpi", this.memoryEnd, whole, this.violations));
    return tellsRoot ? ROM_BASE + ROOT_OFFSET : 0;
  }

  attach(worker: Worker): void {
    this.workers.push(worker);
  }

  detach(worker: Worker): void {
    this.workers = this.workers.filter((other) => other !== worker);
  }

  /** The vCPU that the guest booted on. */
  get bootCpu(): Vcpu {
    const [cpu] = this.cpus;
    if (cpu === undefined) throw new ModelError("the machine is not switched on: call boot()");
    return cpu;
  }

  interrupt(apicId: number, vector: number): void {
    const cpu = this.cpus[apicId];
    if (cpu === undefined) this.violations.add(`an interrupt to CPU ${apicId}, which is not there`);
    else cpu.interrupt(vector);
  }

  end(how: GuestExit | GuestPanic): void {
    this.ended ??= how;
  }

  // ---- running ---------------------------------------------------------------------------------

  boot(): void {
    this.addCpu(0, ARENA_BASE).boot();
    this.checkShares();
  }

  /** A vCPU's memory ends where the next one's begins. The guest is refused more; Node is not. */
  private checkShares(): void {
    const starts = this.cpus.map(({ arena }) => arena.base);
    this.cpus.forEach(({ arena }, index) => {
      const share = (starts[index + 1] ?? this.memoryEnd) - arena.base;
      if (arena.bytes <= share) return;
      this.violations.add(`CPU ${index}: ${arena.bytes} bytes of memory, ${share} are its share`);
    });
  }

  private addCpu(index: number, base: number): Vcpu {
    const cpu = new Vcpu(this, index, base);
    this.cpus.push(cpu);
    this.ram.arenas.push(cpu.arena);
    return cpu;
  }

  /** cpuStart of the machine interface: the CPUs come in order, each on its own arena. */
  startCpu(index: number, apicId: number, arena: number, bytes: number): boolean {
    const isNext = index === this.cpus.length && index < this.options.cpus && apicId === index;
    const fits = arena % ARENA_BASE === 0 && arena + bytes <= this.memoryEnd;
    if (!isNext || !fits) {
      this.violations.add(`cpuStart: CPU ${index} at 0x${arena.toString(16)}, ${bytes} bytes`);
      return false;
    }
    this.addCpu(index, arena).boot();
    return true;
  }

  /** One turn of everything that is awake. False when all slept and there was nothing to do. */
  step(): boolean {
    const stepped = this.stepCpus();
    const worked = this.ended === undefined && this.turnWorkers();
    if (this.ended !== undefined) return false;
    return stepped || worked || this.cpus.some((cpu) => !cpu.sleeps);
  }

  /** A step of each CPU that is awake and not in one already. True: one of them has more to do. */
  private stepCpus(): boolean {
    let worked = false;
    for (const cpu of this.cpus) {
      if (this.ended !== undefined) return false;
      if (cpu.isInside || cpu.sleeps) continue;
      cpu.step();
      for (const worker of this.workers) worker.settle(cpu);
      if (cpu.deadline > this.clock.now) this.checkSleep(cpu);
      else worked = true;
    }
    return worked;
  }

  private turnWorkers(): boolean {
    let worked = false;
    for (const worker of this.workers) worked = worker.turn() || worked;
    return worked;
  }

  /**
   * A CPU pauses in the midst of its step: it waits for a device or for another CPU, so those get
   * their turn. When they have nothing to do either, its next pause is longer.
   */
  paused(cpu: Vcpu): void {
    const stepped = this.stepCpus();
    const worked = this.ended === undefined && this.turnWorkers();
    if (this.ended !== undefined) throw this.ended;
    const isIdle = !stepped && !worked;
    cpu.pauseTicks = isIdle ? Math.min(2 * cpu.pauseTicks, this.pauseTicksMax) : PAUSE_TICKS;
  }

  /** A guest that sleeps while there is work and no interrupt will come has lost a wake-up. */
  private checkSleep(cpu: Vcpu): void {
    if (!cpu.sleeps || cpu.deadline < this.clock.now + POLL_TICKS) return;
    for (const worker of this.workers) {
      const reason = worker.needsGuest(cpu);
      if (reason === undefined) continue;
      this.violations.add(`lost wake-up: CPU ${cpu.index} sleeps, but ${reason}`);
    }
  }

  /**
   * Lets a moment pass for a CPU that means to look soon at what lies there without an interrupt.
   * False when there is none.
   */
  passMoment(): boolean {
    const soon = this.clock.now + POLL_TICKS;
    const isWaiting = (cpu: Vcpu) =>
      cpu.sleeps &&
      cpu.deadline < soon &&
      this.workers.some((worker) => worker.needsGuest(cpu) !== undefined);
    const waiting = this.cpus.filter(isWaiting).map(({ deadline }) => deadline);
    if (this.ended !== undefined || waiting.length === 0) return false;
    this.clock.now = Math.max(this.clock.now, Math.min(...waiting));
    return true;
  }

  /** Lets time pass to the next deadline. False when nobody has one. */
  private passTime(limit: number): boolean {
    let deadline = limit;
    for (const cpu of this.cpus) deadline = Math.min(deadline, cpu.deadline);
    for (const worker of this.workers) deadline = Math.min(deadline, worker.deadline);
    if (deadline === Infinity) return false;
    this.clock.now = Math.max(this.clock.now, deadline);
    return deadline < limit;
  }

  /**
   * Runs until `condition` holds; false when it never does: the run has ended, everybody sleeps
   * for ever, or `us` of virtual time or `steps` are over.
   */
  run(condition: () => boolean, limits: { us?: number; steps?: number } = {}): boolean {
    const end = this.clock.now + (limits.us ?? 60_000_000) * (TSC_KHZ / 1000);
    for (let left = limits.steps ?? 2_000_000; left > 0; left--) {
      if (condition()) return true;
      if (this.ended !== undefined || this.clock.now >= end) return false;
      if (!this.step() && !condition() && !this.passTime(end)) return condition();
    }
    return condition();
  }
}
