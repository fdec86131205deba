/**
 * The guests whose round trips, boot and memory are compared: ours and a Linux guest, started with
 * the same QEMU options but for what is loaded. Used by bench-latency.ts and bench-boot.ts.
 */
import { findQemu } from "../test/harness/src/qemu";
import { buildLinux, linuxUnavailable } from "./bench-linux";

export const GUEST_IP = "192.0.2.2";
const IMAGE = "build/vireo.elf";
const VIREO_MEMORY_MIB = 64;
const LINUX_MEMORY_MIB = 256;

export interface Guest {
  readonly id: string;
  readonly name: string;
  readonly memoryMib: number;
  readonly files: readonly string[];
  readonly load: readonly string[];
  /** Why it cannot run, or undefined; builds what it needs. */
  unavailable(): Promise<string | undefined>;
}

/** The image with app=echo and a mode of its own. */
export function vireoGuest(mode: "adaptive" | "poll"): Guest {
  return {
    id: `vireo-${mode}`,
    name: `vireo, ${mode}`,
    memoryMib: VIREO_MEMORY_MIB,
    files: [IMAGE],
    load: ["-kernel", IMAGE, "-append", `app=echo ip=${GUEST_IP}/24 mode=${mode}`],
    unavailable: async () => undefined,
  };
}

/** Debian's kernel with a UDP echo service and nothing else. */
export function linuxGuest(): Guest {
  const { kernel, initramfs } = buildLinux.files;
  const append = "console=ttyS0 quiet mitigations=off panic=-1 bench=echo";
  return {
    id: "linux",
    name: "Linux guest",
    memoryMib: LINUX_MEMORY_MIB,
    files: [kernel, initramfs],
    load: ["-kernel", kernel, "-initrd", initramfs, "-append", append],
    unavailable: async () => {
      const reason = linuxUnavailable();
      if (reason === undefined) await buildLinux();
      return reason;
    },
  };
}

/** QEMU with one vCPU and one NIC; `netdev` has the id n0. */
export function guestCommand(
  guest: Guest,
  machine: string,
  netdev: readonly string[],
  memoryMib: number = guest.memoryMib,
): string[] {
  return [
    ...[findQemu().path, "-name", "guest,debug-threads=on", "-M", machine, "-accel", "tcg"],
    ...["-cpu", "max", "-m", String(memoryMib), "-nodefaults", "-no-user-config"],
    ...["-display", "none", "-no-reboot", "-serial", "stdio"],
    ...["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"],
    ...[...netdev, "-device", "virtio-net-pci,netdev=n0,romfile=", ...guest.load],
  ];
}
