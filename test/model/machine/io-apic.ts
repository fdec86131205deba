// The I/O APIC, as far as the console needs it: a select and a window register, and a redirection
// entry for each of 24 inputs. Owned by Machine.
//
//   0x00 select | 0x10 window      entry: low word vector, bit 16 masked; high word bits 24.. APIC

import type { Violations } from "../errors";
import { IO_APIC_BASE } from "./acpi";
import type { Region, Width } from "./bus";

const SELECT = 0x00;
const WINDOW = 0x10;
const FIRST_ENTRY = 0x10;
const INPUTS = 24;
const MASKED = 0x10000;

export class IoApic implements Region {
  readonly name = "ioapic";
  readonly base = IO_APIC_BASE;
  readonly bytes = 0x1000;
  private selected = 0;
  private readonly entries = new Uint32Array(2 * INPUTS);

  constructor(
    private readonly deliver: (apicId: number, vector: number) => void,
    private readonly violations: Violations,
  ) {
    for (let input = 0; input < INPUTS; input++) this.entries[2 * input] = MASKED;
  }

  /** An edge on an input: an interrupt, if the guest has routed it. */
  raise(input: number): void {
    const low = this.entries[2 * input] ?? MASKED;
    const high = this.entries[2 * input + 1] ?? 0;
    if ((low & MASKED) === 0) this.deliver(high >>> 24, low & 0xff);
  }

  read(offset: number): number {
    if (offset === SELECT) return this.selected;
    return this.entries[this.selected - FIRST_ENTRY] ?? 0;
  }

  write(offset: number, width: Width, value: number): void {
    if (width !== 4) this.violations.add(`ioapic: ${8 * width}-bit write`);
    if (offset === SELECT) this.selected = value & 0xff;
    else if (offset === WINDOW) this.entries[this.selected - FIRST_ENTRY] = value;
    else this.violations.add(`ioapic: write to register 0x${offset.toString(16)}`);
  }
}
