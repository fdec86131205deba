// Configuration space of one PCI function: identity, command, BARs, capability list. What a guest
// may write is written through a mask. Made by the devices; reached through pci/host.ts.
//
//   0x00 vendor, device | 0x04 command, status | 0x08 class | 0x0c header type | 0x10 BAR 0 to 5
//   0x2c subsystem | 0x34 first capability | 0x40 capabilities ...

import type { Violations } from "../errors";
import type { Region, Width } from "../machine/bus";

const COMMAND = 0x04;
const STATUS = 0x06;
const STATUS_CAPABILITIES = 0x10;
const COMMAND_MEMORY = 2;
const COMMAND_BUS_MASTER = 4;
const COMMAND_WRITABLE = 0x0547;
const FIRST_BAR = 0x10;
const CAPABILITY_POINTER = 0x34;
const FIRST_CAPABILITY = 0x40;

/** What lies behind a BAR: reads and writes at offsets from its start. */
export interface BarHandler {
  read(offset: number, width: Width): number;
  write(offset: number, width: Width, value: number): void;
}

export interface BarOptions {
  readonly index: number;
  /** A power of two. */
  readonly bytes: number;
  readonly wide: boolean;
  /** As firmware sets it; 0 where there is no firmware. */
  readonly address: number;
  readonly handler: BarHandler;
}

export class ConfigSpace {
  /** Changes what the driver reads at an offset: how a device lies. */
  tamper: ((offset: number, width: Width, value: number) => number) | undefined;
  readonly bytes = Buffer.alloc(256);
  private readonly mask = Buffer.alloc(256);
  private readonly bars: Bar[] = [];
  private lastLink = CAPABILITY_POINTER;
  private nextCapability = FIRST_CAPABILITY;

  constructor(
    readonly name: string,
    vendor: number,
    device: number,
    readonly violations: Violations,
  ) {
    this.bytes.writeUInt16LE(vendor, 0);
    this.bytes.writeUInt16LE(device, 2);
    this.mask.writeUInt16LE(COMMAND_WRITABLE, COMMAND);
  }

  get decodes(): boolean {
    return (this.bytes.readUInt16LE(COMMAND) & COMMAND_MEMORY) !== 0;
  }

  /** Whether the function may reach memory: DMA and message interrupts. */
  get isBusMaster(): boolean {
    return (this.bytes.readUInt16LE(COMMAND) & COMMAND_BUS_MASTER) !== 0;
  }

  /** Adds a memory BAR and answers the region that is to be put on the bus. */
  addBar(options: BarOptions): Region {
    const at = FIRST_BAR + 4 * options.index;
    const sizeMask = 0x1_0000_0000 - options.bytes;
    this.bytes.writeUInt32LE(
      ((options.address % 0x1_0000_0000) | (options.wide ? 4 : 0)) >>> 0,
      at,
    );
    this.mask.writeUInt32LE(sizeMask % 0x1_0000_0000, at);
    if (options.wide) {
      this.bytes.writeUInt32LE(Math.floor(options.address / 0x1_0000_0000), at + 4);
      this.mask.writeUInt32LE(0xffff_ffff, at + 4);
    }
    const bar = new Bar(this, options);
    this.bars.push(bar);
    return bar;
  }

  /** Appends a capability: `body` is what follows id and next. Answers its offset. */
  addCapability(id: number, body: Uint8Array, writable?: Uint8Array): number {
    const at = this.nextCapability;
    this.bytes.writeUInt16LE(this.bytes.readUInt16LE(STATUS) | STATUS_CAPABILITIES, STATUS);
    this.bytes.writeUInt8(at, this.lastLink);
    this.bytes.set([id, 0, ...body], at);
    if (writable !== undefined) this.mask.set(writable, at + 2);
    this.lastLink = at + 1;
    this.nextCapability = (at + 2 + body.length + 3) & ~3;
    return at;
  }

  read(offset: number, width: Width): number {
    const value = offset + width <= 256 ? this.bytes.readUIntLE(offset, width) : 0;
    return this.tamper?.(offset, width, value) ?? value;
  }

  write(offset: number, width: Width, value: number): void {
    for (let i = 0; i < width && offset + i < 256; i++) {
      const mask = this.mask[offset + i] ?? 0;
      const old = this.bytes[offset + i] ?? 0;
      this.bytes[offset + i] = (old & ~mask) | ((value >>> (8 * i)) & mask);
    }
  }
}

class Bar implements Region {
  readonly name: string;

  constructor(
    private readonly config: ConfigSpace,
    private readonly options: BarOptions,
  ) {
    this.name = `${config.name}.bar${options.index}`;
  }

  get base(): number {
    const at = FIRST_BAR + 4 * this.options.index;
    const low = (this.config.bytes.readUInt32LE(at) & ~0xf) >>> 0;
    const high = this.options.wide ? this.config.bytes.readUInt32LE(at + 4) : 0;
    return high * 0x1_0000_0000 + low;
  }

  /** 0 while the function does not answer to its BARs. */
  get bytes(): number {
    return this.config.decodes ? this.options.bytes : 0;
  }

  read(offset: number, width: Width): number {
    return this.options.handler.read(offset, width);
  }

  write(offset: number, width: Width, value: number): void {
    this.options.handler.write(offset, width, value);
  }
}
