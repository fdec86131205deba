// The physical address space apart from RAM, and the window through which a vCPU reaches it.
// mapDevice hands out window addresses as boot/services.c does: page by page, from the start, RAM
// refused. Owned by Machine; called by the imports in vcpu.ts.

import { ModelError, type Violations } from "../errors";

export type Width = 1 | 2 | 4;

/** A piece of physical address space that answers. `offset` is relative to `base`. */
export interface Region {
  readonly name: string;
  readonly base: number;
  readonly bytes: number;
  read(offset: number, width: Width): number;
  write(offset: number, width: Width, value: number): void;
}

const PAGE = 4096;
const WINDOW_BYTES = 16 << 20;
/** Where the image is linked; from here to the end of RAM nothing is device memory. */
const IMAGE_BASE = 1 << 20;

export class Bus {
  private regions: Region[] = [];
  /** The region of the last access. */
  private last: Region | undefined;
  /** Where something was that has left: reads give all ones, and nobody minds. */
  private readonly vacated: { readonly base: number; readonly bytes: number }[] = [];
  /** Physical page number of each page of the window. */
  private readonly pages: number[] = [];

  /** Pages of the window that are in use. */
  get mappedPages(): number {
    return this.pages.length;
  }

  constructor(
    private readonly memoryEnd: number,
    private readonly violations: Violations,
  ) {}

  add(region: Region): void {
    this.regions.push(region);
  }

  /** The region leaves, and what the guest still does there is not its fault. */
  remove(region: Region): void {
    this.regions = this.regions.filter((other) => other !== region);
    this.last = undefined;
    this.vacated.push({ base: region.base, bytes: region.bytes });
  }

  /** A window address plus 1, or 0. */
  mapDevice(physical: number, bytes: number): number {
    const offset = physical % PAGE;
    const first = physical - offset;
    const count = Math.ceil((offset + bytes) / PAGE);
    const isRam = first < this.memoryEnd && first + count * PAGE > IMAGE_BASE;
    const isFull = (this.pages.length + count) * PAGE > WINDOW_BYTES;
    if (bytes === 0 || isRam || isFull) return 0;
    const address = this.pages.length * PAGE + offset;
    for (let i = 0; i < count; i++) this.pages.push(first / PAGE + i);
    return address + 1;
  }

  read(address: number, width: Width): number {
    const physical = this.translate(address);
    const region = this.find(physical, width);
    if (region === undefined) return 0xffff_ffff >>> (32 - 8 * width);
    return region.read(physical - region.base, width);
  }

  write(address: number, width: Width, value: number): void {
    const physical = this.translate(address);
    const region = this.find(physical, width);
    region?.write(physical - region.base, width, value);
  }

  private translate(address: number): number {
    const page = this.pages[Math.floor(address / PAGE)];
    if (page === undefined) {
      throw new ModelError(`page fault: MMIO window address 0x${address.toString(16)} is unmapped`);
    }
    return page * PAGE + (address % PAGE);
  }

  private find(physical: number, width: Width): Region | undefined {
    const { last } = this;
    // Nearly every access is to where the one before was.
    const region =
      last !== undefined && lies(last, physical, width)
        ? last
        : this.regions.find((one) => lies(one, physical, width));
    if (region !== undefined) {
      this.last = region;
      // Tables are memory, and packed; registers are neither.
      if (physical % width !== 0 && !(region instanceof Rom)) {
        this.violations.add(`${region.name}: ${8 * width}-bit access at ${physical.toString(16)}`);
      }
      return region;
    }
    const wasThere = this.vacated.some(
      ({ base, bytes }) => physical >= base && physical + width <= base + bytes,
    );
    if (wasThere) return undefined;
    this.violations.add(`nothing answers at physical address 0x${physical.toString(16)}`);
    return undefined;
  }
}

function lies(region: Region, physical: number, width: Width): boolean {
  const { base } = region;
  return physical >= base && physical + width <= base + region.bytes;
}

/** Firmware's tables: bytes that can be read and not written. */
export class Rom implements Region {
  constructor(
    readonly name: string,
    readonly base: number,
    private readonly content: Buffer,
    private readonly violations: Violations,
  ) {}

  get bytes(): number {
    return this.content.length;
  }

  read(offset: number, width: Width): number {
    return this.content.readUIntLE(offset, width);
  }

  write(offset: number): void {
    this.violations.add(`write to ${this.name} at 0x${(this.base + offset).toString(16)}`);
  }
}
