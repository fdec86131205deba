/**
 * Who takes part in `make bench`: the command of each contender for a case, or the reason why this
 * machine cannot run it. Used by bench-run.ts.
 *
 * All guests get the same machine and the same device (same features, ring sizes and memory), so
 * that only the driver differs.
 */
import { chooseAccelerator } from "../test/harness/src/accelerator";
import { findProgram } from "../test/harness/src/processes";
import { findQemu, vhostUserUnavailable } from "../test/harness/src/qemu";
import { uniqueName } from "../test/harness/src/run-scope";
import { segmentWords } from "./bench-backend";
import { type Case, isForward, isInOrder, isPacked } from "./bench-cases";
import { buildLinux, LINUX_MODULES_MEMORY_MIB, linuxUnavailable } from "./bench-linux";
import { BARE_GUEST, buildBareGuest } from "./bench-peers";

export const GUEST_MAC = "52:54:00:12:34:56";
const GUEST_MACS = [GUEST_MAC, "52:54:00:12:34:57"];
const RING_ENTRIES = 256;
const GUEST_MEMORY_MIB = 64;
const PROCESS_MEMORY_MIB = 32;
const DPDK_MEMORY_MIB = 128;
const IMAGE = "build/vireo.elf";
const PROCESS = "build/vireo-process";
/** Data in each piece of a frame that the device cuts; that of app=source. */
const MSS = 1448;
const OFFLOADS = [
  ...["guest_csum", "guest_tso4", "guest_tso6", "guest_ecn"],
  ...["csum", "host_tso4", "host_tso6", "host_ecn"],
];

export interface Context {
  /** One for each NIC. */
  readonly socketPaths: readonly string[];
  readonly cpu: number;
  readonly hugepages: boolean;
}

export interface Contender {
  readonly id: string;
  readonly name: string;
  /** True where it is our driver, whose own counters belong into the table. */
  readonly ours: boolean;
  /** Why it cannot run here, or undefined. */
  unavailable(): Promise<string | undefined>;
  /** Why it has nothing to say about this case, or undefined. */
  declines(what: Case): string | undefined;
  /** Builds what it needs; may take long the first time. */
  prepare(): Promise<void>;
  command(what: Case, context: Context): string[];
  readonly startTimeoutMs: number;
  /** MiB of memory that it takes at once, in large pages where there are some. */
  readonly memoryMib: number;
}

type Accelerator = "tcg" | "kvm";

async function acceleratorUnavailable(accelerator: Accelerator): Promise<string | undefined> {
  const old = vhostUserUnavailable(findQemu());
  if (old !== undefined || accelerator === "tcg") return old;
  const choice = await chooseAccelerator(IMAGE);
  return choice.accelerator === "kvm" ? undefined : choice.reason;
}

/**
 * Features that are off for all: what is compared is the way of a frame, not who has offloads. A
 * backend looks into the header of each frame of a driver that takes those for sending.
 */
function featuresOff({ merged, large }: Case): string[] {
  return [...(merged ? [] : ["mrg_rxbuf"]), ...(large ? [] : OFFLOADS)];
}

function device(what: Case, nic: number): string {
  const properties = [
    `mac=${GUEST_MACS[nic]},romfile=,rx_queue_size=${RING_ENTRIES},tx_queue_size=${RING_ENTRIES}`,
    ...featuresOff(what).map((name) => `${name}=off`),
    "guest_ufo=off",
    ...(isPacked(what.ring) ? ["packed=on"] : []),
    ...(isInOrder(what.ring) ? ["in_order=on"] : []),
  ];
  return `virtio-net-pci,netdev=n${nic},${properties.join(",")}`;
}

function qemu(
  accelerator: Accelerator,
  what: Case,
  { socketPaths, cpu, hugepages }: Context,
  memoryMib: number,
  rest: readonly string[],
): string[] {
  const pages = hugepages ? ",hugetlb=on,hugetlbsize=2M,prealloc=on" : "";
  const nics = socketPaths.flatMap((path, nic) => [
    ...["-chardev", `socket,id=c${nic},path=${path}`],
    ...["-netdev", `vhost-user,id=n${nic},chardev=c${nic}`, "-device", device(what, nic)],
  ]);
  return [
    ...["taskset", "-c", String(cpu), findQemu().path, "-accel", accelerator],
    ...["-cpu", accelerator === "kvm" ? "host,arch-capabilities=off" : "max"],
    ...["-M", "q35,memory-backend=memory", "-m", String(memoryMib)],
    ...["-object", `memory-backend-memfd,id=memory,size=${memoryMib}M,share=on${pages}`],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
    ...["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", ...nics, ...rest],
  ];
}

