// The `tap` backend: the Linux kernel as the peer. Each one has a network namespace of its own with
// the tap inside, and QEMU is started in it; so no test sees another's traffic, and deleting the
// namespace deletes everything.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { type CommandResult, findProgram, mustRun, runCommand } from "../processes";
import { atExit, uniqueName } from "../run-scope";
import type { Artifact, Backend } from "./backend";

const TUN_DEVICE = "/dev/net/tun";
/** Inside its namespace every tap can have the same name. */
export const TAP_NAME = "v0";

export interface TapOptions {
  /** The kernel's address on the link; 192.0.2.1/24 unless given. */
  readonly address?: string;
  /** A further address of the kernel, with its length; IPv6 is off in the namespace without one. */
  readonly address6?: string;
  readonly mtu?: number;
  readonly queues?: number;
  /** Uses vhost-net; unavailable without /dev/vhost-net. */
  readonly vhost?: boolean;
}

/** Why this machine has no taps for us, or undefined when it has. */
export function tapUnavailable(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root, to make a network namespace";
  if (!existsSync(TUN_DEVICE)) return `needs ${TUN_DEVICE} (modprobe tun)`;
  if (findProgram("ip") === undefined) return "needs the program 'ip' (apt install iproute2)";
  return undefined;
}

export class TapBackend implements Backend {
  readonly name: string = "tap";
  private namespace = "";
  private readonly log: string[] = [];
  private forget: () => void = () => undefined;

  constructor(protected readonly options: TapOptions) {}

  async available(): Promise<string | undefined> {
    const reason = tapUnavailable();
    if (reason !== undefined) return reason;
    if (this.options.vhost && !existsSync("/dev/vhost-net")) {
      return "needs /dev/vhost-net (modprobe vhost_net)";
    }
    return undefined;
  }

  async start(): Promise<void> {
    const name = uniqueName();
    this.namespace = name;
    await mustRun(["ip", "netns", "add", name]);
    this.forget = atExit(() => spawnSync("ip", ["netns", "delete", name]));
    const { address = "192.0.2.1/24", mtu, queues = 1 } = this.options;
    const { address6 } = this.options;
    // The kernel must not speak unasked: without IPv6 a new interface is silent.
    const disable = address6 === undefined ? 1 : 0;
    await this.must("sysctl", "-qw", `net.ipv6.conf.all.disable_ipv6=${disable}`);
    await this.must("sysctl", "-qw", `net.ipv6.conf.default.disable_ipv6=${disable}`);
    const several = queues > 1 ? ["multi_queue"] : [];
    await this.must("ip", "tuntap", "add", TAP_NAME, "mode", "tap", "vnet_hdr", ...several);
    if (mtu !== undefined) await this.must("ip", "link", "set", TAP_NAME, "mtu", String(mtu));
    await this.must("ip", "address", "add", address, "dev", TAP_NAME);
    await this.must("ip", "link", "set", "lo", "up");
    await this.must("ip", "link", "set", TAP_NAME, "up");
    if (address6 !== undefined) await this.addAddress6(address6);
  }

  /** Usable at once: nobody else is on this link, so nobody is asked whether it is theirs. */
  private async addAddress6(address: string): Promise<void> {
    await this.must("ip", "-6", "address", "add", address, "dev", TAP_NAME, "nodad");
  }

  /** Exists from `start` to `stop`. */
  get networkNamespace(): string {
    return this.namespace;
  }

  get wrapper(): readonly string[] {
    return ["ip", "netns", "exec", this.namespace];
  }

  netdev(id: string): readonly string[] {
    const { queues = 1, vhost = false } = this.options;
    const several = queues > 1 ? `,queues=${queues}` : "";
    const kernel = `vhost=${vhost ? "on" : "off"}`;
    const scripts = "script=no,downscript=no";
    return ["-netdev", `tap,id=${id},ifname=${TAP_NAME},${scripts},${kernel}${several}`];
  }

  get deviceOptions() {
    const { queues = 1 } = this.options;
    return queues > 1 ? { mq: true, vectors: 2 * queues + 2 } : {};
  }

  /**
   * Runs a program inside the namespace, to its end. Rejects only when it outlives `timeoutMs` (10
   * s).
   */
  async exec(
    argv: readonly string[],
    options: { timeoutMs?: number; input?: string | Uint8Array } = {},
  ): Promise<CommandResult> {
    const result = await runCommand([...this.wrapper, ...argv], options);
    this.log.push(`$ ${argv.join(" ")}  (${result.status})`, result.stdout, result.stderr);
    return result;
  }

  private async must(...argv: string[]): Promise<void> {
    await mustRun([...this.wrapper, ...argv]);
  }

  /**
   * The kernel's own counters of the tap: frames and bytes it has sent to the guest (tx) and taken
   * from it (rx).
   */
  async counters(): Promise<{
    rxPackets: number;
    rxBytes: number;
    txPackets: number;
    txBytes: number;
  }> {
    const names = ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"];
    const paths = names.map((name) => `/sys/class/net/${TAP_NAME}/statistics/${name}`);
    const { stdout } = await this.exec(["cat", ...paths]);
    const [rxPackets = 0, rxBytes = 0, txPackets = 0, txBytes = 0] = stdout.split("\n").map(Number);
    return { rxPackets, rxBytes, txPackets, txBytes };
  }

  async stop(): Promise<void> {
    if (this.namespace === "") return;
    await runCommand(["ip", "netns", "delete", this.namespace]);
    this.namespace = "";
    this.forget();
  }

  artifacts(): readonly Artifact[] {
    return [{ name: "namespace.log", content: this.log.filter((line) => line !== "").join("\n") }];
  }
}

/** A new tap in a namespace of its own, for one VM. */
export function tap(options: TapOptions = {}): TapBackend {
  return new TapBackend(options);
}
