// ACPI's registers for PCI hot-plug, as QEMU has them: which slots of a bus are asked for, and what
// lets them be taken. Made by tests; reached through pci/host.ts. QEMU, docs/specs/acpi_pci_hotplug
//
//   0 put in | 4 asked for | 8 eject | 12 removable | 16 which bus counts

/** Where they are on each machine. */
export const HOTPLUG_PORTS = { pc: 0xae00, q35: 0x0cc0 } as const;
export const HOTPLUG_BYTES = 20;
const ASKED = 4;
const EJECT = 8;
const SELECT = 16;

export class HotplugPorts {
  /** By ACPI's number of a bus: a bit for each slot that is asked for. */
  private readonly asked = new Map<number, number>();
  private bus = 0;
  /** Called with each slot that the guest lets be taken. */
  onEject: (bus: number, slot: number) => void = () => undefined;

  /** Called when the guest reads that something is asked for. */
  onSeen: () => void = () => undefined;

  constructor(private readonly base: number) {}

  /** Asks the guest for what is in a slot. */
  ask(bus: number, slot: number): void {
    this.asked.set(bus, (this.asked.get(bus) ?? 0) | (1 << slot));
  }

  has(port: number): boolean {
    return port >= this.base && port < this.base + HOTPLUG_BYTES;
  }

  read(port: number): number {
    if (port - this.base === SELECT) return this.bus;
    if (port - this.base !== ASKED) return 0;
    const slots = this.asked.get(this.bus) ?? 0;
    if (slots !== 0) this.onSeen();
    return slots;
  }

  write(port: number, value: number): void {
    if (port - this.base === SELECT) this.bus = value;
    if (port - this.base !== EJECT) return;
    for (let slot = 0; slot < 32; slot++) {
      if (((value >>> slot) & 1) === 0) continue;
      this.asked.set(this.bus, (this.asked.get(this.bus) ?? 0) & ~(1 << slot));
      this.onEject(this.bus, slot);
    }
  }
}
