/**
 * MSI-X (PCI 3.0 §6.8.2): a table of messages in a BAR, one an event source. Used by drivers/net/
 * through drivers/virtio/.
 *
 * An entry of the table:
 *
 *   0 address low | 4 address high | 8 data | 12 control: bit 0 masks the entry | 16
 */
import * as machine from "../../kernel/machine";
import { PciFunction } from "./function";

const CAPABILITY_MSIX: u32 = 0x11;
const CONTROL_ENABLE: u32 = 0x8000;
const CONTROL_MASK_ALL: u32 = 0x4000;
const CONTROL_SIZE: u32 = 0x07ff;
const ENTRY_BYTES: u32 = 16;
const ENTRY_MASKED: u32 = 1;

export class Msix {
  /** Entries of the table; 0: the function has no usable MSI-X. virtio 1.4 §4.1.5.1.2 */
  entries: u32 = 0;
  private pci: PciFunction;
  private capability: u32 = 0;
  private table: u32 = 0;

  constructor(pci: PciFunction) {
    this.pci = pci;
    this.find();
  }

  /** Looks for the capability, again after the function was plugged in anew. */
  find(): void {
    this.entries = 0;
    const capability = this.pci.findCapability(CAPABILITY_MSIX, 0);
    if (capability != 0) this.read(capability);
  }

  private read(capability: u32): void {
    const pci = this.pci;
    const entries = (pci.read16(capability + 2) & CONTROL_SIZE) + 1;
    const place = pci.read32(capability + 4);
    const mapped = pci.mapBar(place & 7, place & ~(<u32>7), entries * ENTRY_BYTES);
    if (mapped == 0) return;
    this.capability = capability;
    this.table = mapped - 1;
    this.entries = entries;
  }

  /** Turns MSI-X on with every entry masked, and INTx off with it. */
  enable(): void {
    this.control(CONTROL_ENABLE | CONTROL_MASK_ALL);
    for (let i: u32 = 0; i < this.entries; i++) {
      machine.mmioWrite32(this.table + i * ENTRY_BYTES + 12, ENTRY_MASKED);
    }
    this.control(CONTROL_ENABLE);
  }

  /** Makes entry `index`, below `entries`, send `data` to `address`, and unmasks it. */
  set(index: u32, address: u32, data: u32): void {
    const entry = this.table + index * ENTRY_BYTES;
    machine.mmioWrite32(entry + 12, ENTRY_MASKED);
    machine.mmioWrite32(entry, address);
    machine.mmioWrite32(entry + 4, 0);
    machine.mmioWrite32(entry + 8, data);
    machine.mmioWrite32(entry + 12, 0);
  }

  /** The control word is the upper half of a register whose lower half cannot be written. */
  private control(bits: u32): void {
    this.pci.write32(this.capability, bits << 16);
  }
}
