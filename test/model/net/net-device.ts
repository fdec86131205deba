// A virtio network device that keeps to the specification: its queues, its configuration, and its
// turns. What it receives from the network goes to the guest, what the guest sends is handed out.
// Made by tests, mostly through guest.ts. virtio 1.4 §5.1
//
// It works in turns, between the guest's steps or wherever a test calls `turn`. Like a real one it
// looks at a queue only when something told it to: a notification, or a frame from the network.

import { DriverError, ModelError } from "../errors";
import type { Machine, Worker } from "../machine/machine";
import type { Vcpu } from "../machine/vcpu";
import { type FeatureName, featureSet, has } from "../virtio/features";
import { VirtioPci } from "../virtio/pci-device";
import type { Queue } from "../virtio/queue";
import { ControlQueue } from "./control-queue";
import { ControlState } from "./control-state";
import { Flows, reportHash } from "./flows";
import { Live, type LivePair } from "./live";
import { HASH_HEADER_BYTES, type HashReport, HEADER_BYTES, type NetHeader } from "./net-header";
import {
  ANNOUNCE,
  CONFIG_FIELDS,
  initialConfig,
  LINK_UP,
  type NetOptions,
  STATUS_FIELD,
  USUAL,
} from "./net-options";
import { NetReceiver } from "./net-receiver";
import { NetSender } from "./net-sender";

export {
  IN_ORDER_FEATURES,
  MQ_FEATURES,
  type NetOptions,
  PACKED_FEATURES,
  PACKED_IN_ORDER_FEATURES,
  USUAL_FEATURES,
} from "./net-options";

const MTU_DEFAULT = 1500;
/** Segments of a packet that a driver is known to send. */
const SEGMENTS_MAX = 18;
const LARGE: readonly FeatureName[] = ["guest_tso4", "guest_tso6", "guest_uso4", "guest_uso6"];

export type Direction = "rx" | "tx";

export class NetDevice implements Worker {
  readonly options: NetOptions;
  readonly config: Buffer;
  private shownMtu: number;
  readonly pci: VirtioPci;
  readonly receiver: NetReceiver;
  readonly sender: NetSender;
  readonly control: ControlQueue;
  readonly flows = new Flows();
  /** What the control queue said since the last reset. */
  state = new ControlState();
  /** The queues that run, between DRIVER_OK and the next reset. */
  pairs: LivePair[] = [];
  controlLive: Live | undefined;
  private lives: readonly Live[] = [];
  /** How many of the pairs are in use: 1 until the driver asked for more. */
  active = 1;
  /** Chooses the pair for a received frame, before everything else. */
  steer: ((frame: Buffer) => number) | undefined;
  /** Called before a reset, of the device or of a queue, while the queues are still there. */
  onStop: (() => void) | undefined;
  /** Directions that stand still: a host that is busy elsewhere. */
  readonly paused = { rx: false, tx: false };
  /** Set when the driver broke a rule of the rings: the device then does nothing more. */
  isBroken = false;

  constructor(
    readonly machine: Machine,
    options: Partial<NetOptions> = {},
  ) {
    this.options = { ...USUAL, ...options };
    this.shownMtu = this.options.mtu;
    this.config = initialConfig(this.options);
    const { features, moreFeatures, pairs } = this.options;
    const offered = featureSet(features) | moreFeatures;
    const count = 2 * pairs + (has(offered, "ctrl_vq") ? 1 : 0);
    const queues = Array.from({ length: count }, (_, index) => this.queueRole(index, 2 * pairs));
    const msixEntries = this.options.msixEntries ?? Math.max(3, count + 1);
    const pciOptions = { ...this.options, name: "net", offered, queues, msixEntries };
    this.pci = new VirtioPci(machine, pciOptions, {
      config: this.config,
      fields: CONFIG_FIELDS,
      negotiated: () => this.nameQueues(),
      needed: () => this.neededQueues(),
      start: () => this.start(),
      stop: () => this.stop(),
      stopQueue: (queue) => {
        this.onStop?.();
        this.liveAt(queue.index)?.audit.close();
      },
      startQueue: (queue) => this.restartQueue(queue),
      shown: (register, value) => {
        if (register === "mtu") this.shownMtu = value;
      },
    });
    this.receiver = new NetReceiver(this);
    this.sender = new NetSender(this);
    this.control = new ControlQueue(this);
    this.pci.onNotify = (queue, next) => this.notified(queue, next);
    machine.attach(this);
  }

  /** A notification, and with NOTIFICATION_DATA what it says of the driver's next buffer. */
  private notified(queue: Queue, next: number | undefined): void {
    const live = this.liveAt(queue.index);
    live?.audit.notified();
    if (live === undefined || next === undefined || next === live.ring.nextOffer) return;
    const { nextOffer } = live.ring;
    throw new DriverError(`§2.9: ${queue.name}: notified of ${next} when ${nextOffer} is next`);
  }

  accepts(name: FeatureName): boolean {
    return has(this.pci.common.accepted, name);
  }

