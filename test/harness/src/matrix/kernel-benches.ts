// The matrix's backends with the Linux kernel as the peer, in a network namespace: taps (moved by
// QEMU, or by the kernel's vhost-net), and DPDK's vhost-user ports, each of which testpmd joins to a
// tap of its own:
//
//   tap, vhost-net    kernel -- v0 -- guest's NIC 0           198.18.0.1, guest 198.18.0.2
//   vhost-user        kernel -- v0 -- testpmd -- guest's NIC 0
//   further cards     kernel -- v1 -- ...                     198.18.1.1, guest 198.18.1.2

import { spawnSync } from "node:child_process";
import { join } from "node:path";
import type { Artifact, Backend } from "../backends/backend";
import { tapUnavailable } from "../backends/tap";
import { Testpmd } from "../backends/testpmd";
import { HarnessError } from "../errors";
import { findProgram, mustRun, runCommand } from "../processes";
import { findQemu, vhostUserUnavailable } from "../qemu";
import { atExit, scratchDirectory, uniqueName } from "../run-scope";
import { whatIsMissing } from "../runner/requirements";
import {
  type Bench,
  type Card,
  DPDK_WINDOW,
  type Exchange,
  type Exchanged,
  type FrameCounts,
} from "./bench";
import type { BackendName, Cell } from "./cells";
import { PeerProcess } from "./peer-process";

const FIRST_PORT = 20_000;
const PORTS_EACH = 1000;
const TESTPMD = "dpdk-testpmd";
const TESTPMD_START_MS = 30_000;
const TESTPMD_MEMORY_MIB = 400;
const POLL_CPU = 1;
const IP_TIMEOUT_MS = 60_000;

/** What QEMU is told about one card; everything else the bench has done before. */
interface Wiring {
  readonly netdev: (id: string) => readonly string[];
  readonly wrapper: readonly string[];
  readonly sharedMemory: boolean;
}

class PreparedBackend implements Backend {
  readonly deviceOptions;

  constructor(
    readonly name: string,
    private readonly wiring: Wiring,
    queues: number,
    private readonly log: () => readonly Artifact[],
  ) {
    this.deviceOptions = queues > 1 ? { mq: true, vectors: 2 * queues + 2 } : {};
  }

  async available(): Promise<string | undefined> {
    return undefined;
  }

  async start(): Promise<void> {
    // The bench has made everything for all cards at once.
  }

  get wrapper(): readonly string[] {
    return this.wiring.wrapper;
  }

  get sharedMemory(): boolean {
    return this.wiring.sharedMemory;
  }

  netdev(id: string): readonly string[] {
    return this.wiring.netdev(id);
  }

  async stop(): Promise<void> {
    // The bench takes down what it has made.
  }

  artifacts(): readonly Artifact[] {
    return this.log();
  }
}

class KernelCard implements Card {
  readonly address: string;

  constructor(
    readonly backend: Backend,
    private readonly index: number,
    private readonly bench: KernelBench,
  ) {
    this.address = `198.18.${index}.2/24`;
  }

  exchange(load: Exchange): Promise<Exchanged> {
    const ip = this.address.split("/")[0] ?? "";
    return this.bench.peer.exchange(ip, FIRST_PORT + this.index * PORTS_EACH, load);
  }

  counts(): Promise<FrameCounts> {
    return this.bench.countsOf(this.index);
  }
}

abstract class KernelBench implements Bench {
  readonly mostQueues = 4;
  readonly spreads = true;
  readonly oneLink = false;
  abstract readonly uniform: boolean;
  abstract readonly window: number;
  protected namespace = "";
  private forget: () => void = () => undefined;
  private process: PeerProcess | undefined;

  constructor(readonly name: BackendName) {}

  abstract unavailable(): Promise<{ reason: string; labHasIt: boolean } | undefined>;
  /** Makes the interfaces v0, v1, … and says how QEMU reaches what is behind each. */
  protected abstract wire(cells: readonly Cell[]): Promise<readonly Wiring[]>;
  abstract release(): Promise<void>;

  protected artifacts(): readonly Artifact[] {
    return [];
  }

  get peer(): PeerProcess {
    if (this.process === undefined) throw new Error(`${this.name}: the bench is not open`);
    return this.process;
  }

  protected get inside(): readonly string[] {
    return ["ip", "netns", "exec", this.namespace];
  }

  async open(): Promise<void> {
    const name = uniqueName();
    await mustRun(["ip", "netns", "add", name]);
    this.namespace = name;
    this.forget = atExit(() => spawnSync("ip", ["netns", "delete", name]));
    // The kernel must not speak unasked.
    for (const scope of ["all", "default"]) {
      await mustRun([...this.inside, "sysctl", "-qw", `net.ipv6.conf.${scope}.disable_ipv6=1`]);
    }
    this.process = new PeerProcess(this.inside);
  }

  async cards(cells: readonly Cell[]): Promise<readonly Card[]> {
    const wirings = await this.wire(cells);
    const commands = [...cells.keys()].flatMap((index) => [
      `address add 198.18.${index}.1/24 dev v${index}`,
      `link set v${index} up`,
    ]);
    await this.ip(commands);
    return wirings.map((wiring, index) => {
      const queues = cells[index]?.queues ?? 1;
      const log = () => (index === 0 ? this.artifacts() : []);
      return new KernelCard(new PreparedBackend(this.name, wiring, queues, log), index, this);
    });
  }

