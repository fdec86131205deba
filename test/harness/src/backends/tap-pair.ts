// Two taps for one guest, each with a network namespace of its own behind it: what goes from one to
// the other goes through the guest. QEMU opens both in a third namespace; `part` then moves each
// into its own, which an open tap survives.

import { spawnSync } from "node:child_process";
import { type CommandResult, mustRun, runCommand } from "../processes";
import { atExit, uniqueName } from "../run-scope";
import type { Artifact, Backend } from "./backend";
import { tapUnavailable } from "./tap";

export interface TapPairOptions {
  readonly queues?: number;
  /** Addresses of the two ends; 192.0.2.1/24 and 192.0.2.2/24 unless given. */
  readonly addresses?: readonly [string, string];
}

const ADDRESSES = ["192.0.2.1/24", "192.0.2.2/24"] as const;

/** One side: a tap, and the namespace that it is moved into. */
export class TapSide implements Backend {
  readonly name = "tap";
  readonly tap: string;
  private namespace = "";
  private forget: () => void = () => undefined;
  private readonly log: string[] = [];

  constructor(
    private readonly pair: TapPair,
    index: number,
    private readonly address: string,
    private readonly queues: number,
  ) {
    this.tap = `v${index}`;
  }

  async available(): Promise<string | undefined> {
    return tapUnavailable();
  }

  async start(): Promise<void> {
    await this.pair.start();
    this.namespace = uniqueName();
    this.forget = await makeNamespace(this.namespace);
    const several = this.queues > 1 ? ["multi_queue"] : [];
    const kind = ["mode", "tap", "vnet_hdr", ...several];
    await mustRun([...this.pair.wrapper, "ip", "tuntap", "add", this.tap, ...kind]);
  }

  /** QEMU has the tap open: moves it, and gives it its address. */
  async part(): Promise<void> {
    const { address, namespace, tap } = this;
    await mustRun([...this.pair.wrapper, "ip", "link", "set", tap, "netns", namespace]);
    const within = ["ip", "netns", "exec", namespace, "ip"];
    await mustRun([...within, "address", "add", address, "dev", tap]);
    await mustRun([...within, "link", "set", tap, "up"]);
  }

  get wrapper(): readonly string[] {
    // Of both sides one is enough.
    return this.tap === "v0" ? this.pair.wrapper : [];
  }

  netdev(id: string): readonly string[] {
    const several = this.queues > 1 ? `,queues=${this.queues}` : "";
    const scripts = "script=no,downscript=no,vhost=off";
    return ["-netdev", `tap,id=${id},ifname=${this.tap},${scripts}${several}`];
  }

  get deviceOptions() {
    return this.queues > 1 ? { mq: true, vectors: 2 * this.queues + 2 } : {};
  }

  /** Starts nothing that outlives it: runs a program behind this tap, to its end. */
  async exec(
    argv: readonly string[],
    options: { timeoutMs?: number; input?: string | Uint8Array } = {},
  ): Promise<CommandResult> {
    const result = await runCommand(["ip", "netns", "exec", this.namespace, ...argv], options);
    this.log.push(`$ ${argv.join(" ")}  (${result.status})`, result.stdout, result.stderr);
    return result;
  }

  async stop(): Promise<void> {
    if (this.namespace !== "") await runCommand(["ip", "netns", "delete", this.namespace]);
    this.namespace = "";
    this.forget();
    await this.pair.stop();
  }

  artifacts(): readonly Artifact[] {
    const content = this.log.filter((line) => line !== "").join("\n");
    return [{ name: `${this.tap}.log`, content }];
  }
}

export class TapPair {
  readonly sides: readonly [TapSide, TapSide];
  private namespace = "";
  private forget: () => void = () => undefined;

  constructor({ queues = 1, addresses = ADDRESSES }: TapPairOptions) {
    this.sides = [
      new TapSide(this, 0, addresses[0], queues),
      new TapSide(this, 1, addresses[1], queues),
    ];
  }

  /** Once for both sides. */
  async start(): Promise<void> {
    if (this.namespace !== "") return;
    this.namespace = uniqueName();
    this.forget = await makeNamespace(this.namespace);
  }

  get wrapper(): readonly string[] {
    return ["ip", "netns", "exec", this.namespace];
  }

  /** To be called when QEMU runs. */
  async part(): Promise<void> {
    for (const side of this.sides) await side.part();
  }

  async stop(): Promise<void> {
    if (this.namespace !== "") await runCommand(["ip", "netns", "delete", this.namespace]);
    this.namespace = "";
    this.forget();
  }
}

/** A namespace whose kernel does not speak unasked; answers what to call when it is deleted. */
async function makeNamespace(name: string): Promise<() => void> {
  await mustRun(["ip", "netns", "add", name]);
  const forget = atExit(() => spawnSync("ip", ["netns", "delete", name]));
  const quiet = ["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"];
  await mustRun(["ip", "netns", "exec", name, "sysctl", "-qw", ...quiet]);
  return forget;
}

/** Two new taps, for one VM. */
export function tapPair(options: TapPairOptions = {}): TapPair {
  return new TapPair(options);
}
