/**
 * What we need of ACPI 6.5: the CPUs and the I/O APIC (MADT, §5.2.12) and where PCI configuration
 * space is mapped (MCFG, or on microvm the method _CBA of the DSDT, §6.5.8). Called once by
 * main.ts on CPU 0. Tables are firmware's: every length is checked before it is used, and a table
 * that does not hold together is passed over.
 */
import * as machine from "./machine";

const ROOT_BYTES: u32 = 36;
const HEADER_BYTES: u32 = 36;
const TABLE_BYTES_MAX: u32 = 1 << 16;
const TABLES_MAX: u32 = 64;
export const CPUS_MAX: u32 = 64;

/** "RSD PTR ", and the names of tables, as little-endian words. */
const ROOT_SIGNATURE_LOW: u32 = 0x20445352;
const ROOT_SIGNATURE_HIGH: u32 = 0x20525450;
const MADT: u32 = 0x43495041;
const MCFG: u32 = 0x4746434d;
const FADT: u32 = 0x50434146;

/** Where firmware leaves the root pointer when the loader does not tell (§5.2.5.1). */
const SEARCH_FIRST: u64 = 0xe0000;
const SEARCH_BYTES: u32 = 0x20000;

const MADT_LOCAL_APIC: u32 = 0;
const MADT_IO_APIC: u32 = 1;
const MADT_OVERRIDE: u32 = 2;
const MADT_LOCAL_X2APIC: u32 = 9;

/** The ISA interrupt of COM1. */
const CONSOLE_IRQ: u32 = 4;

/** How many CPUs firmware lists as usable, and their local APICs' ids. */
export let cpuCount: u32 = 0;
export const apicIds = new StaticArray<u32>(CPUS_MAX);
/** CPUs beyond the most that we can use. */
export let cpusIgnored: u32 = 0;

/** Physical address of the first I/O APIC, 0 if there is none, and the console's input there. */
export let ioApic: u64 = 0;
export let consoleLine: u32 = CONSOLE_IRQ;

/** Physical address of PCI configuration space of bus 0, 0 if only the ports lead to it. */
export let ecamBase: u64 = 0;

/** Reads the tables. False when no root pointer was found; then the numbers above stay 0. */
export function read(): bool {
  const root = findRoot();
  if (root == 0) return false;
  const revision = machine.mmioRead8(root + 15);
  const extended = revision >= 2;
  const address: u64 = extended ? read64(root + 24) : <u64>machine.mmioRead32(root + 16);
  const table = mapTable(address);
  if (table == 0) return false;
  const width: u32 = extended ? 8 : 4;
  const entries = min((machine.mmioRead32(table + 4) - HEADER_BYTES) / width, TABLES_MAX);
  for (let i: u32 = 0; i < entries; i++) {
    const entry = table + HEADER_BYTES + i * width;
    readTable(extended ? read64(entry) : <u64>machine.mmioRead32(entry));
  }
  return true;
}

function read64(address: u32): u64 {
  return <u64>machine.mmioRead32(address) | ((<u64>machine.mmioRead32(address + 4)) << 32);
}

/** The root pointer's window address, or 0. */
function findRoot(): u32 {
  const told = machine.acpiRoot();
  if (told != 0) {
    const mapped = machine.mapDevice(told, ROOT_BYTES);
    if (mapped != 0 && isRoot(mapped - 1)) return mapped - 1;
  }
  const area = machine.mapDevice(SEARCH_FIRST, SEARCH_BYTES);
  if (area == 0) return 0;
  for (let at: u32 = 0; at + ROOT_BYTES <= SEARCH_BYTES; at += 16) {
    if (isRoot(area - 1 + at)) return area - 1 + at;
  }
  return 0;
}

function isRoot(address: u32): bool {
  return (
    machine.mmioRead32(address) == ROOT_SIGNATURE_LOW &&
    machine.mmioRead32(address + 4) == ROOT_SIGNATURE_HIGH &&
    sum(address, 20) == 0
  );
}

/** The sum of bytes, modulo 256; 0 over a sound table. */
function sum(address: u32, bytes: u32): u32 {
  let total: u32 = 0;
  for (let i: u32 = 0; i < bytes; i++) total += machine.mmioRead8(address + i);
  return total & 0xff;
}

