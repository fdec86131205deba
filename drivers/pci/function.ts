/**
 * One PCI function: its identity, its BARs and its capability list. Made by bus.ts for a function
 * that a driver wants; used by msix.ts and drivers/virtio/.
 */
import * as machine from "../../kernel/machine";
import * as config from "./config-space";
import { allocateBar } from "./bar-window";

const COMMAND: u32 = 0x04;
const COMMAND_MEMORY: u32 = 0x0002;
const COMMAND_BUS_MASTER: u32 = 0x0004;
const STATUS_CAPABILITIES: u32 = 0x0010 << 16;
const FIRST_BAR: u32 = 0x10;
const CAPABILITY_POINTER: u32 = 0x34;

export const BARS: u32 = 6;
const BAR_IO: u32 = 1;
const BAR_TYPE_MASK: u32 = 6;
const BAR_TYPE_64: u32 = 4;

/** Pieces of BARs that are remembered. A driver maps four. */
const MAPPINGS_MAX: u32 = 8;

/** Capabilities lie in 0x40 to 0xff, 4 bytes apart at least: a longer list is a loop. */
const CAPABILITIES_MAX: u32 = 48;

export class PciFunction {
  readonly bdf: u32;
  /** As they were when `identify` looked last. */
  vendor: u32 = 0;
  device: u32 = 0;
  /** Physical addresses and sizes in bytes; size 0: absent, an I/O BAR, or without an address. */
  private barAddress: StaticArray<u64> = new StaticArray<u64>(BARS);
  private barSize: StaticArray<u64> = new StaticArray<u64>(BARS);
  /** What was mapped, for a function that goes and comes back: the window gives nothing back. */
  private mapped: StaticArray<u64> = new StaticArray<u64>(MAPPINGS_MAX);
  private mappedBytes: StaticArray<u32> = new StaticArray<u32>(MAPPINGS_MAX);
  private mappedAt: StaticArray<u32> = new StaticArray<u32>(MAPPINGS_MAX);
  private mappings: u32 = 0;

  constructor(bdf: u32) {
    this.bdf = bdf;
    this.identify();
  }

  /** Reads vendor and device again. False if there is no function here now. */
  identify(): bool {
    const id = config.read32(this.bdf, 0);
    this.vendor = id & 0xffff;
    this.device = id >> 16;
    return id != u32.MAX_VALUE;
  }

  /** Whether the function is still the one that was identified. */
  isThere(): bool {
    return config.read32(this.bdf, 0) == (this.vendor | (this.device << 16));
  }

  /**
   * Finds out where the memory BARs are, gives an address to those that firmware left empty (there
   * is no firmware on microvm, nor for a function that is plugged in later), and lets the function answer to them and reach our memory.
   */
  enable(): void {
    const command = config.read32(this.bdf, COMMAND) & 0xffff;
    // A BAR must not answer while it is being sized.
    config.write32(this.bdf, COMMAND, command & ~(COMMAND_MEMORY | COMMAND_BUS_MASTER));
    for (let bar: u32 = 0; bar < BARS; bar++) {
      if (this.readBar(bar)) bar++;
    }
    config.write32(this.bdf, COMMAND, command | COMMAND_MEMORY | COMMAND_BUS_MASTER);
  }

  /** Sizes one BAR by writing all ones (PCI 3.0 §6.2.5.1). True if it takes two registers. */
  private readBar(bar: u32): bool {
    const offset = FIRST_BAR + 4 * bar;
    const lastSize = unchecked(this.barSize[bar]);
    unchecked((this.barSize[bar] = 0));
    const low = config.read32(this.bdf, offset);
    if (low & BAR_IO) return false;
    const wide = (low & BAR_TYPE_MASK) == BAR_TYPE_64 && bar + 1 < BARS;
    const high = wide ? config.read32(this.bdf, offset + 4) : 0;
    config.write32(this.bdf, offset, u32.MAX_VALUE);
    if (wide) config.write32(this.bdf, offset + 4, u32.MAX_VALUE);
    const maskLow = config.read32(this.bdf, offset) & ~(<u32>0xf);
    const maskHigh = wide ? config.read32(this.bdf, offset + 4) : u32.MAX_VALUE;
    const size = ~(((<u64>maskHigh) << 32) | maskLow) + 1;
    let address = ((<u64>high) << 32) | (low & ~(<u32>0xf));
    if (maskLow == 0 && (!wide || maskHigh == 0)) return wide;
    // One that comes back gets its place back, which bridges before it lead to.
    if (address == 0 && size == lastSize) address = unchecked(this.barAddress[bar]);
    if (address == 0) address = allocateBar(size);
    config.write32(this.bdf, offset, <u32>address | (low & 0xf));
    if (wide) config.write32(this.bdf, offset + 4, <u32>(address >> 32));
    if (address == 0) return wide;
    unchecked((this.barAddress[bar] = address));
    unchecked((this.barSize[bar] = size));
    return wide;
  }

  /**
   * Maps `length` bytes at `offset` of a BAR. Answers the window address plus 1; 0 if the BAR is
   * no memory BAR, or the piece does not lie wholly inside it.
   */
  mapBar(bar: u32, offset: u32, length: u32): u32 {
    if (!this.barHolds(bar, offset, length)) return 0;
    const physical = unchecked(this.barAddress[bar]) + offset;
    for (let i: u32 = 0; i < this.mappings; i++) {
      const fits = unchecked(this.mappedBytes[i]) >= length;
      if (fits && unchecked(this.mapped[i]) == physical) return unchecked(this.mappedAt[i]);
    }
    const window = machine.mapDevice(physical, length);
    if (window == 0 || this.mappings == MAPPINGS_MAX) return window;
    unchecked((this.mapped[this.mappings] = physical));
    unchecked((this.mappedBytes[this.mappings] = length));
    unchecked((this.mappedAt[this.mappings] = window));
    this.mappings++;
    return window;
  }

  /** Whether `length` bytes at `offset` lie inside a memory BAR. The sum is taken in 64 bits. */
  barHolds(bar: u32, offset: u32, length: u32): bool {
    if (bar >= BARS || length == 0) return false;
    return <u64>offset + length <= unchecked(this.barSize[bar]);
  }

  /**
   * The offset of the next capability with this id after `previous` (0: the first one), or 0. The
   * walk is bounded, so a list that loops ends.
   */
  findCapability(id: u32, previous: u32): u32 {
    if (!(config.read32(this.bdf, COMMAND) & STATUS_CAPABILITIES)) return 0;
    let offset = config.read8(this.bdf, CAPABILITY_POINTER) & 0xfc;
    let found = previous == 0;
    for (let i: u32 = 0; i < CAPABILITIES_MAX && offset >= 0x40; i++) {
      const header = config.read16(this.bdf, offset);
      if (found && (header & 0xff) == id) return offset;
      if (offset == previous) found = true;
      offset = (header >> 8) & 0xfc;
    }
    return 0;
  }

  @inline
  read8(offset: u32): u32 {
    return config.read8(this.bdf, offset);
  }

  @inline
  read16(offset: u32): u32 {
    return config.read16(this.bdf, offset);
  }

  @inline
  read32(offset: u32): u32 {
    return config.read32(this.bdf, offset);
  }

  @inline
  write32(offset: u32, value: u32): void {
    config.write32(this.bdf, offset, value);
  }
}
