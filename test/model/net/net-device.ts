// A virtio network device that keeps to the specification: its options, its configuration, and its
// turns. What it receives from the network goes to the guest, what the guest sends is handed out.
// Made by tests, mostly through guest.ts. virtio 1.4 §5.1
//
// It works in turns, between the guest's steps or wherever a test calls `turn`. Like a real one it
// looks at a queue only when something told it to: a notification, or a frame from the network.

import { ModelError } from "../errors";
import type { Machine, Worker } from "../machine/machine";
import { QueueAudit } from "../virtio/audit";
import { type FeatureName, featureSet, has } from "../virtio/features";
import { type Capability, VirtioPci } from "../virtio/pci-device";
import type { Queue } from "../virtio/queue";
import type { Register } from "../virtio/registers";
import { SplitRing } from "../virtio/split-ring";
import { NetReceiver } from "./net-receiver";
import { NetSender } from "./net-sender";

export interface NetOptions {
  /** What is offered, and bits that have no name here. */
  readonly features: readonly FeatureName[];
  readonly moreFeatures: bigint;
  readonly rxSize: number;
  readonly txSize: number;
  /**
   * Entries of a control queue, which answers as control-responder.ts is told; 0: there is none.
   */
  readonly controlSize: number;
  readonly mac: string;
  readonly mtu: number;
  readonly linkUp: boolean;
  readonly msixEntries: number;
  readonly notifyMultiplier: number;
  readonly deviceId: number;
  readonly bdf: number;
  readonly hasFirmware: boolean;
  /** Bytes of device configuration that exist. */
  readonly configBytes: number;
  readonly resetReads: number;
  readonly refusesFeatures: boolean;
  readonly generationChanges: number;
  /** Buffers that a turn handles before it publishes, and asks whether to interrupt. */
  readonly batch: number;
  /** Looks at its queues all the time and asks for no notification, as a polling switch does. */
  readonly polls: boolean;
  readonly capabilities: (usual: readonly Capability[]) => readonly Capability[];
}

export const USUAL_FEATURES: readonly FeatureName[] = [
  "mtu",
  "mac",
  "mrg_rxbuf",
  "status",
  "indirect_desc",
  "event_idx",
  "version_1",
];

const USUAL: NetOptions = {
  features: USUAL_FEATURES,
  moreFeatures: 0n,
  rxSize: 256,
  txSize: 256,
  controlSize: 0,
  mac: "52:54:00:12:34:56",
  mtu: 1500,
  linkUp: true,
  msixEntries: 3,
  notifyMultiplier: 4,
  deviceId: 0x1041,
  bdf: 2 << 3,
  hasFirmware: true,
  configBytes: 24,
  resetReads: 0,
  refusesFeatures: false,
  generationChanges: 0,
  batch: 32,
  polls: false,
  capabilities: (usual) => usual,
};

/**
 * 0 mac 6 | 6 status 2 | 8 max_virtqueue_pairs 2 | 10 mtu 2 | 12 speed 4 | 16 duplex 1.
 * virtio 1.4 §5.1.4
 */
const CONFIG_FIELDS: readonly Register[] = [
  ...[0, 1, 2, 3, 4, 5].map((i) => ({
    name: `mac${i}`,
    offset: i,
    width: 1 as const,
    writable: false,
  })),
  { name: "status", offset: 6, width: 2, writable: false },
  { name: "max_virtqueue_pairs", offset: 8, width: 2, writable: false },
  { name: "mtu", offset: 10, width: 2, writable: false },
  { name: "speed", offset: 12, width: 4, writable: false },
  { name: "duplex", offset: 16, width: 1, writable: false },
];
const STATUS_FIELD = 6;
const MTU_FIELD = 10;
const LINK_UP = 1;

export type Direction = "rx" | "tx";

/** One direction while the device runs. */
export interface Live {
  readonly queue: Queue;
  readonly ring: SplitRing;
  readonly audit: QueueAudit;
}

export class NetDevice implements Worker {
  readonly options: NetOptions;
  readonly config: Buffer;
  readonly pci: VirtioPci;
  readonly receiver: NetReceiver;
  readonly sender: NetSender;
  /** The rings between DRIVER_OK and the next reset. */
  rx: Live | undefined;
  tx: Live | undefined;
  /** Directions that stand still: a host that is busy elsewhere. */
  readonly paused = { rx: false, tx: false };
  /** Set when the driver broke a rule of the rings: the device then does nothing more. */
  isBroken = false;

