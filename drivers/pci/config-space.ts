/**
 * PCI configuration space, 32 bits at a time: through memory (ECAM, PCI Express Base §7.2.2) where
 * ACPI says where, else through ports 0xcf8 and 0xcfc (PCI Local Bus 3.0 §3.2.2.3.2). Used by the
 * other files of this folder.
 *
 * A function is named by one number: bus << 8 | device << 3 | function.
 */
import * as machine from "../../kernel/machine";

const ADDRESS_PORT: u32 = 0xcf8;
const DATA_PORT: u32 = 0xcfc;
const BUS_BYTES: u32 = 1 << 20;
const BUSES_MAX: u32 = 8;

let ecamPhysical: u64 = 0;
/** Window addresses plus 1 of the buses mapped so far. */
const busWindows = new StaticArray<u32>(BUSES_MAX);

/** Chooses the way: the physical address of bus 0's ECAM region, or 0 for the ports. */
export function useEcam(physical: u64): void {
  ecamPhysical = physical;
}

/** How many buses can be reached. Each takes 1 MiB of the MMIO window when ECAM is used. */
export function busLimit(): u32 {
  return BUSES_MAX;
}

/** Address of a function's registers in the MMIO window plus 1; 0 if its bus cannot be mapped. */
function ecamFunction(bdf: u32): u32 {
  const bus = bdf >> 8;
  let window = busWindows[bus];
  if (window == 0) {
    window = machine.mapDevice(ecamPhysical + <u64>bus * BUS_BYTES, BUS_BYTES);
    unchecked((busWindows[bus] = window));
    if (window == 0) return 0;
  }
  return window + ((bdf & 0xff) << 12);
}

/** Reads the register at `offset` (a multiple of 4 below 256). All ones where nothing answers. */
export function read32(bdf: u32, offset: u32): u32 {
  if (ecamPhysical != 0) {
    const registers = ecamFunction(bdf);
    return registers != 0 ? machine.mmioRead32(registers - 1 + offset) : u32.MAX_VALUE;
  }
  machine.portWrite32(ADDRESS_PORT, 0x80000000 | (bdf << 8) | offset);
  return machine.portRead32(DATA_PORT);
}

/** Writes the register at `offset`, a multiple of 4 below 256. */
export function write32(bdf: u32, offset: u32, value: u32): void {
  if (ecamPhysical != 0) {
    const registers = ecamFunction(bdf);
    if (registers != 0) machine.mmioWrite32(registers - 1 + offset, value);
    return;
  }
  machine.portWrite32(ADDRESS_PORT, 0x80000000 | (bdf << 8) | offset);
  machine.portWrite32(DATA_PORT, value);
}

/** Reads 16 bits at an even offset. */
export function read16(bdf: u32, offset: u32): u32 {
  return (read32(bdf, offset & ~3) >> ((offset & 2) << 3)) & 0xffff;
}

/** Reads 8 bits. */
export function read8(bdf: u32, offset: u32): u32 {
  return (read32(bdf, offset & ~3) >> ((offset & 3) << 3)) & 0xff;
}
