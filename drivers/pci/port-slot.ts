/**
 * The slot behind a PCI Express root port, driven as PCI Express Base 5.0 §6.7 and §7.5.3.9 to
 * §7.5.3.11 describe native hot-plug. kernel/hotplug.ts looks at it about once a second instead of
 * taking its interrupts.
 *
 * The PCI Express capability:  2 capabilities 2 | 0x14 slot capabilities 4 | 0x18 slot control 2 |
 *                              0x1a slot status 2, whose events are cleared by writing ones
 */
import * as config from "./config-space";
import { PciFunction } from "./function";

const CAPABILITY_EXPRESS: u32 = 0x10;
const SLOT_IMPLEMENTED: u32 = 0x0100;
const SLOT_CAPABILITIES: u32 = 0x14;
const SLOT_CONTROL: u32 = 0x18;
const SLOT_HOTPLUG_CAPABLE: u32 = 0x40;

const POWER_INDICATOR: u32 = 0x0300;
const POWER_INDICATOR_ON: u32 = 0x0100;
const POWER_INDICATOR_OFF: u32 = 0x0300;
const POWER_OFF: u32 = 0x0400;

const ATTENTION_PRESSED: u32 = 0x0001 << 16;
const PRESENCE_CHANGED: u32 = 0x0008 << 16;
const LINK_CHANGED: u32 = 0x0100 << 16;
const EVENTS: u32 = ATTENTION_PRESSED | PRESENCE_CHANGED | LINK_CHANGED;
const PRESENT: u32 = 0x0040 << 16;

export class PortSlot {
  private readonly bdf: u32;
  /** Where slot control and status are; 0: there is no slot, or none for hot-plug. */
  private readonly registers: u32;

  /** `port`: the bridge that leads to the function. At boot only. */
  constructor(port: PciFunction) {
    const capability = port.findCapability(CAPABILITY_EXPRESS, 0);
    const hasSlot = capability != 0 && (port.read16(capability + 2) & SLOT_IMPLEMENTED) != 0;
    const can =
      hasSlot && (port.read32(capability + SLOT_CAPABILITIES) & SLOT_HOTPLUG_CAPABLE) != 0;
    this.bdf = port.bdf;
    this.registers = can ? capability + SLOT_CONTROL : 0;
  }

  /** Whether somebody asked, since the last call, for what is in the slot. */
  wasAsked(): bool {
    if (this.registers == 0) return false;
    const both = config.read32(this.bdf, this.registers);
    if (both == u32.MAX_VALUE || (both & EVENTS) == 0) return false;
    config.write32(this.bdf, this.registers, (both & 0xffff) | (both & EVENTS));
    return (both & ATTENTION_PRESSED) != 0;
  }

  /** What is in the slot, and was asked for, may be taken: nobody uses it any more. */
  powerOff(): void {
    this.control(POWER_INDICATOR_OFF | POWER_OFF);
  }

  /** Turns on what was put in; it takes a while to answer. */
  powerOn(): void {
    if (this.registers == 0) return;
    const both = config.read32(this.bdf, this.registers);
    if (both == u32.MAX_VALUE || !(both & PRESENT) || !(both & POWER_OFF)) return;
    this.control(POWER_INDICATOR_ON);
  }

  private control(bits: u32): void {
    const now = config.read32(this.bdf, this.registers) & 0xffff;
    // The status in the upper half stays as it is where zeros are written.
    config.write32(this.bdf, this.registers, (now & ~(POWER_INDICATOR | POWER_OFF)) | bits);
  }
}