/** Maps a whole table. Answers its window address, or 0 if its length or its sum is wrong. */
function mapTable(physical: u64): u32 {
  if (physical == 0) return 0;
  const header = machine.mapDevice(physical, HEADER_BYTES);
  if (header == 0) return 0;
  const bytes = machine.mmioRead32(header - 1 + 4);
  if (bytes < HEADER_BYTES || bytes > TABLE_BYTES_MAX) return 0;
  const table = machine.mapDevice(physical, bytes);
  if (table == 0 || sum(table - 1, bytes) != 0) return 0;
  return table - 1;
}

function readTable(physical: u64): void {
  if (physical == 0) return;
  const header = machine.mapDevice(physical, HEADER_BYTES);
  if (header == 0) return;
  const signature = machine.mmioRead32(header - 1);
  if (signature != MADT && signature != MCFG && signature != FADT) return;
  const table = mapTable(physical);
  if (table == 0) return;
  const bytes = machine.mmioRead32(table + 4);
  if (signature == MADT) readMadt(table, bytes);
  else if (signature == MCFG) readMcfg(table, bytes);
  else readFadt(table, bytes);
}

/** MADT: a header of 44 bytes, then entries that begin with their type and length. */
function readMadt(table: u32, bytes: u32): void {
  let at: u32 = 44;
  while (at + 2 <= bytes) {
    const length = machine.mmioRead8(table + at + 1);
    if (length < 2 || at + length > bytes) return;
    readMadtEntry(table + at, machine.mmioRead8(table + at), length);
    at += length;
  }
}

function readMadtEntry(entry: u32, type: u32, length: u32): void {
  if (type == MADT_LOCAL_APIC && length >= 8) {
    if (machine.mmioRead32(entry + 4) & 1) addCpu(machine.mmioRead8(entry + 3));
  } else if (type == MADT_LOCAL_X2APIC && length >= 16) {
    if (machine.mmioRead32(entry + 8) & 1) addCpu(machine.mmioRead32(entry + 4));
  } else if (type == MADT_IO_APIC && length >= 12) {
    if (ioApic == 0) ioApic = <u64>machine.mmioRead32(entry + 4);
  } else if (type == MADT_OVERRIDE && length >= 10) {
    const isConsole = machine.mmioRead8(entry + 3) == CONSOLE_IRQ;
    if (isConsole) consoleLine = machine.mmioRead32(entry + 4);
  }
}

function addCpu(apicId: u32): void {
  if (cpuCount == CPUS_MAX || apicId > 0xff) {
    cpusIgnored++;
    return;
  }
  unchecked((apicIds[cpuCount] = apicId));
  cpuCount++;
}

/** MCFG: a header of 44 bytes, then entries of 16: base, segment, first bus, last bus. */
function readMcfg(table: u32, bytes: u32): void {
  for (let at: u32 = 44; at + 16 <= bytes; at += 16) {
    const segment = machine.mmioRead16(table + at + 8);
    const firstBus = machine.mmioRead8(table + at + 10);
    if (segment == 0 && firstBus == 0) ecamBase = read64(table + at);
  }
}

/** FADT (§5.2.9): only to find the DSDT, at offset 40. */
function readFadt(table: u32, bytes: u32): void {
  if (bytes < 44 || ecamBase != 0) return;
  const dsdt = mapTable(<u64>machine.mmioRead32(table + 40));
  if (dsdt != 0) findConfigBase(dsdt, machine.mmioRead32(dsdt + 4));
}

/** "_CBA", and the bytecodes of `Return (constant)`. */
const CONFIG_BASE: u32 = 0x4142435f;
const AML_RETURN: u32 = 0xa4;
const AML_DWORD: u32 = 0x0c;
const AML_QWORD: u32 = 0x0e;

/**
 * Where there is no MCFG, a host bridge names its ECAM region in a method that returns a constant:
 * the name, a byte of flags, the return, the constant. Anything else takes an interpreter.
 */
function findConfigBase(dsdt: u32, bytes: u32): void {
  for (let at = HEADER_BYTES; at + 15 <= bytes; at++) {
    if (machine.mmioRead8(dsdt + at) != (CONFIG_BASE & 0xff)) continue;
    if (machine.mmioRead32(dsdt + at) != CONFIG_BASE) continue;
    if (machine.mmioRead8(dsdt + at + 5) != AML_RETURN) continue;
    const kind = machine.mmioRead8(dsdt + at + 6);
    if (kind == AML_DWORD) ecamBase = <u64>machine.mmioRead32(dsdt + at + 7);
    else if (kind == AML_QWORD) ecamBase = read64(dsdt + at + 7);
    if (ecamBase != 0) return;
  }
}