  /** Several commands of `ip` in the namespace. In the lab each program takes its time to start. */
  protected async ip(commands: readonly string[]): Promise<void> {
    const argv = [...this.inside, "ip", "-batch", "-"];
    const input = commands.map((command) => `${command}\n`).join("");
    const { status, stderr } = await runCommand(argv, { input, timeoutMs: IP_TIMEOUT_MS });
    if (status !== 0) throw new HarnessError(`ip ended with ${status}: ${stderr}\n${input}`);
  }

  /** The kernel's own counters of the tap. */
  async countsOf(index: number): Promise<FrameCounts> {
    const text = await mustRun([...this.inside, "ip", "-j", "-s", "link", "show", `v${index}`]);
    const [link] = JSON.parse(text) as {
      stats64: { rx: { packets: number }; tx: { packets: number } };
    }[];
    if (link === undefined) throw new Error(`v${index} has no counters: ${text}`);
    return { toGuest: link.stats64.tx.packets, fromGuest: link.stats64.rx.packets };
  }

  async close(): Promise<void> {
    await this.process?.stop();
    this.process = undefined;
    if (this.namespace === "") return;
    await runCommand(["ip", "netns", "delete", this.namespace]);
    this.namespace = "";
    this.forget();
  }
}

class TapBench extends KernelBench {
  readonly uniform = false;
  readonly window = 64;
  private made = 0;

  constructor(private readonly vhost: boolean) {
    super(vhost ? "vhost-net" : "tap");
  }

  async unavailable() {
    if (this.vhost) return whatIsMissing(["vhost-net"]);
    const reason = tapUnavailable();
    return reason === undefined ? undefined : { reason, labHasIt: false };
  }

  protected async wire(cells: readonly Cell[]): Promise<readonly Wiring[]> {
    const wirings: Wiring[] = [];
    const commands: string[] = [];
    for (const [index, { queues }] of cells.entries()) {
      const several = queues > 1 ? " multi_queue" : "";
      commands.push(`tuntap add v${index} mode tap vnet_hdr${several}`);
      const pairs = queues > 1 ? `,queues=${queues}` : "";
      const rest = `script=no,downscript=no,vhost=${this.vhost ? "on" : "off"}${pairs}`;
      wirings.push({
        netdev: (id) => ["-netdev", `tap,id=${id},ifname=v${index},${rest}`],
        wrapper: index === 0 ? this.inside : [],
        sharedMemory: false,
      });
    }
    this.made = cells.length;
    await this.ip(commands);
    return wirings;
  }

  async release(): Promise<void> {
    const made = Array.from({ length: this.made }, (_, index) => `link delete v${index}`);
    this.made = 0;
    if (made.length > 0) await this.ip(made);
  }
}

/** testpmd has the same number of queues for all its ports. */
class VhostUserBench extends KernelBench {
  readonly uniform = true;
  readonly window = DPDK_WINDOW;
  private testpmd: Testpmd | undefined;

  constructor() {
    super("vhost-user");
  }

  async unavailable() {
    const without = (reason: string | undefined) =>
      reason === undefined ? undefined : { reason, labHasIt: false };
    if (findProgram(TESTPMD) === undefined)
      return without(`needs ${TESTPMD} (apt install dpdk-dev)`);
    return without(tapUnavailable() ?? vhostUserUnavailable(findQemu()));
  }

  protected async wire(cells: readonly Cell[]): Promise<readonly Wiring[]> {
    const directory = scratchDirectory();
    const sockets = cells.map((_, index) => join(directory, `vhost${index}`));
    const queues = cells[0]?.queues ?? 1;
    // testpmd forwards between a port and the one behind it.
    const devices = sockets.flatMap((socket, index) => [
      ...["--vdev", `net_vhost${index},iface=${socket},queues=${queues}`],
      ...["--vdev", `net_tap${index},iface=v${index}`],
    ]);
    const program = [...this.inside, TESTPMD, "--lcores", `0@${POLL_CPU},1@${POLL_CPU}`];
    const memory = ["-m", String(TESTPMD_MEMORY_MIB), "--no-huge", "--no-pci"];
    const testpmd = new Testpmd([
      ...[...program, ...memory, `--file-prefix=${uniqueName()}`, ...devices, "--"],
      ...["--auto-start", "--forward-mode=io", "--port-topology=paired", "--stats-period", "1"],
      ...[`--rxq=${queues}`, `--txq=${queues}`, "--rxd=256", "--txd=256"],
      ...["--total-num-mbufs=65536"],
    ]);
    this.testpmd = testpmd;
    const started = () => (testpmd.history.length > 0 ? true : undefined);
    await testpmd.until(started, TESTPMD_START_MS, "first statistics");
    const several = queues > 1 ? `,queues=${queues}` : "";
    return sockets.map((socket) => ({
      netdev: (id) => [
        ...["-chardev", `socket,id=${id}-chardev,path=${socket}`],
        ...["-netdev", `vhost-user,id=${id},chardev=${id}-chardev${several}`],
      ],
      wrapper: [],
      sharedMemory: true,
    }));
  }

  async release(): Promise<void> {
    await this.testpmd?.stop();
    this.testpmd = undefined;
  }

  protected override artifacts(): readonly Artifact[] {
    const lines = this.testpmd?.lines ?? [];
    return [{ name: "testpmd.log", content: lines.map((line) => `${line}\n`).join("") }];
  }
}

export const tapBench = (): Bench => new TapBench(false);
export const vhostNetBench = (): Bench => new TapBench(true);
export const vhostUserBench = (): Bench => new VhostUserBench();
