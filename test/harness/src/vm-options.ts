// The options of a VM and QEMU's command line made from them. Used by the VM; pure, so that it can
// be tested without QEMU.

import { type Backend, type DeviceOptions, formatOptions } from "./backends/backend";

export type Machine = "q35" | "pc" | "microvm";
export type Accelerator = "tcg" | "kvm";

export const MACHINES: readonly Machine[] = ["q35", "pc", "microvm"];

export interface NicOptions {
  readonly backend: Backend;
  /** QEMU's device; `virtio-net-pci` unless given. */
  readonly model?: string;
  /** Properties of the device: mac, host_mtu, rx_queue_size, mrg_rxbuf, … */
  readonly options?: DeviceOptions;
}

export interface VmOptions {
  /** Path of the ELF image; QEMU_TEST_IMAGE or build/vireo.elf unless given. */
  readonly image?: string;
  readonly machine?: Machine;
  /** `tcg` unless given; `auto` takes KVM where a probe has shown that it works. */
  readonly accelerator?: Accelerator | "auto";
  readonly cpus?: number;
  /** Guest memory in MiB; 64 unless given. */
  readonly memoryMib?: number;
  /** The guest's command line: key=value words. */
  readonly append?: string;
  readonly nics?: readonly NicOptions[];
  /** QEMU devices that the cards are behind, such as `pcie-root-port,id=port0`. */
  readonly ports?: readonly string[];
  /** Further QEMU arguments. */
  readonly extraArguments?: readonly string[];
  /** Lines that QEMU may write on its standard error; any other fails the VM. */
  readonly stderrAllowed?: readonly RegExp[];
  /**
   * Messages of `error` events that the guest may report without failing the VM, for a test that
   * judges them itself.
   */
  readonly errorsAllowed?: readonly RegExp[];
  /** Fails the VM when the console is silent for so many milliseconds; no limit unless given. */
  readonly noOutputMs?: number;
}

const DEFAULT_MEMORY_MIB = 64;

/** The image a VM boots when its options name none. */
export function defaultImage(): string {
  return process.env.QEMU_TEST_IMAGE ?? "build/vireo.elf";
}

/** The whole command, beginning with the backends' wrappers and QEMU's path. */
export function commandLine(
  qemuPath: string,
  accelerator: Accelerator,
  qmpPath: string,
  options: VmOptions,
): string[] {
  const nics = options.nics ?? [];
  const shared = nics.some((nic) => nic.backend.sharedMemory === true);
  const memoryMib = options.memoryMib ?? DEFAULT_MEMORY_MIB;
  return [
    ...nics.flatMap((nic) => nic.backend.wrapper ?? []),
    qemuPath,
    ...["-M", machineArgument(options.machine ?? "q35", shared)],
    ...["-accel", accelerator],
    // Some hosts' KVM refuses the architecture capabilities that `host` alone would pass on.
    ...["-cpu", accelerator === "kvm" ? "host,arch-capabilities=off" : "max"],
    ...["-smp", String(options.cpus ?? 1), "-m", String(memoryMib)],
    ...(shared ? ["-object", `memory-backend-memfd,id=memory,size=${memoryMib}M,share=on`] : []),
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"],
    ...["-chardev", `socket,id=qmp,path=${qmpPath}`, "-mon", "chardev=qmp,mode=control"],
    ...["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"],
    ...(options.ports ?? []).flatMap((port) => ["-device", port]),
    ...nics.flatMap(nicArguments),
    ...(options.extraArguments ?? []),
    ...["-kernel", options.image ?? defaultImage()],
    ...(options.append === undefined ? [] : ["-append", options.append]),
  ];
}

function machineArgument(machine: Machine, shared: boolean): string {
  const base = machine === "microvm" ? "microvm,pcie=on" : machine;
  return shared ? `${base},memory-backend=memory` : base;
}

function nicArguments(nic: NicOptions, index: number): string[] {
  const id = `net${index}`;
  // An empty romfile: no network boot code runs before the guest.
  const properties = { romfile: "", ...nic.backend.deviceOptions, ...nic.options };
  const device = `${nic.model ?? "virtio-net-pci"},netdev=${id}${formatOptions(properties)}`;
  return [...nic.backend.netdev(id), "-device", device];
}

/** The command as one line that a shell understands. */
export function printable(command: readonly string[]): string {
  return command
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(" ");
}
