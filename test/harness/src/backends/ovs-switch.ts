// Open vSwitch as a switch of one test: its own database, daemon and bridge in a network namespace,
// and an uplink into a second namespace that plays the outside world. `port()` makes backends for
// guests. Two datapaths:
//
//   userspace  DPDK's vhost-user ports; the daemon polls the guests' rings itself
//   kernel     taps with vhost-net; packets are switched by the kernel's module
//
//   guest -- p0 --+     +-- uplink =veth= out (192.0.2.1/24)  in the namespace outside
//                 +-br0-+
//   guest -- p1 --+     +-- trunk =veth= tagged               there too: every VLAN, with its tag

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { delay } from "../deadline";
import { DeadlineError, HarnessError } from "../errors";
import { lineSplitter } from "../lines";
import {
  type CommandResult,
  type ManagedProcess,
  mustRun,
  runCommand,
  startProcess,
} from "../processes";
import { atExit, scratchDirectory, uniqueName } from "../run-scope";
import type { Artifact } from "./backend";
import { OvsPort, type OvsPortOptions } from "./ovs-port";

export type Datapath = "userspace" | "kernel";

export interface OvsOptions {
  readonly datapath: Datapath;
  /** The CPU that polls, with the userspace datapath; 1 unless given. */
  readonly pollCpu?: number;
  /** The outside world's address; 192.0.2.1/24 unless given. */
  readonly address?: string;
  /** The VLAN in which the outside world has its address; none unless given. */
  readonly vlan?: number;
  /** Errors that the daemons may log; any other fails the next command, or `stop`. */
  readonly errorsAllowed?: readonly RegExp[];
}

/** Frames and bytes that a port has taken in (`rx`: from the guest) and given out (`tx`). */
export interface OvsCounters {
  readonly rxPackets: number;
  readonly rxBytes: number;
  readonly txPackets: number;
  readonly txBytes: number;
}

export const DPDK_DAEMON = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema";
const BRIDGE = "br0";
/** The outside world's ends of the uplink and of the trunk. */
export const OUTSIDE = "out";
export const TRUNK = "tagged";
/**
 * DPDK's ports share a pool of 262,144 packets, and without hugepages each takes a page: 1 GiB, and
 * some for the rest. With less Open vSwitch tries half, and half of that, until a pool fits; but
 * when the last piece of memory is too small for a packet it gives up (ENOBUFS), and takes the port
 * off the bridge while the guest that has just connected to it goes on.
 */
const DPDK_MEMORY_MIB = 1536;
/** What the daemon logs when it cannot do something, and goes on without it. */
const COMPLAINT = /\|(ERR|EMER)\|/;
/** It looks for connection tracking, which a kernel need not have and no flow here asks for. */
const NO_CONNECTION_TRACKING = /\|netlink_socket\|ERR\|fcntl: Protocol not supported/;
/** A QEMU that ends while something for it is under way is said to have reset its socket. */
const GUEST_HAS_ENDED =
  /\|dpdk\|ERR\|VHOST_CONFIG: .* (recvmsg failed on fd \d+ \(Connection reset by peer\)|vhost read message failed)/;
const COMMAND_SECONDS = 15;
const READY_MS = 30_000;
const POLL_MS = 50;

export class OvsSwitch {
  readonly namespace = uniqueName();
  readonly outsideNamespace = uniqueName();
  readonly directory = scratchDirectory();
  readonly ports: OvsPort[] = [];
  private readonly daemons: ManagedProcess[] = [];
  private readonly output: string[] = [];
  private readonly complaints: string[] = [];
  /** Of each port's flow. */
  private readonly cookies = new Map<string, number>();
  private forget: () => void = () => undefined;

  constructor(readonly options: OvsOptions) {}

  get datapath(): Datapath {
    return this.options.datapath;
  }

  private path(name: string): string {
    return join(this.directory, name);
  }

  private get database(): string {
    return `unix:${this.path("db.sock")}`;
  }

  /** Starts the daemons and makes the bridge and the uplink. */
  async start(): Promise<void> {
    const spaces = [this.namespace, this.outsideNamespace];
    this.forget = atExit(() => {
      for (const name of spaces) spawnSync("ip", ["netns", "delete", name]);
    });
    for (const name of spaces) {
      await mustRun(["ip", "netns", "add", name]);
      for (const scope of ["all", "default"]) {
        // The kernel must not speak unasked.
        const key = `net.ipv6.conf.${scope}.disable_ipv6=1`;
        await mustRun(["ip", "netns", "exec", name, "sysctl", "-qw", key]);
      }
    }
    await this.startDatabase();
    await this.startDaemon();
    const type = this.datapath === "userspace" ? "netdev" : "system";
    await this.vsctl("add-br", BRIDGE, "--", "set", "bridge", BRIDGE, `datapath_type=${type}`);
    await this.addUplink();
  }