function appWords(what: Case): string[] {
  const { direction, frameBytes, large, ring } = what;
  const common = ["mode=poll", `ring=${isPacked(ring) ? "packed" : "split"}`];
  if (isForward(what)) return ["app=forward", ...common];
  // A sink with an address would look into every frame for ARP; testpmd looks into none.
  if (direction === "rx") return ["app=sink", ...common];
  const frames = large ? ["gso=tcp4", `mss=${MSS}`] : [];
  const to = ["dst=02:00:00:00:00:01", "dstip=192.0.2.1", `size=${frameBytes}`];
  return ["app=source", ...common, "ip=192.0.2.2/24", ...to, ...frames];
}

function vireoGuest(accelerator: Accelerator): Contender {
  return {
    id: `vireo-${accelerator}`,
    name: `vireo guest (${accelerator.toUpperCase()})`,
    ours: true,
    startTimeoutMs: 30_000,
    memoryMib: GUEST_MEMORY_MIB,
    unavailable: () => acceleratorUnavailable(accelerator),
    declines: () => undefined,
    prepare: async () => undefined,
    command: (what, context) =>
      qemu(accelerator, what, context, GUEST_MEMORY_MIB, [
        ...["-kernel", IMAGE, "-append", appWords(what).join(" ")],
      ]),
  };
}

function bareGuest(accelerator: Accelerator): Contender {
  return {
    id: `bare-${accelerator}`,
    name: `bare C guest (${accelerator.toUpperCase()})`,
    ours: false,
    startTimeoutMs: 30_000,
    memoryMib: GUEST_MEMORY_MIB,
    unavailable: () => acceleratorUnavailable(accelerator),
    declines: (what) => {
      if (isForward(what)) return "it has one NIC";
      return what.group === "formats" ? undefined : "it knows 64 bytes only";
    },
    prepare: async () => {
      await buildBareGuest();
    },
    command: (what, context) =>
      qemu(accelerator, what, context, GUEST_MEMORY_MIB, [
        ...["-kernel", BARE_GUEST, "-append", `${what.direction} ${what.ring}`],
      ]),
  };
}

const vireoProcess: Contender = {
  id: "vireo-process",
  name: "vireo process",
  ours: true,
  startTimeoutMs: 30_000,
  memoryMib: PROCESS_MEMORY_MIB,
  unavailable: async () => undefined,
  declines: () => undefined,
  prepare: async () => undefined,
  command: (what, { socketPaths, cpu, hugepages }) => {
    const off = [...featuresOff(what), ...(isInOrder(what.ring) ? [] : ["in_order"])];
    return [
      ...[PROCESS, "--cpu", String(cpu), ...socketPaths.flatMap((path) => ["--socket", path])],
      ...["--queue-size", String(RING_ENTRIES), "--hugepages", hugepages ? "required" : "off"],
      ...["--memory", String(PROCESS_MEMORY_MIB), ...appWords(what)],
      ...(off.length > 0 ? [`features=${off.map((name) => `-${name}`).join(",")}`] : []),
    ];
  },
};

const FORWARD_MODES = { tx: "txonly", rx: "rxonly", forward: "io", "forward-both": "io" };

/** DPDK takes its vectorised paths only under these conditions, and says nothing otherwise. */
function vectorDeclines({ ring, merged }: Case): string | undefined {
  if (merged) return "DPDK's vectorised paths have no merged buffers";
  if (ring === "packed") return "DPDK's vectorised packed ring is for in-order devices";
  if (ring === "split-in-order") return "DPDK's vectorised split ring is not for in-order devices";
  return undefined;
}