  constructor(
    readonly machine: Machine,
    options: Partial<NetOptions> = {},
  ) {
    this.options = { ...USUAL, ...options };
    this.config = this.initialConfig();
    const { features, moreFeatures, rxSize, txSize, controlSize } = this.options;
    const deviceClass = {
      config: this.config,
      fields: CONFIG_FIELDS,
      start: () => this.start(),
      stop: () => this.stop(),
    };
    const pciOptions = {
      ...this.options,
      name: "net",
      offered: featureSet(features) | moreFeatures,
      queues: [
        { name: "rx", size: rxSize },
        { name: "tx", size: txSize },
        ...(controlSize > 0 ? [{ name: "control", size: controlSize }] : []),
      ],
    };
    this.pci = new VirtioPci(machine, pciOptions, deviceClass);
    this.receiver = new NetReceiver(this);
    this.sender = new NetSender(this);
    this.pci.onNotify = (queue) => this.liveOf(queue)?.audit.notified();
    machine.attach(this);
  }

  private initialConfig(): Buffer {
    const { configBytes, linkUp, mac, mtu } = this.options;
    const whole = Buffer.alloc(Math.max(configBytes, 24));
    whole.write(mac.replaceAll(":", ""), 0, "hex");
    whole.writeUInt16LE(linkUp ? LINK_UP : 0, STATUS_FIELD);
    whole.writeUInt16LE(1, 8);
    whole.writeUInt16LE(mtu, MTU_FIELD);
    return whole.subarray(0, configBytes);
  }

  accepts(name: FeatureName): boolean {
    return has(this.pci.common.accepted, name);
  }

  // ---- from the network and back ---------------------------------------------------------------

  /** A frame comes from the network. It waits when the guest has no buffers. */
  receive(frame: Uint8Array): void {
    this.receiver.pending.push(frame);
  }

  /** Frames that the guest sent, unless `onTransmit` takes them. */
  get transmitted(): Buffer[] {
    return this.sender.frames;
  }

  setLink(up: boolean): void {
    this.config.writeUInt16LE(up ? LINK_UP : 0, STATUS_FIELD);
    this.pci.interruptConfig();
  }

  // ---- its life --------------------------------------------------------------------------------

  private start(): void {
    const [rxQueue, txQueue] = this.pci.common.queues;
    if (rxQueue === undefined || txQueue === undefined) return;
    this.isBroken = false;
    this.rx = this.open(rxQueue, true);
    this.tx = this.open(txQueue, false);
    this.receiver.start();
    this.sender.start();
  }

  private open(queue: Queue, writable: boolean): Live {
    const { machine } = this;
    const eventIdx = this.accepts("event_idx");
    const indirect = this.accepts("indirect_desc");
    const ring = new SplitRing(machine.ram, queue, { eventIdx, indirect, writable });
    const cpu = machine.cpus.find(
      ({ arena }) => arena.base <= queue.desc && queue.desc < arena.base + arena.bytes,
    );
    const audit = new QueueAudit(machine, cpu ?? machine.bootCpu, queue, eventIdx);
    return { queue, ring, audit };
  }

  private stop(): void {
    this.rx?.audit.close();
    this.tx?.audit.close();
    this.rx = undefined;
    this.tx = undefined;
  }

  /** A direction of the running device; throws when it does not run. */
  live(direction: Direction): Live {
    const live = this[direction];
    if (live === undefined) throw new ModelError(`the device's ${direction} queue does not run`);
    return live;
  }

  private liveOf(queue: Queue): Live | undefined {
    return queue.index === 0 ? this.rx : this.tx;
  }

  /** Called by the machine between the guest's steps. */
  poll(): boolean {
    this.rx?.audit.settle();
    this.tx?.audit.settle();
    return this.turn();
  }

  /** One turn, also in the middle of a guest's step. True if anything was done. */
  turn(): boolean {
    const { rx, tx } = this;
    if (rx === undefined || tx === undefined || !this.pci.common.isLive || this.isBroken) {
      return false;
    }
    const worked = this.machine.violations.guard(() => {
      const sent = !this.paused.tx && this.sender.turn(tx.queue, tx.ring);
      const received = !this.paused.rx && this.receiver.turn(rx.queue, rx.ring);
      return sent || received;
    });
    if (worked === undefined) this.isBroken = true;
    return worked ?? false;
  }

  /** Makes what was given back visible, and interrupts if the driver asked for it. */
  publish(queue: Queue, ring: SplitRing): void {
    ring.publish();
    if (ring.wantsInterrupt()) this.pci.interruptQueue(queue);
  }

  needsGuest(): string | undefined {
    if (this.rx === undefined || this.isBroken || !this.pci.common.isLive) return undefined;
    const unread = this.rx.audit.unread(this.rx.ring.usedIdx);
    return unread > 0 ? `${unread} received buffers are unread` : undefined;
  }
}
