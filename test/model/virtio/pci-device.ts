// virtio over PCI, the device's side: capabilities, BARs, MSI-X, ISR, notifications, and access to
// the structures with every access recorded by name. Made by a device class such as net/. virtio
// 1.4 §4.1
//
//   BAR 4:  0x0000 common | 0x1000 ISR | 0x2000 device configuration | 0x3000 notifications
//   BAR 1:  MSI-X table

import { DriverError } from "../errors";
import type { Region, Width } from "../machine/bus";
import type { Machine } from "../machine/machine";
import { ConfigSpace } from "../pci/config-space";
import { Msix } from "../pci/msix";
import { CommonConfig, type CommonOptions, STATUS } from "./common-config";
import { has } from "./features";
import { NO_VECTOR, type Queue } from "./queue";
import { COMMON_BYTES, COMMON_REGISTERS, findRegister, type Register } from "./registers";

const VENDOR = 0x1af4;
const CAPABILITY_ID = 0x09;
const MSIX_BAR = 1;
const STRUCTURE_BAR = 4;
const PIECE_BYTES = 0x1000;
const PIECES = ["common", "isr", "device", "notify"] as const;
/** The last piece is as long as it has to be. */
const NOTIFY_PIECE = 3;
/** The device number of a machine's first one, and how far apart firmware puts the BARs. */
const USUAL_DEVICE = 2;
const BAR_PLACE_BYTES = 1 << 20;
const ISR_QUEUE = 1;
const ISR_CONFIG = 2;

/** A virtio capability before it is written: tests bend these to make a hostile device. */
export interface Capability {
  readonly id: number;
  readonly type: number;
  readonly bar: number;
  readonly offset: number;
  readonly length: number;
  /** cap_len; the multiplier follows where there is room for it. */
  readonly capBytes: number;
  readonly multiplier?: number;
}

export interface PciOptions extends CommonOptions {
  readonly name: string;
  readonly bdf: number;
  readonly deviceId: number;
  /** 0: no MSI-X. */
  readonly msixEntries: number;
  readonly notifyMultiplier: number;
  /** Whether firmware has given the BARs their addresses. */
  readonly hasFirmware: boolean;
  readonly capabilities: (usual: readonly Capability[]) => readonly Capability[];
}

/** The part of a device that depends on what it is. */
export interface DeviceClass {
  readonly config: Buffer;
  readonly fields: readonly Register[];
  negotiated(): void;
  needed(): readonly Queue[];
  start(): void;
  stop(): void;
  stopQueue(queue: Queue): void;
  startQueue(queue: Queue): void;
  /** The driver has read a register, and was shown this value. */
  shown(register: string, value: number): void;
}

export class VirtioPci {
  readonly space: ConfigSpace;
  readonly common: CommonConfig;
  readonly msix: Msix | undefined;
  /** Changes what the driver reads of a register: how a device lies. */
  tamper: ((register: string, value: number) => number) | undefined;
  /** Sends no interrupts: how a device keeps silent. */
  isSilent = false;
  private isr = 0;
  private readonly regions: Region[] = [];

  constructor(
    readonly machine: Machine,
    readonly options: PciOptions,
    private readonly deviceClass: DeviceClass,
  ) {
    const { ram, violations } = machine;
    const { name, msixEntries } = options;
    this.space = new ConfigSpace(name, VENDOR, options.deviceId, violations);
    this.common = new CommonConfig(options, {
      ram,
      vectors: msixEntries,
      negotiated: () => deviceClass.negotiated(),
      needed: () => deviceClass.needed(),
      start: () => deviceClass.start(),
      stop: () => deviceClass.stop(),
      stopQueue: (queue) => deviceClass.stopQueue(queue),
      startQueue: (queue) => deviceClass.startQueue(queue),
    });
    if (msixEntries > 0) {
      const deliver = (apicId: number, vector: number) => machine.interrupt(apicId, vector);
      this.msix = new Msix(this.space, { entries: msixEntries, bar: MSIX_BAR }, deliver);
    }
    for (const capability of options.capabilities(this.usualCapabilities())) {
      this.space.addCapability(capability.id, capabilityBody(capability));
    }
    this.addBars();
    machine.pci.add(options.bdf, this.space);
  }

  private get notifyBytes(): number {
    return Math.max(2, this.options.queues.length * this.options.notifyMultiplier);
  }

  private usualCapabilities(): Capability[] {
    const at = { id: CAPABILITY_ID, bar: STRUCTURE_BAR, capBytes: 16 };
    const { notifyBytes } = this;
    const multiplier = this.options.notifyMultiplier;
    return [
      { ...at, type: 1, offset: 0, length: COMMON_BYTES },
      { ...at, type: 3, offset: PIECE_BYTES, length: 1 },
      { ...at, type: 4, offset: 2 * PIECE_BYTES, length: this.deviceClass.config.length },
      { ...at, type: 2, offset: 3 * PIECE_BYTES, length: notifyBytes, capBytes: 20, multiplier },
    ];
  }

  private addBars(): void {
    const { msix, options } = this;
    const place = ((options.bdf >> 3) - USUAL_DEVICE) * BAR_PLACE_BYTES;
    const address = options.hasFirmware ? 0xfe00_0000 + place : 0;
    const structures = {
      index: STRUCTURE_BAR,
      bytes: barBytes(NOTIFY_PIECE * PIECE_BYTES + this.notifyBytes),
      wide: true,
      address,
      handler: {
        read: (offset: number, width: Width) => this.read(offset, width),
        write: (offset: number, width: Width, value: number) => this.write(offset, width, value),
      },
    };
    this.addRegion(this.space.addBar(structures));
    if (msix === undefined) return;
    const table = {
      index: MSIX_BAR,
      bytes: barBytes(msix.options.entries * 16),
      wide: false,
      address: options.hasFirmware ? 0xfd00_0000 + place : 0,
      handler: msix,
    };
    this.addRegion(this.space.addBar(table));
  }

