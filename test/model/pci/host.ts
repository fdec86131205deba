// The PCI host bridge: leads accesses to configuration space, by ECAM or by ports 0xcf8 and 0xcfc,
// to the functions that exist, and other ports to who answers to them. Owned by Machine.

import type { Violations } from "../errors";
import { ECAM_BASE } from "../machine/acpi";
import type { Region, Width } from "../machine/bus";
import type { ConfigSpace } from "./config-space";
import { HOTPLUG_BYTES, HOTPLUG_PORTS, type HotplugPorts } from "./hotplug-ports";

const ADDRESS_PORT = 0xcf8;
const DATA_PORT = 0xcfc;
const ENABLE = 0x8000_0000;
const NOTHING = 0xffff_ffff;

/** Ports that the guest may touch although nothing answers there. */
function isHotplugPort(port: number): boolean {
  const { pc, q35 } = HOTPLUG_PORTS;
  return [pc, q35].some((base) => port >= base && port < base + HOTPLUG_BYTES);
}

export class PciHost implements Region {
  readonly name = "ecam";
  readonly base = ECAM_BASE;
  readonly bytes = 256 << 20;
  /** By bus << 8 | device << 3 | function. */
  private readonly functions = new Map<number, ConfigSpace>();
  private address = 0;
  /** ACPI's registers for hot-plug, on a machine that has them. */
  hotplug: HotplugPorts | undefined;

  constructor(private readonly violations: Violations) {}

  add(bdf: number, config: ConfigSpace): void {
    this.functions.set(bdf, config);
  }

  has(bdf: number): boolean {
    return this.functions.has(bdf);
  }

  /** The function leaves: from here on nothing answers in its place. */
  remove(bdf: number): void {
    this.functions.delete(bdf);
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
    if (this.hotplug?.has(port)) return this.hotplug.read(port);
    if (isHotplugPort(port)) return NOTHING;
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
    if (this.hotplug?.has(port)) {
      this.hotplug.write(port, value);
      return;
    }
    if (isHotplugPort(port)) return;
    if (port !== DATA_PORT) this.violations.add(`write to port 0x${port.toString(16)}`);
    const bdf = (this.address >>> 8) & 0xffff;
    if (this.address >= ENABLE) this.functions.get(bdf)?.write(this.address & 0xfc, 4, value);
  }
}
