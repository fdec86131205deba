// The PCI host bridge: leads accesses to configuration space, by ECAM or by ports 0xcf8 and 0xcfc,
// to the functions that exist. Owned by Machine.

import type { Violations } from "../errors";
import { ECAM_BASE } from "../machine/acpi";
import type { Region, Width } from "../machine/bus";
import type { ConfigSpace } from "./config-space";

const ADDRESS_PORT = 0xcf8;
const DATA_PORT = 0xcfc;
const ENABLE = 0x8000_0000;
const NOTHING = 0xffff_ffff;

export class PciHost implements Region {
  readonly name = "ecam";
  readonly base = ECAM_BASE;
  readonly bytes = 256 << 20;
  /** By bus << 8 | device << 3 | function. */
  private readonly functions = new Map<number, ConfigSpace>();
  private address = 0;

  constructor(private readonly violations: Violations) {}

  add(bdf: number, config: ConfigSpace): void {
    this.functions.set(bdf, config);
  }

  read(offset: number, width: Width): number {
    const config = this.functions.get(offset >>> 12);
    return config?.read(offset & 0xfff, width) ?? NOTHING >>> (32 - 8 * width);
  }

  write(offset: number, width: Width, value: number): void {
    this.functions.get(offset >>> 12)?.write(offset & 0xfff, width, value);
  }

  portRead(port: number): number {
    if (port === ADDRESS_PORT) return this.address;
    if (port !== DATA_PORT) this.violations.add(`read of port 0x${port.toString(16)}`);
    const bdf = (this.address >>> 8) & 0xffff;
    if (this.address < ENABLE) return NOTHING;
    return this.functions.get(bdf)?.read(this.address & 0xfc, 4) ?? NOTHING;
  }

  portWrite(port: number, value: number): void {
    if (port === ADDRESS_PORT) {
      this.address = value;
      return;
    }
    if (port !== DATA_PORT) this.violations.add(`write to port 0x${port.toString(16)}`);
    const bdf = (this.address >>> 8) & 0xffff;
    if (this.address >= ENABLE) this.functions.get(bdf)?.write(this.address & 0xfc, 4, value);
  }
}