  private async startDatabase(): Promise<void> {
    await mustRun(["ovsdb-tool", "create", this.path("conf.db"), SCHEMA]);
    this.daemon([
      ...["ovsdb-server", this.path("conf.db"), `--remote=p${this.database}`, "--no-chdir"],
      ...[`--unixctl=${this.path("ovsdb.ctl")}`, `--pidfile=${this.path("ovsdb.pid")}`],
    ]);
    await this.appears("db.sock");
    await this.vsctl("--no-wait", "init");
  }

  private async startDaemon(): Promise<void> {
    const userspace = this.datapath === "userspace";
    if (userspace) {
      // Without legacy memory Open vSwitch adds an option that excludes memory without hugepages.
      const memory = `--no-huge -m ${DPDK_MEMORY_MIB} --legacy-mem`;
      const extra = `${memory} --no-pci --file-prefix=${this.namespace}`;
      const mask = (1 << (this.options.pollCpu ?? 1)).toString(16);
      const config = ["dpdk-init=true", `dpdk-extra="${extra}"`, `pmd-cpu-mask=0x${mask}`];
      const settings = config.map((setting) => `other_config:${setting}`);
      await this.vsctl("--no-wait", "set", "Open_vSwitch", ".", ...settings);
    }
    this.daemon([
      ...["ip", "netns", "exec", this.namespace, userspace ? DPDK_DAEMON : "ovs-vswitchd"],
      ...[this.database, "--no-chdir", `--unixctl=${this.path("switch.ctl")}`],
      ...[`--pidfile=${this.path("switch.pid")}`],
    ]);
    await this.appears("switch.ctl");
  }

  private daemon(argv: readonly string[]): void {
    const [program = "", ...args] = argv;
    const started = startProcess(program, args, { environment: this.environment });
    started.child.stdout?.on("data", this.listener());
    started.child.stderr?.on("data", this.listener());
    this.daemons.push(started);
  }

  private listener() {
    const { errorsAllowed = [] } = this.options;
    return lineSplitter((line) => {
      this.output.push(`${line}\n`);
      const allowed = [NO_CONNECTION_TRACKING, GUEST_HAS_ENDED, ...errorsAllowed].some((p) =>
        p.test(line),
      );
      if (COMPLAINT.test(line) && !allowed) this.complaints.push(line);
    });
  }

  /** Throws what the daemons have complained of since it was last asked. */
  private checkComplaints(): void {
    const lines = this.complaints.splice(0);
    if (lines.length > 0) throw new HarnessError(`Open vSwitch has failed:\n${lines.join("\n")}`);
  }

  /** Sockets that Open vSwitch makes by itself are in the run's directory too. */
  get environment(): Record<string, string> {
    const { directory } = this;
    return { OVS_RUNDIR: directory, OVS_LOGDIR: directory, OVS_DBDIR: directory };
  }

  private async appears(name: string): Promise<void> {
    const begin = performance.now();
    while (!existsSync(this.path(name))) {
      const dead = this.daemons.find((daemon) => !daemon.running);
      if (dead !== undefined) throw new HarnessError(`Open vSwitch has ended\n${this.tail()}`);
      if (performance.now() - begin > READY_MS) {
        throw new DeadlineError(`Open vSwitch makes no ${name} in ${READY_MS} ms\n${this.tail()}`);
      }
      await delay(POLL_MS);
    }
  }

  private tail(): string {
    return this.output.join("").split("\n").slice(-15).join("\n");
  }

  private async addUplink(): Promise<void> {
    const { address = "192.0.2.1/24", vlan } = this.options;
    await this.must("ip", "link", "set", "lo", "up");
    await this.addVeth("uplink", OUTSIDE);
    await this.must("ip", "address", "add", address, "dev", OUTSIDE);
    await this.addPort("uplink", vlan, []);
    await this.addVeth("trunk", TRUNK);
    await this.addPort("trunk", undefined, []);
  }

  private async addVeth(own: string, outside: string): Promise<void> {
    const peer = ["type", "veth", "peer", "name", outside, "netns", this.outsideNamespace];
    await this.inside("ip", "link", "add", own, ...peer);
    await this.inside("ip", "link", "set", "dev", own, "up");
    // The userspace datapath passes checksums on as they are, also those still to be computed.
    await this.must("ethtool", "-K", outside, "tx", "off");
    await this.must("ip", "link", "set", "dev", outside, "up");
  }

  private async inside(...argv: string[]): Promise<void> {
    await mustRun(["ip", "netns", "exec", this.namespace, ...argv]);
  }

  private async must(...argv: string[]): Promise<void> {
    await mustRun(["ip", "netns", "exec", this.outsideNamespace, ...argv]);
  }

  /** Runs a program in the outside world. */
  exec(
    argv: readonly string[],
    options: { timeoutMs?: number; input?: string | Uint8Array } = {},
  ): Promise<CommandResult> {
    return runCommand(["ip", "netns", "exec", this.outsideNamespace, ...argv], options);
  }

  /** Runs a program where the switch's ports are. */
  execInside(argv: readonly string[], options: { timeoutMs?: number } = {}) {
    return runCommand(["ip", "netns", "exec", this.namespace, ...argv], options);
  }

