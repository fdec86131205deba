// The matrix behind Open vSwitch, with either datapath: one bridge for the whole backend, a port for
// each card, and the outside world (a namespace) as the peer. Used by command.ts.

import type { OvsPort } from "../backends/ovs-port";
import { type Datapath, OvsSwitch } from "../backends/ovs-switch";
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

class OvsCard implements Card {
  readonly address: string;

  constructor(
    readonly backend: OvsPort,
    private readonly index: number,
    private readonly peer: PeerProcess,
  ) {
    this.address = `192.0.2.${2 + index}/24`;
  }

  exchange(load: Exchange): Promise<Exchanged> {
    const ip = this.address.split("/")[0] ?? "";
    return this.peer.exchange(ip, FIRST_PORT + this.index * PORTS_EACH, load);
  }

  /** What the switch gives out is for the guest. */
  async counts(): Promise<FrameCounts> {
    const { rxPackets, txPackets } = await this.backend.counters();
    return { toGuest: txPackets, fromGuest: rxPackets };
  }
}

class OvsBench implements Bench {
  readonly mostQueues = 4;
  readonly uniform = false;
  readonly oneLink = true;
  readonly name: BackendName;
  private readonly bridge: OvsSwitch;
  private peer: PeerProcess | undefined;

  constructor(private readonly datapath: Datapath) {
    this.name = datapath === "userspace" ? "ovs-userspace" : "ovs-kernel";
    this.bridge = new OvsSwitch({ datapath });
  }

  /** DPDK's datapath uses a queue for each thread that polls, and here there is one. */
  get spreads(): boolean {
    return this.datapath === "kernel";
  }

  get window(): number {
    return this.datapath === "kernel" ? 64 : DPDK_WINDOW;
  }

  async unavailable() {
    return whatIsMissing(this.datapath === "kernel" ? ["ovs-kernel", "vhost-net"] : ["ovs-dpdk"]);
  }

  async open(): Promise<void> {
    await this.bridge.start();
    this.peer = new PeerProcess(["ip", "netns", "exec", this.bridge.outsideNamespace]);
  }

  async cards(cells: readonly Cell[]): Promise<readonly Card[]> {
    const { peer } = this;
    if (peer === undefined) throw new Error(`${this.name}: the bench is not open`);
    return cells.map(({ queues }, index) => new OvsCard(this.bridge.port({ queues }), index, peer));
  }

  async release(): Promise<void> {
    // The VM has taken the ports off the bridge.
  }

  async close(): Promise<void> {
    await this.peer?.stop();
    await this.bridge.stop();
  }
}

export const ovsUserspaceBench = (): Bench => new OvsBench("userspace");
export const ovsKernelBench = (): Bench => new OvsBench("kernel");
