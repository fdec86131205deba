// What a test can require of the machine by name, and whether this machine has it. Asked by the
// suite before each test; what the lab has is said here too.

import { existsSync } from "node:fs";
import { DPDK_DAEMON } from "../backends/ovs-switch";
import { findProgram } from "../processes";

/**
 * `vhost-net`: taps with the kernel's vhost. `ovs-kernel`: Open vSwitch with the kernel's datapath.
 * `ovs-dpdk`: Open vSwitch with DPDK's, which wants no module but processor time. `libvirt`:
 * libvirtd and virsh, to be run as root. `pktgen`: the kernel's packet generator.
 */
export type Requirement = "vhost-net" | "ovs-dpdk" | "ovs-kernel" | "libvirt" | "pktgen";

export interface Missing {
  /** A sentence for people. */
  readonly reason: string;
  readonly labHasIt: boolean;
}

const inKernel = (path: string, module: string): Missing | undefined => {
  if (process.getuid?.() !== 0) return { reason: "needs root", labHasIt: true };
  if (existsSync(path)) return undefined;
  return { reason: `needs ${path} (modprobe ${module})`, labHasIt: true };
};

const program = (name: string, apt: string): Missing | undefined =>
  findProgram(name) === undefined
    ? { reason: `needs ${name} (apt install ${apt})`, labHasIt: false }
    : undefined;

const root = (): Missing | undefined =>
  process.getuid?.() === 0 ? undefined : { reason: "needs root", labHasIt: false };

const CHECKS: Record<Requirement, () => Missing | undefined> = {
  "vhost-net": () => program("ip", "iproute2") ?? inKernel("/dev/vhost-net", "vhost_net"),
  "ovs-kernel": () =>
    program("ovs-vswitchd", "openvswitch-switch") ??
    inKernel("/sys/module/openvswitch", "openvswitch"),
  "ovs-dpdk": () =>
    program("ip", "iproute2") ?? program(DPDK_DAEMON, "openvswitch-switch-dpdk") ?? root(),
  libvirt: () =>
    program("libvirtd", "libvirt-daemon-system") ?? program("virsh", "libvirt-clients") ?? root(),
  pktgen: () => inKernel("/proc/net/pktgen", "pktgen"),
};

/** The first thing of `requirements` that this machine lacks; what no lab can give comes first. */
export function whatIsMissing(requirements: readonly Requirement[]): Missing | undefined {
  const missing = requirements.flatMap((requirement) => CHECKS[requirement]() ?? []);
  return missing.find(({ labHasIt }) => !labHasIt) ?? missing[0];
}