  private addRegion(region: Region): void {
    this.regions.push(region);
    this.machine.bus.add(region);
  }

  /** The function leaves the machine: a reset, and then nothing answers. */
  unplug(): void {
    this.common.reset();
    this.machine.pci.remove(this.options.bdf);
    for (const region of this.regions) this.machine.bus.remove(region);
  }

  // ---- structures ------------------------------------------------------------------------------

  private read(offset: number, width: Width): number {
    const { piece, at } = place(offset);
    if (piece === "isr") return this.readIsr();
    if (piece === "notify") {
      this.machine.violations.add(`read of the notification structure at ${at}`);
      return 0;
    }
    const registers = piece === "common" ? COMMON_REGISTERS : this.deviceClass.fields;
    const register = findRegister(registers, at, width);
    if (register === undefined) {
      this.machine.violations.add(`§4.1.3.1: ${8 * width}-bit read of ${piece} at ${at}: no field`);
      return 0;
    }
    const value =
      piece === "common"
        ? this.common.read(register)
        : this.deviceClass.config.readUIntLE(at, width);
    const shown = this.tamper?.(register.name, value) ?? value;
    this.deviceClass.shown(register.name, shown);
    const { log } = this.machine;
    if (log.enabled) log.add("read", `${piece}.${register.name}`, shown);
    return shown;
  }

  private write(offset: number, width: Width, value: number): void {
    const { piece, at } = place(offset);
    this.machine.violations.guard(() => {
      if (piece === "notify") {
        this.notify(at, width, value);
        return;
      }
      if (piece !== "common") throw new DriverError(`§5.1.4.2: write to ${piece} at ${at}`);
      const register = findRegister(COMMON_REGISTERS, at, width);
      if (register === undefined) {
        throw new DriverError(`§4.1.3.1: ${8 * width}-bit write to common at ${at}: no field`);
      }
      const { log } = this.machine;
      if (log.enabled) log.add("write", `common.${register.name}`, value);
      this.common.write(register, value);
    });
  }

  private readIsr(): number {
    const value = this.isr;
    this.isr = 0;
    if (this.msix?.isEnabled === true) {
      this.machine.violations.add("§4.1.4.5.2: ISR status read while MSI-X is enabled");
    }
    return value;
  }

  // ---- notifications and interrupts ------------------------------------------------------------

  /** Called with every notification that came the right way. */
  onNotify: ((queue: Queue, next: number | undefined) => void) | undefined;

  private notify(offset: number, width: Width, value: number): void {
    const { accepted, queues } = this.common;
    const withData = has(accepted, "notification_data");
    if (width !== (withData ? 4 : 2)) {
      throw new DriverError(`§4.1.5.2.1: ${8 * width}-bit notification`);
    }
    const byConfig = has(accepted, "notif_config_data");
    const named = value & 0xffff;
    const queue = queues.find(({ index, notifyData }) => (byConfig ? notifyData : index) === named);
    if (queue === undefined || offset !== queue.index * this.options.notifyMultiplier) {
      throw new DriverError(`§4.1.4.4: notification ${value} at offset ${offset}`);
    }
    this.machine.log.add("write", `notify.${queue.name}`, value);
    if ((this.common.status & STATUS.driverOk) === 0) {
      throw new DriverError(`§3.1.1: notification of ${queue.name} before DRIVER_OK`);
    }
    queue.kicks++;
    queue.kicked = true;
    this.onNotify?.(queue, withData ? value >>> 16 : undefined);
  }

  interruptQueue(queue: Queue): void {
    if (this.isSilent) return;
    queue.interrupts++;
    if (queue.vector !== NO_VECTOR) this.msix?.send(queue.vector);
    else this.isr |= ISR_QUEUE;
  }

  /** Announces a changed configuration. */
  interruptConfig(): void {
    this.common.generation++;
    if (this.isSilent) return;
    if (this.common.configVector !== NO_VECTOR) this.msix?.send(this.common.configVector);
    else this.isr |= ISR_CONFIG;
  }

  /** Asks for a reset, as a device does that cannot go on. virtio 1.4 §2.1.2 */
  needReset(): void {
    this.common.status |= STATUS.needsReset;
    this.interruptConfig();
  }
}

/** What follows id and next. virtio 1.4 §4.1.4 */
function capabilityBody(capability: Capability): Buffer {
  const body = Buffer.alloc(Math.max(14, capability.capBytes - 2));
  body.writeUInt8(capability.capBytes, 0);
  body.writeUInt8(capability.type, 1);
  body.writeUInt8(capability.bar, 2);
  body.writeUInt32LE(capability.offset, 6);
  body.writeUInt32LE(capability.length, 10);
  if (body.length >= 18) body.writeUInt32LE(capability.multiplier ?? 0, 14);
  return body;
}

/** The piece of BAR 4 that an offset lies in, and where in it. */
function place(offset: number): { piece: (typeof PIECES)[number] | undefined; at: number } {
  const index = Math.min(Math.floor(offset / PIECE_BYTES), NOTIFY_PIECE);
  return { piece: PIECES[index], at: offset - index * PIECE_BYTES };
}

/** The size of a BAR that holds so many bytes: a power of two, a page at least. */
function barBytes(bytes: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(4096, bytes)));
}
