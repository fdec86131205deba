/**
 * Interrupt vectors and the ways to them: messages (MSI-X) straight to a local APIC, and the I/O
 * APIC for the console. An interrupt only counts up its vector's counter (boot/traps.S); whoever
 * waits for one compares `machine.interruptCount` with what it saw before. Called by main.ts and
 * by drivers/.
 */
import * as machine from "./machine";

/** Vectors 0x30 to 0xef are for devices; below are exceptions and the timer, above is spurious. */
const FIRST_VECTOR: u32 = 0x30;
const LAST_VECTOR: u32 = 0xef;

/** Answered by `allocateVector` when all are in use. */
export const NO_VECTOR: u32 = 0;

/** Where a message write is an interrupt; bits 12 to 19 name the local APIC. */
const MESSAGE_ADDRESS: u32 = 0xfee00000;

const IO_APIC_BYTES: u32 = 0x20;
const IO_APIC_SELECT: u32 = 0x00;
const IO_APIC_WINDOW: u32 = 0x10;
const IO_APIC_REDIRECTION: u32 = 0x10;

let nextVector: u32 = FIRST_VECTOR;

/**
 * A vector that nothing else uses on this CPU, or NO_VECTOR. Vectors are not given back; the most NICs
 * that there can be, and the console, take 19 of the 192 (three a NIC).
 */
export function allocateVector(): u32 {
  return nextVector <= LAST_VECTOR ? nextVector++ : NO_VECTOR;
}

/** The address a device writes to for an interrupt at the CPU with this local APIC. */
export function messageAddress(apicId: u32): u32 {
  return MESSAGE_ADDRESS | ((apicId & 0xff) << 12);
}

/**
 * Leads input `line` of the I/O APIC at physical address `ioApic` to `vector` of the CPU with this
 * local APIC: fixed delivery, edge-triggered, active high, as ISA interrupts are. False if the
 * I/O APIC cannot be reached.
 */
export function routeLine(ioApic: u64, line: u32, vector: u32, apicId: u32): bool {
  const mapped = machine.mapDevice(ioApic, IO_APIC_BYTES);
  if (mapped == 0) return false;
  const base = mapped - 1;
  machine.mmioWrite32(base + IO_APIC_SELECT, IO_APIC_REDIRECTION + 2 * line + 1);
  machine.mmioWrite32(base + IO_APIC_WINDOW, apicId << 24);
  machine.mmioWrite32(base + IO_APIC_SELECT, IO_APIC_REDIRECTION + 2 * line);
  machine.mmioWrite32(base + IO_APIC_WINDOW, vector);
  return true;
}
