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
import type { Case } from "./bench-cases";
import { buildLinux, LINUX_MODULES_MEMORY_MIB, linuxUnavailable } from "./bench-linux";
import { BARE_GUEST, buildBareGuest } from "./bench-peers";

export const GUEST_MAC = "52:54:00:12:34:56";
const RING_ENTRIES = 256;
const GUEST_MEMORY_MIB = 64;
const IMAGE = "build/vireo.elf";
const PROCESS = "build/vireo-process";

export interface Context {
  readonly socketPath: string;
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
}

type Accelerator = "tcg" | "kvm";

async function acceleratorUnavailable(accelerator: Accelerator): Promise<string | undefined> {
  const old = vhostUserUnavailable(findQemu());
  if (old !== undefined || accelerator === "tcg") return old;
  const choice = await chooseAccelerator(IMAGE);
  return choice.accelerator === "kvm" ? undefined : choice.reason;
}

/** Merged buffers and receive offloads are off for all: frames of one buffer are compared. */
const device = (what: Case): string => {
  const off = ["mrg_rxbuf", "guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo"];
  const properties = [
    `mac=${GUEST_MAC},romfile=,rx_queue_size=${RING_ENTRIES},tx_queue_size=${RING_ENTRIES}`,
    ...off.map((name) => `${name}=off`),
    ...(what.ring === "split" ? [] : ["packed=on"]),
    ...(what.ring === "packed-in-order" ? ["in_order=on"] : []),
  ];
  return `virtio-net-pci,netdev=n0,${properties.join(",")}`;
};

function qemu(
  accelerator: Accelerator,
  what: Case,
  { socketPath, cpu, hugepages }: Context,
  memoryMib: number,
  rest: readonly string[],
): string[] {
  const pages = hugepages ? ",hugetlb=on,hugetlbsize=2M,prealloc=on" : "";
  return [
    ...["taskset", "-c", String(cpu), findQemu().path, "-accel", accelerator],
    ...["-cpu", accelerator === "kvm" ? "host,arch-capabilities=off" : "max"],
    ...["-M", "q35,memory-backend=memory", "-m", String(memoryMib)],
    ...["-object", `memory-backend-memfd,id=memory,size=${memoryMib}M,share=on${pages}`],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
    ...["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"],
    ...["-chardev", `socket,id=c0,path=${socketPath}`],
    ...["-netdev", "vhost-user,id=n0,chardev=c0", "-device", device(what)],
    ...rest,
  ];
}

/** Without an address nobody has to look at received frames, as in the other contenders. */
function appWords({ direction, frameBytes, tso, ring }: Case): string[] {
  const common = ["mode=poll", `ring=${ring === "split" ? "split" : "packed"}`];
  if (direction === "rx") return ["app=sink", ...common];
  const frames = tso ? "gso=tcp4" : `size=${frameBytes}`;
  const from = ["app=source", "ip=192.0.2.2/24", "dst=02:00:00:00:00:01", "dstip=192.0.2.1"];
  return [...from, ...common, frames];
}

function vireoGuest(accelerator: Accelerator): Contender {
  return {
    id: `vireo-${accelerator}`,
    name: `vireo guest (${accelerator.toUpperCase()})`,
    ours: true,
    startTimeoutMs: 30_000,
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
    unavailable: () => acceleratorUnavailable(accelerator),
    declines: ({ ring, frameBytes, tso }) =>
      ring === "split" && frameBytes === 60 && !tso
        ? undefined
        : "it knows split and 64 bytes only",
    prepare: async () => {
      await buildBareGuest();
    },
    command: (what, context) =>
      qemu(accelerator, what, context, GUEST_MEMORY_MIB, [
        ...["-kernel", BARE_GUEST, "-append", what.direction],
      ]),
  };
}