  /** ovs-vsctl, which must succeed. */
  vsctl(...args: string[]): Promise<string> {
    return this.tool("ovs-vsctl", `--db=${this.database}`, `--timeout=${COMMAND_SECONDS}`, ...args);
  }

  /** ovs-appctl to the switch's daemon: `fdb/show br0`, `dpctl/show -s`, … */
  appctl(...args: string[]): Promise<string> {
    return this.tool("ovs-appctl", "-t", this.path("switch.ctl"), ...args);
  }

  /** ovs-ofctl `command` on the bridge. */
  ofctl(command: string, ...args: string[]): Promise<string> {
    return this.tool("ovs-ofctl", command, `unix:${this.path(`${BRIDGE}.mgmt`)}`, ...args);
  }

  private async tool(...argv: string[]): Promise<string> {
    const environment = Object.entries(this.environment).map(([name, value]) => `${name}=${value}`);
    const inside = ["ip", "netns", "exec", this.namespace, "env", ...environment];
    const result = await runCommand([...inside, ...argv], { timeoutMs: 20_000 });
    this.output.push(`$ ${argv.join(" ")}\n${result.stdout}${result.stderr}`);
    this.checkComplaints();
    if (result.status === 0) return result.stdout;
    const said = result.stderr.trim();
    throw new HarnessError(
      `${argv.join(" ")} ended with ${result.status}: ${said}\n${this.tail()}`,
    );
  }

  /** A new port of the bridge, for one VM. */
  port(options: OvsPortOptions = {}): OvsPort {
    const port = new OvsPort(this, `p${this.ports.length}`, options);
    this.ports.push(port);
    return port;
  }

  /** Adds an interface to the bridge, with a flow of its own that counts what comes in there. */
  async addPort(name: string, vlan: number | undefined, settings: readonly string[]) {
    const tag = vlan === undefined ? [] : [`tag=${vlan}`];
    const more = settings.length === 0 ? [] : ["--", "set", "interface", name, ...settings];
    await this.vsctl("add-port", BRIDGE, name, ...tag, ...more);
    this.cookies.set(name, this.cookies.size + 1);
    await this.ofctl("add-flow", `cookie=${this.cookies.get(name)},in_port=${name},actions=NORMAL`);
  }

  async removePort(name: string): Promise<void> {
    await this.vsctl("--if-exists", "del-port", BRIDGE, name);
  }

  /** What ovs-ofctl says that the port `name` has counted. */
  async counters(name: string): Promise<OvsCounters> {
    const text = await this.ofctl("dump-ports", name);
    const numbers = /rx pkts=(\d+), bytes=(\d+)[\s\S]*?tx pkts=(\d+), bytes=(\d+)/.exec(text);
    if (numbers === null) throw new HarnessError(`ovs-ofctl has no counters of ${name}:\n${text}`);
    const [rxPackets = 0, rxBytes = 0, txPackets = 0, txBytes = 0] = numbers.slice(1).map(Number);
    return { rxPackets, rxBytes, txPackets, txBytes };
  }

  /**
   * What the flow for frames from the port `name` has counted, some time after they went through;
   * unlike the port's counters it outlasts the guest.
   */
  async flowCounters(name: string): Promise<{ packets: number; bytes: number }> {
    const text = await this.ofctl("dump-flows", `cookie=${this.cookies.get(name)}/-1`);
    const numbers = /n_packets=(\d+), n_bytes=(\d+)/.exec(text);
    if (numbers === null) throw new HarnessError(`ovs-ofctl has no flow of ${name}:\n${text}`);
    return { packets: Number(numbers[1]), bytes: Number(numbers[2]) };
  }

  /** Packets that the datapath has looked up, as it says itself. */
  async lookups(): Promise<number> {
    const text = await this.appctl("dpctl/show", "-s");
    const [, hit = "0", missed = "0"] = /lookups: hit:(\d+) missed:(\d+)/.exec(text) ?? [];
    return Number(hit) + Number(missed);
  }

  /**
   * Ends the daemons and removes the namespaces with everything in them. Rejects, after that, with
   * what the daemons have complained of and nobody has heard yet.
   */
  async stop(): Promise<void> {
    if (this.datapath === "kernel" && this.daemons.some((daemon) => daemon.running)) {
      await this.vsctl("--if-exists", "del-br", BRIDGE);
    }
    for (const daemon of this.daemons.splice(0).reverse()) {
      if (daemon.running) await daemon.stop();
    }
    for (const name of [this.namespace, this.outsideNamespace]) {
      await runCommand(["ip", "netns", "delete", name]);
    }
    this.forget();
    this.checkComplaints();
  }

  artifacts(): Artifact[] {
    return [{ name: "ovs.log", content: this.output.join("") }];
  }
}

/** A new switch, to be started by the test and stopped after it. */
export function ovs(options: OvsOptions): OvsSwitch {
  return new OvsSwitch(options);
}
