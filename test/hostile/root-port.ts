// A PCI Express root port with a hot-plug slot, as far as a guest sees it: a bridge to bus 1 whose slot
// registers say who asks, what is there and whether it has power. For cases in which NICs come and
// go. PCI Express Base 5.0 §7.5.3.9 to §7.5.3.11

import type { Violations } from "../model/errors";
import { ConfigSpace } from "../model/pci/config-space";

const VENDOR = 0x1b36;
const DEVICE = 0x000c;
const HEADER_TYPE = 0x0e;
const BRIDGE = 1;
const SECONDARY_BUS = 0x19;
const CAPABILITY_EXPRESS = 0x10;
const SLOT_IMPLEMENTED = 0x0100;
const HOTPLUG_CAPABLE = 0x40;
/** From the capability's beginning, whose first two bytes are its id and the link. */
const CAPABILITIES = 0x02;
const SLOT_CAPABILITIES = 0x14;
const SLOT_CONTROL = 0x18;
const SLOT_STATUS = 0x1a;
const BODY_BYTES = 0x1a;

/** Slot status: events, which are cleared by writing ones, and what is there. */
export const SLOT = { attention: 0x0001, presenceChanged: 0x0008, present: 0x0040 } as const;
const EVENTS = SLOT.attention | SLOT.presenceChanged | 0x0100;

/** The bus behind the port. */
export const PORT_BUS = 1;

export class RootPort {
  readonly space: ConfigSpace;
  private readonly at: number;

  constructor(violations: Violations) {
    const space = new ConfigSpace("root-port", VENDOR, DEVICE, violations);
    space.bytes[HEADER_TYPE] = BRIDGE;
    space.bytes[SECONDARY_BUS] = PORT_BUS;
    const body = Buffer.alloc(BODY_BYTES);
    body.writeUInt16LE(SLOT_IMPLEMENTED, CAPABILITIES - 2);
    body.writeUInt32LE(HOTPLUG_CAPABLE, SLOT_CAPABILITIES - 2);
    this.at = space.addCapability(CAPABILITY_EXPRESS, body);
    this.space = space;
    const write = space.write.bind(space);
    space.write = (offset, width, value) => {
      if (offset === this.at + SLOT_CONTROL && width === 4) this.writeSlot(value);
      else write(offset, width, value);
    };
  }

  private writeSlot(value: number): void {
    this.control = value & 0xffff;
    this.status &= ~((value >>> 16) & EVENTS);
  }

  get status(): number {
    return this.space.bytes.readUInt16LE(this.at + SLOT_STATUS);
  }

  set status(value: number) {
    this.space.bytes.writeUInt16LE(value & 0xffff, this.at + SLOT_STATUS);
  }

  set control(value: number) {
    this.space.bytes.writeUInt16LE(value, this.at + SLOT_CONTROL);
  }
}
