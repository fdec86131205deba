/**
 * PCI hot-plug through the registers that QEMU's machines describe in ACPI: on pc for the slots of
 * bus 0, on q35 for those behind bridges, unless it was told to leave that to the ports. The real
 * way to them is the DSDT's bytecode; here they are known by the host bridge. kernel/hotplug.ts
 * looks at them about once a second instead of taking the system control interrupt. QEMU,
 * docs/specs/acpi_pci_hotplug
 *
 *   4 slots that are asked for | 8 eject | 16 which bus counts, by a number of its own
 */
import * as machine from "../../kernel/machine";
import * as config from "./config-space";

const HOST_BRIDGE_PC: u32 = 0x12378086;
const HOST_BRIDGE_Q35: u32 = 0x29c08086;
const REGISTERS_PC: u32 = 0xae00;
const REGISTERS_Q35: u32 = 0x0cc0;
const ASKED: u32 = 4;
const EJECT: u32 = 8;
const SELECT: u32 = 16;

/** Buses that are looked at: more have no numbers that we reach. */
export const BUSES: u32 = 8;

let registers: u32 = 0;

/** Finds out whether this machine has them. True: bus 0 is theirs, and its number is 0. */
export function prepare(): bool {
  const bridge = config.read32(0, 0);
  if (bridge == HOST_BRIDGE_PC) registers = REGISTERS_PC;
  else if (bridge == HOST_BRIDGE_Q35) registers = REGISTERS_Q35;
  return bridge == HOST_BRIDGE_PC;
}

/** A bit for each slot of a bus that somebody asks for. */
export function asked(bus: u32): u32 {
  if (registers == 0) return 0;
  machine.portWrite32(registers + SELECT, bus);
  const slots = machine.portRead32(registers + ASKED);
  // All ones: there are no such registers.
  return slots == u32.MAX_VALUE ? 0 : slots;
}

/** Lets the slots of a bus be taken whose bits are set. */
export function eject(bus: u32, slots: u32): void {
  machine.portWrite32(registers + SELECT, bus);
  machine.portWrite32(registers + EJECT, slots);
}