function virtioUser(vectorized: boolean): Contender {
  return {
    id: vectorized ? "virtio-user-vector" : "virtio-user",
    name: vectorized ? "DPDK virtio-user, vectorised" : "DPDK virtio-user",
    ours: false,
    startTimeoutMs: 30_000,
    memoryMib: DPDK_MEMORY_MIB,
    unavailable: async () =>
      findProgram("dpdk-testpmd") === undefined ? "needs dpdk-testpmd (dpdk-dev)" : undefined,
    declines: (what) => (vectorized ? vectorDeclines(what) : undefined),
    prepare: async () => undefined,
    command: (what, { socketPaths, cpu, hugepages }) => {
      const options = [
        `queue_size=${RING_ENTRIES},mrg_rxbuf=${what.merged ? 1 : 0}`,
        `packed_vq=${isPacked(what.ring) ? 1 : 0},in_order=${isInOrder(what.ring) ? 1 : 0}`,
        ...(vectorized ? ["vectorized=1"] : []),
      ].join(",");
      const users = socketPaths.flatMap((path, nic) => [
        ...["--vdev", `net_virtio_user${nic},path=${path},mac=${GUEST_MACS[nic]},${options}`],
      ]);
      const sends = [...segmentWords(what.frameBytes), "--eth-peer=0,02:00:00:00:00:01"];
      return [
        ...["dpdk-testpmd", "--lcores", `0@${cpu},1@${cpu}`, "-m", String(DPDK_MEMORY_MIB)],
        ...(hugepages ? ["--in-memory"] : ["--no-huge"]),
        ...["--single-file-segments", `--file-prefix=${uniqueName()}`, "--no-pci"],
        ...(vectorized ? ["--force-max-simd-bitwidth=512"] : []),
        ...[...users, "--", "-i", "--auto-start", "--burst=64"],
        ...[`--forward-mode=${FORWARD_MODES[what.direction]}`],
        ...["--total-num-mbufs=16384", `--txd=${RING_ENTRIES}`, `--rxd=${RING_ENTRIES}`],
        ...(what.direction === "tx" ? sends : []),
      ];
    },
  };
}

const linuxGuest: Contender = {
  id: "linux-tcg",
  name: "Linux guest (TCG)",
  ours: false,
  startTimeoutMs: 120_000,
  memoryMib: LINUX_MODULES_MEMORY_MIB,
  unavailable: async () => (await acceleratorUnavailable("tcg")) ?? linuxUnavailable(),
  declines: (what) => {
    if (isForward(what)) return "it is DPDK that forwards in this guest";
    return isInOrder(what.ring) ? "Linux's driver does not take in_order" : undefined;
  },
  prepare: async () => {
    await buildLinux();
  },
  command: (what, context) => {
    const files = buildLinux.files;
    const words = ["console=ttyS0", "quiet", "mitigations=off", "panic=-1"];
    const sends = what.large ? ["bench=gso", `mss=${MSS}`] : ["bench=pktgen"];
    const task =
      what.direction === "tx" ? [...sends, `size=${what.frameBytes}`] : ["bench=receive"];
    return qemu("tcg", what, context, LINUX_MODULES_MEMORY_MIB, [
      ...["-kernel", files.kernel, "-initrd", files.initramfs],
      ...["-append", [...words, ...task].join(" ")],
    ]);
  },
};

const linuxDpdkGuest: Contender = {
  ...linuxGuest,
  id: "linux-dpdk-tcg",
  name: "DPDK testpmd in a Linux guest (TCG)",
  declines: () => undefined,
  command: (what, context) => {
    const { kernel, initramfsDpdk } = buildLinux.files;
    const mode = FORWARD_MODES[what.direction];
    const frames = segmentWords(what.frameBytes)[0]?.replace("--", " ");
    const task = `bench=${mode}${mode === "txonly" ? frames : ""}`;
    const words = `console=ttyS0 quiet mitigations=off panic=-1 hugepages=80 ${task}`;
    return qemu("tcg", what, context, LINUX_MODULES_MEMORY_MIB, [
      ...["-kernel", kernel, "-initrd", initramfsDpdk, "-append", words],
    ]);
  },
};

export const CONTENDERS: readonly Contender[] = [
  bareGuest("tcg"),
  vireoGuest("tcg"),
  bareGuest("kvm"),
  vireoGuest("kvm"),
  vireoProcess,
  virtioUser(false),
  virtioUser(true),
  linuxGuest,
  linuxDpdkGuest,
];