  /** The MTU that the driver has to keep to: the one that it was shown, also where that is a lie. */
  get mtu(): number {
    return this.accepts("mtu") ? this.shownMtu : MTU_DEFAULT;
  }

  /** Whether received frames may be longer than the MTU. */
  get receivesLarge(): boolean {
    return LARGE.some((name) => this.accepts(name));
  }

  /** Bytes of the net header. §5.1.9 */
  get headerBytes(): number {
    return this.accepts("hash_report") ? HASH_HEADER_BYTES : HEADER_BYTES;
  }

  /** What is said of a received frame's hash: RSS's, or else what was configured without it. */
  hashOf(frame: Buffer): HashReport {
    return reportHash(frame, this.state.rss ?? this.state.hash);
  }

  // ---- from the network and back ---------------------------------------------------------------

  /** A frame comes from the network, with this in its header. It waits when there are no buffers. */
  receive(frame: Uint8Array, header: Partial<NetHeader> = {}): void {
    this.receiver.pending.push({ frame, header });
  }

  /** Frames that the guest sent, unless `onTransmit` takes them. */
  get transmitted(): Buffer[] {
    return this.sender.frames;
  }

  /** The pair that a received frame goes to; undefined when it is filtered out. */
  pairFor(frame: Buffer): number | undefined {
    const { filters, mac } = this.options;
    if (filters && !this.state.passes(frame, mac, this.accepts("ctrl_vlan"))) return undefined;
    const pair = this.steer?.(frame) ?? this.flows.steer(frame, this.active, this.state.rss);
    if (!this.isPairEnabled(pair)) throw new ModelError(`a frame is led to pair ${pair}`);
    return pair;
  }

  /** Taken out: nothing of it answers any more. */
  unplug(): void {
    for (const { audit } of this.lives) audit.abandon();
    this.pci.unplug();
    this.machine.detach(this);
  }

  setLink(up: boolean): void {
    this.config.writeUInt16LE(up ? LINK_UP : 0, STATUS_FIELD);
    this.pci.interruptConfig();
  }

  /** Asks the guest to tell the network where it is. virtio 1.4 §5.1.9.5.4 */
  announce(): void {
    const status = this.config.readUInt16LE(STATUS_FIELD);
    this.config.writeUInt16LE(status | ANNOUNCE, STATUS_FIELD);
    this.pci.interruptConfig();
  }

  // ---- queues ----------------------------------------------------------------------------------

  /** Where the control queue is: behind the pairs that there are with MQ or RSS. §5.1.2 */
  get controlIndex(): number {
    return this.accepts("mq") || this.accepts("rss") ? 2 * this.options.pairs : 2;
  }

  /** receiveq1 is "rx", transmitq1 "tx", receiveq2 "rx2", and so on. */
  private queueRole(index: number, control: number): { name: string; size: number } {
    const { controlSize, rxSize, txSize } = this.options;
    if (index === control) return { name: "ctrl", size: controlSize };
    const number = index < 2 ? "" : `${(index >> 1) + 1}`;
    return index % 2 === 0
      ? { name: `rx${number}`, size: rxSize }
      : { name: `tx${number}`, size: txSize };
  }

  private nameQueues(): void {
    const control = this.accepts("ctrl_vq") ? this.controlIndex : -1;
    for (const queue of this.pci.common.queues) {
      const { name, size } = this.queueRole(queue.index, control);
      queue.become(name, size);
    }
  }

  private neededQueues(): Queue[] {
    const { queues } = this.pci.common;
    const control = this.accepts("ctrl_vq") ? [this.controlIndex] : [];
    return queues.filter(({ index }) => index < 2 || control.includes(index));
  }

  isPairEnabled(pair: number): boolean {
    return this.pairs[pair] !== undefined;
  }

  /** The driver asks for so many pairs. §5.1.9.5.6.1, §5.1.9.5.7.1 */
  activate(pairs: number, what: string): void {
    const { pairs: most } = this.options;
    if (pairs < 1 || pairs > most) {
      throw new DriverError(`§5.1.9.5.6.1: ${what} of ${pairs}, with 1 to ${most}`);
    }
    if (!this.isPairEnabled(pairs - 1)) {
      throw new DriverError(`§5.1.9.5.6.1: ${what} of ${pairs}: pair ${pairs} is not set up`);
    }
    this.receiver.collect(this.pairs.map(({ rx }) => rx));
    this.active = pairs;
  }

  /** The queues of the first pair. */
  get rx(): Live | undefined {
    return this.pairs[0]?.rx;
  }

  get tx(): Live | undefined {
    return this.pairs[0]?.tx;
  }

  /** A queue of the running device by its index. */
  liveAt(index: number): Live | undefined {
    if (index === this.controlLive?.queue.index) return this.controlLive;
    return this.pairs[index >> 1]?.[index % 2 === 0 ? "rx" : "tx"];
  }

  /** A direction of a pair of the running device; throws when it does not run. */
  live(direction: Direction, pair = 0): Live {
    const live = this.pairs[pair]?.[direction];
    if (live === undefined) throw new ModelError(`there is no running ${direction} queue ${pair}`);
    return live;
  }