const vireoProcess: Contender = {
  id: "vireo-process",
  name: "vireo process",
  ours: true,
  startTimeoutMs: 30_000,
  unavailable: async () => undefined,
  declines: () => undefined,
  prepare: async () => undefined,
  command: (what, { socketPath, cpu, hugepages }) => [
    ...[PROCESS, "--socket", socketPath, "--cpu", String(cpu)],
    ...["--queue-size", String(RING_ENTRIES), "--hugepages", hugepages ? "required" : "off"],
    ...appWords(what),
    "features=-mrg_rxbuf,-guest_csum,-guest_tso4,-guest_tso6,-guest_ecn",
  ],
};

function virtioUser(vectorized: boolean): Contender {
  return {
    id: vectorized ? "virtio-user-vector" : "virtio-user",
    name: vectorized ? "DPDK virtio-user, vectorised" : "DPDK virtio-user",
    ours: false,
    startTimeoutMs: 30_000,
    unavailable: async () =>
      findProgram("dpdk-testpmd") === undefined ? "needs dpdk-testpmd (dpdk-dev)" : undefined,
    declines: ({ tso }) => (tso ? "txonly sends no frames to be cut" : undefined),
    prepare: async () => undefined,
    command: (what, { socketPath, cpu, hugepages }) => {
      const packed = what.ring === "split" ? 0 : 1;
      const inOrder = what.ring === "packed-in-order" ? 1 : 0;
      const user =
        `net_virtio_user0,path=${socketPath},queue_size=${RING_ENTRIES},mac=${GUEST_MAC},` +
        `mrg_rxbuf=0,packed_vq=${packed},in_order=${inOrder}${vectorized ? ",vectorized=1" : ""}`;
      const sends = [`--txpkts=${what.frameBytes}`, "--eth-peer=0,02:00:00:00:00:01"];
      return [
        ...["dpdk-testpmd", "--lcores", `0@${cpu},1@${cpu}`, "-m", "128"],
        ...(hugepages ? ["--in-memory"] : ["--no-huge"]),
        ...["--single-file-segments", `--file-prefix=${uniqueName()}`, "--no-pci"],
        ...(vectorized ? ["--force-max-simd-bitwidth=512"] : []),
        ...["--vdev", user, "--", "-i", "--auto-start", "--burst=64"],
        ...[`--forward-mode=${what.direction === "tx" ? "txonly" : "rxonly"}`],
        ...["--total-num-mbufs=16384", `--txd=${RING_ENTRIES}`, `--rxd=${RING_ENTRIES}`],
        ...(what.direction === "tx" ? sends : []),
      ];
    },
  };
}

const linuxGuest: Contender = {
  id: "linux-tcg",
  name: "Linux guest, pktgen or its counters (TCG)",
  ours: false,
  startTimeoutMs: 120_000,
  unavailable: async () => (await acceleratorUnavailable("tcg")) ?? linuxUnavailable(),
  declines: ({ ring, tso }) => {
    if (tso) return "pktgen sends no frames to be cut";
    return ring === "packed-in-order" ? "Linux's driver does not take in_order" : undefined;
  },
  prepare: async () => {
    await buildLinux();
  },
  command: (what, context) => {
    const files = buildLinux.files;
    const words = ["console=ttyS0", "quiet", "mitigations=off", "panic=-1"];
    const task =
      what.direction === "tx" ? [`bench=pktgen`, `size=${what.frameBytes}`] : ["bench=receive"];
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
  declines: ({ tso }) => (tso ? "txonly sends no frames to be cut" : undefined),
  command: (what, context) => {
    const { kernel, initramfs } = buildLinux.files;
    const task = what.direction === "tx" ? `bench=txonly size=${what.frameBytes}` : "bench=rxonly";
    const words = `console=ttyS0 quiet mitigations=off panic=-1 hugepages=80 ${task}`;
    return qemu("tcg", what, context, LINUX_MODULES_MEMORY_MIB, [
      ...["-kernel", kernel, "-initrd", initramfs, "-append", words],
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
