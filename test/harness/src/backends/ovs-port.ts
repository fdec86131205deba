// A port of an Open vSwitch bridge, as the backend of one network card: a vhost-user socket that
// QEMU serves (userspace datapath), or a tap with vhost-net (kernel datapath). Made by
// OvsSwitch.port().

import { join } from "node:path";
import { mustRun } from "../processes";
import { findQemu, vhostUserUnavailable } from "../qemu";
import type { Artifact, Backend } from "./backend";
import type { OvsCounters, OvsSwitch } from "./ovs-switch";

export interface OvsPortOptions {
  readonly queues?: number;
  /** The port's VLAN: it is an access port of it. Without one the port carries all. */
  readonly vlan?: number;
}

export class OvsPort implements Backend {
  readonly name = "ovs";
  /** With `server=on,wait=on` QEMU says that it waits. */
  readonly stderrAllowed = [/info: QEMU waiting for connection on: .*unix:/];
  private added = false;

  constructor(
    private readonly bridge: OvsSwitch,
    readonly port: string,
    private readonly options: OvsPortOptions,
  ) {}

  private get userspace(): boolean {
    return this.bridge.datapath === "userspace";
  }

  private get socketPath(): string {
    return join(this.bridge.directory, `${this.port}.sock`);
  }

  async available(): Promise<string | undefined> {
    return this.userspace ? vhostUserUnavailable(findQemu()) : undefined;
  }

  get sharedMemory(): boolean {
    return this.userspace;
  }

  get wrapper(): readonly string[] {
    return ["ip", "netns", "exec", this.bridge.namespace];
  }

  async start(): Promise<void> {
    const { queues = 1, vlan } = this.options;
    if (this.userspace) {
      const path = `options:vhost-server-path=${this.socketPath}`;
      await this.bridge.addPort(this.port, vlan, ["type=dpdkvhostuserclient", path]);
    } else {
      const several = queues > 1 ? ["multi_queue"] : [];
      const tap = ["ip", "tuntap", "add", this.port, "mode", "tap", "vnet_hdr", ...several];
      await mustRun([...this.wrapper, ...tap]);
      await mustRun([...this.wrapper, "ip", "link", "set", this.port, "up"]);
      await this.bridge.addPort(this.port, vlan, []);
    }
    this.added = true;
  }

  netdev(id: string): readonly string[] {
    const { queues = 1 } = this.options;
    const several = queues > 1 ? `,queues=${queues}` : "";
    if (!this.userspace) {
      const scripts = "script=no,downscript=no,vhost=on";
      return ["-netdev", `tap,id=${id},ifname=${this.port},${scripts}${several}`];
    }
    const socket = `socket,id=${id}-chardev,path=${this.socketPath},server=on,wait=on`;
    return ["-chardev", socket, "-netdev", `vhost-user,id=${id},chardev=${id}-chardev${several}`];
  }

  get deviceOptions() {
    const { queues = 1 } = this.options;
    return queues > 1 ? { mq: true, vectors: 2 * queues + 2 } : {};
  }

  /** What the switch has counted of this port: `rx` is what it took from the guest. */
  counters(): Promise<OvsCounters> {
    return this.bridge.counters(this.port);
  }

  async stop(): Promise<void> {
    if (!this.added) return;
    this.added = false;
    await this.bridge.removePort(this.port);
  }

  artifacts(): readonly Artifact[] {
    return this.bridge.artifacts().map(({ name, content }) => ({
      name: `${this.port}-${name}`,
      content,
    }));
  }
}