  /** All queues that run. */
  private listLives(): void {
    const control = this.controlLive === undefined ? [] : [this.controlLive];
    this.lives = [...this.pairs.flatMap(({ rx, tx }) => [rx, tx]), ...control];
  }

  // ---- its life --------------------------------------------------------------------------------

  private start(): void {
    const { queues } = this.pci.common;
    // One that has set FEATURES_OK itself does not know what its rings look like: it does nothing.
    this.isBroken = !this.pci.common.hasAgreed;
    this.active = 1;
    this.state = new ControlState();
    this.flows.forget();
    if (this.isBroken) return;
    const control = this.accepts("ctrl_vq") ? queues[this.controlIndex] : undefined;
    const end = control?.index ?? queues.length;
    for (let index = 0; index + 1 < end; index += 2) {
      const [rx, tx] = [queues[index], queues[index + 1]];
      if (rx?.enabled !== true || tx?.enabled !== true) break;
      this.pairs.push({ rx: this.open(rx, "receive"), tx: this.open(tx, "transmit") });
      this.listLives();
    }
    if (control !== undefined) this.controlLive = this.open(control, "command");
    this.listLives();
  }

  /** One queue alone was reset and is set up again; what waited for it goes on waiting. */
  private restartQueue(queue: Queue): void {
    const pair = this.pairs[queue.index >> 1];
    if (pair === undefined || queue === this.controlLive?.queue) {
      throw new ModelError(`the model cannot reset ${queue.name} alone`);
    }
    const isRx = queue.index % 2 === 0;
    const old = isRx ? pair.rx : pair.tx;
    const live = this.open(queue, isRx ? "receive" : "transmit");
    live.waiting.push(...old.waiting);
    this.pairs[queue.index >> 1] = isRx ? { ...pair, rx: live } : { ...pair, tx: live };
    this.listLives();
  }

  private open(queue: Queue, use: "receive" | "transmit" | "command"): Live {
    const eventIdx = this.accepts("event_idx");
    const indirect = this.accepts("indirect_desc");
    const packed = this.accepts("ring_packed");
    const inOrder = this.accepts("in_order");
    const { usedBatch } = this.options;
    return new Live(this.machine, queue, { packed, eventIdx, indirect, inOrder, usedBatch, use });
  }

  private stop(): void {
    this.onStop?.();
    for (const { audit } of this.lives) audit.close();
    this.receiver.collect(this.pairs.map(({ rx }) => rx));
    this.control.stop();
    this.pairs = [];
    this.controlLive = undefined;
    this.lives = [];
  }

  settle(cpu: Vcpu): void {
    for (const live of this.lives) if (live.cpu === cpu) live.audit.settle();
  }

  get deadline(): number {
    return this.control.deadline;
  }

  /** One turn, also in the middle of a guest's step. True if anything was done. */
  turn(): boolean {
    if (this.pairs.length === 0 || !this.pci.common.isLive || this.isBroken) return false;
    const worked = this.machine.violations.guard(() => {
      const sent = !this.paused.tx && this.transmit();
      const answered = this.controlLive !== undefined && this.control.turn(this.controlLive);
      const received = !this.paused.rx && this.hand();
      return sent || answered || received;
    });
    if (worked === undefined) this.isBroken = true;
    return worked ?? false;
  }

  private transmit(): boolean {
    let worked = false;
    this.pairs.forEach(({ tx }, index) => {
      if (!tx.queue.enabled) return;
      if (index < this.active) worked = this.sender.turn(tx, index) || worked;
      else if (tx.ring.available() > 0) {
        const what = `a packet in transmit queue ${index + 1}, with ${this.active} in use`;
        throw new DriverError(`§5.1.9.5.6.1: ${what}`);
      }
    });
    return worked;
  }

  private hand(): boolean {
    const queues = this.pairs.map(({ rx }) => rx);
    this.receiver.distribute(queues);
    let worked = false;
    for (const rx of queues) if (rx.queue.enabled) worked = this.receiver.turn(rx) || worked;
    return worked;
  }

  /** Makes what was given back visible, and interrupts if the driver asked for it. */
  publish({ queue, ring }: Live): void {
    ring.publish();
    if (ring.wantsInterrupt()) this.pci.interruptQueue(queue);
  }

  /** A ring that makes no sense is full. */
  private heldIn({ queue, ring }: Live): number {
    return this.machine.violations.guard(() => ring.held()) ?? queue.size;
  }

  needsGuest(cpu: Vcpu): string | undefined {
    if (this.isBroken || !this.pci.common.isLive) return undefined;
    for (const { rx, tx } of this.pairs) {
      // With hardly room to answer it may leave them where they are until we have sent something.
      const held = tx.queue.enabled ? this.heldIn(tx) : 0;
      if (!rx.queue.enabled || held > Math.max(0, tx.queue.size - SEGMENTS_MAX)) continue;
      const unread = rx.cpu === cpu ? rx.audit.unread() : 0;
      if (unread > 0) return `${unread} buffers in ${rx.queue.name} are unread`;
    }
    return undefined;
  }
}
