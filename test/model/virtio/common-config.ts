// The common configuration structure as a state machine: status, features, queues. It does what a
// device does, and throws a DriverError where a driver breaks a rule of bring-up. Owned by
// pci-device.ts. virtio 1.4 §3.1.1, §4.1.4.3

import { DriverError } from "../errors";
import type { Ram } from "../machine/ram";
import { has, judgeAccepted } from "./features";
import { NO_VECTOR, Queue } from "./queue";
import type { Register } from "./registers";

export const STATUS = {
  acknowledge: 1,
  driver: 2,
  driverOk: 4,
  featuresOk: 8,
  needsReset: 64,
  failed: 128,
} as const;

export interface CommonOptions {
  readonly offered: bigint;
  /** Name and greatest size of each queue. */
  readonly queues: readonly { readonly name: string; readonly size: number }[];
  /** Reads of the status that still show the old one after a reset was asked for. */
  readonly resetReads: number;
  /** The same for queue_reset; Infinity: the device never lets go of a queue. */
  readonly queueResetReads: number;
  /** Does not keep FEATURES_OK. */
  readonly refusesFeatures: boolean;
  /** How often the generation changes between two reads of it, before it comes to rest. */
  readonly generationChanges: number;
}

/** What the rest of the device is told. */
export interface Owner {
  readonly ram: Ram;
  readonly vectors: number;
  /** The features are agreed upon; what the queues are for is known now. */
  negotiated(): void;
  /** Queues that must be enabled before DRIVER_OK. */
  needed(): readonly Queue[];
  start(): void;
  stop(): void;
  /** One queue is taken from the running device, and given again. */
  stopQueue(queue: Queue): void;
  startQueue(queue: Queue): void;
}

const WORD_BITS = 32n;
const WORD = 0xffff_ffffn;
const HIGH = 0x1_0000_0000;

/** The registers of a queue's addresses: which, and which half. */
type Half = { readonly field: "desc" | "driver" | "device"; readonly isLow: boolean };
const ADDRESSES: Readonly<Record<string, Half>> = {
  queue_desc_low: { field: "desc", isLow: true },
  queue_desc_high: { field: "desc", isLow: false },
  queue_driver_low: { field: "driver", isLow: true },
  queue_driver_high: { field: "driver", isLow: false },
  queue_device_low: { field: "device", isLow: true },
  queue_device_high: { field: "device", isLow: false },
};
/** What the status bits come in. §3.1.1 */
const BITS_IN_ORDER = [STATUS.acknowledge, STATUS.driver, STATUS.featuresOk, STATUS.driverOk];

export class CommonConfig {
  readonly queues: Queue[];
  status = 0;
  accepted = 0n;
  /** FEATURES_OK came from the driver, and stayed: both sides know what is agreed upon. */
  hasAgreed = false;
  generation = 0;
  configVector = NO_VECTOR;
  /** How often the driver reset the device. */
  resets = 0;
  /** How often it reset a queue alone. */
  queueResets = 0;
  private deviceSelect = 0;
  private driverSelect = 0;
  private queueSelect = 0;
  private resetReadsLeft = 0;
  /** The driver has read that the device needs a reset; before, it cannot keep that bit. */
  private hasSeenNeed = false;
  private generationChangesLeft: number;

  constructor(
    readonly options: CommonOptions,
    private readonly owner: Owner,
  ) {
    this.queues = options.queues.map(({ name, size }, index) => new Queue(index, name, size));
    this.generationChangesLeft = options.generationChanges;
  }

  /** Which 32 feature bits the driver sees now. */
  get shownWord(): number {
    return this.deviceSelect;
  }

  get isLive(): boolean {
    return (this.status & STATUS.driverOk) !== 0 && (this.status & STATUS.needsReset) === 0;
  }

  read({ name }: Register): number {
    const queue = this.queues[this.queueSelect];
    switch (name) {
      case "device_feature_select":
        return this.deviceSelect;
      case "device_feature":
        return this.featureWord(this.options.offered, this.deviceSelect);
      case "driver_feature_select":
        return this.driverSelect;
      case "driver_feature":
        return this.featureWord(this.accepted, this.driverSelect);
      case "config_msix_vector":
        return this.configVector;
      case "num_queues":
        return this.queues.length;
      case "device_status":
        return this.readStatus();
      case "config_generation":
        return this.readGeneration();
      case "queue_select":
        return this.queueSelect;
      default:
        return queue === undefined ? 0 : this.readQueue(name, queue);
    }
  }

  private readQueue(name: string, queue: Queue): number {
    if (name === "queue_size") return queue.size;
    if (name === "queue_msix_vector") return queue.vector;
    if (name === "queue_enable") return Number(queue.enabled);
    if (name === "queue_reset") return this.readQueueReset(queue);
    if (name === "queue_notify_off") return queue.index;
    if (name === "queue_notif_config_data") return queue.notifyData;
    const { field, isLow } = ADDRESSES[name] ?? {};
    const address = field === undefined ? 0 : queue[field];
    return isLow === true ? address % HIGH : Math.floor(address / HIGH);
  }

  private readQueueReset(queue: Queue): number {
    if (queue.resetReadsLeft === 0) return 0;
    queue.resetReadsLeft--;
    return 1;
  }

  write({ name, writable }: Register, value: number): void {
    if (!writable) throw new DriverError(`§4.1.4.3.2: write to ${name}`);
    switch (name) {
      case "device_feature_select":
        this.deviceSelect = value;
        return;
      case "driver_feature_select":
        this.driverSelect = value;
        return;
      case "driver_feature":
        this.accept(value);
        return;
      case "config_msix_vector":
        this.configVector = this.bindVector(value);
        return;
      case "device_status":
        this.writeStatus(value);
        return;
      case "queue_select":
        this.queueSelect = value;
        return;
      default:
        this.writeQueue(name, value);
    }
  }

  // ---- features --------------------------------------------------------------------------------

  private featureWord(features: bigint, select: number): number {
    return select < 4 ? Number((features >> (WORD_BITS * BigInt(select))) & WORD) : 0;
  }

  private accept(value: number): void {
    if ((this.status & STATUS.featuresOk) !== 0) {
      throw new DriverError("§3.1.1: driver_feature written after FEATURES_OK");
    }
    if ((this.status & STATUS.driver) === 0) {
      throw new DriverError("§3.1.1: driver_feature written before DRIVER");
    }
    const shift = WORD_BITS * BigInt(this.driverSelect);
    this.accepted = (this.accepted & ~(WORD << shift)) | (BigInt(value) << shift);
  }

  // ---- status ----------------------------------------------------------------------------------

  private readStatus(): number {
    if (this.resetReadsLeft > 0) {
      this.resetReadsLeft--;
      if (this.resetReadsLeft === 0) this.status = 0;
      else return this.status | 0x20;
    }
    this.hasSeenNeed = (this.status & STATUS.needsReset) !== 0;
    return this.status;
  }

  private writeStatus(written: number): void {
    if (written === 0) {
      this.reset();
      return;
    }
    // That bit is the device's: it stays when the device set it after the driver's last look.
    const kept = this.hasSeenNeed ? 0 : this.status & STATUS.needsReset;
    const value = written | kept;
    if (this.resetReadsLeft > 0) {
      throw new DriverError("§4.1.4.3.2: status written before the reset reads back as 0");
    }
    const added = value & ~this.status;
    const dropped = this.status & ~value;
    if (dropped !== 0) throw new DriverError(`§2.1.1: status bits ${dropped} dropped`);
    if ((this.status & STATUS.failed) !== 0) {
      throw new DriverError("§2.1.1: bring-up goes on after FAILED, without a reset");
    }
    this.checkOrder(added);
    this.status = value;
    if ((added & STATUS.featuresOk) !== 0) this.finishFeatures();
    if ((added & STATUS.driverOk) !== 0) this.owner.start();
  }

  /** Back to the beginning: the driver asks for it, or the device is taken out. */
  reset(): void {
    this.owner.stop();
    this.resets++;
    this.accepted = 0n;
    this.hasAgreed = false;
    this.configVector = NO_VECTOR;
    for (const queue of this.queues) queue.reset();
    this.resetReadsLeft = this.options.resetReads;
    if (this.resetReadsLeft === 0) this.status = 0;
  }

  private checkOrder(added: number): void {
    let before = 0;
    for (const bit of BITS_IN_ORDER) {
      if ((added & bit) !== 0 && (this.status & before) !== before) {
        throw new DriverError(`§3.1.1: status bit ${bit} set while the status is ${this.status}`);
      }
      before |= bit;
    }
    if ((added & STATUS.driverOk) === 0) return;
    const missing = this.owner.needed().find(({ enabled }) => !enabled);
    if (missing !== undefined) {
      throw new DriverError(`§3.1.1: DRIVER_OK before ${missing.name} is enabled`);
    }
  }

  private finishFeatures(): void {
    const wrong = judgeAccepted(this.options.offered, this.accepted);
    const legacy = !has(this.accepted, "version_1");
    if (wrong !== undefined || legacy || this.options.refusesFeatures) {
      this.status &= ~STATUS.featuresOk;
    }
    if (wrong !== undefined) throw new DriverError(wrong);
    if (legacy) throw new DriverError("§6.1: VERSION_1 is not accepted");
    this.hasAgreed = (this.status & STATUS.featuresOk) !== 0;
    this.owner.negotiated();
  }

  private readGeneration(): number {
    if (this.generationChangesLeft > 0) {
      this.generationChangesLeft--;
      this.generation++;
    }
    return this.generation & 0xff;
  }

  // ---- queues ----------------------------------------------------------------------------------

  private bindVector(value: number): number {
    if (value !== NO_VECTOR && value >= this.owner.vectors) {
      throw new DriverError(`§4.1.5.1.2.2: vector ${value} of ${this.owner.vectors}`);
    }
    return value;
  }

  private writeQueue(name: string, value: number): void {
    const queue = this.queues[this.queueSelect];
    if (queue === undefined)
      throw new DriverError(`${name}: there is no queue ${this.queueSelect}`);
    if (name === "queue_reset") {
      this.resetQueue(queue, value);
      return;
    }
    // What was agreed upon counts, also where the device itself takes the bit away.
    const isEarly = !this.hasAgreed;
    if (isEarly || ((this.status & STATUS.driverOk) !== 0 && !queue.wasReset)) {
      throw new DriverError(`§3.1.1: ${name} of ${queue.name} written in status ${this.status}`);
    }
    if (queue.resetReadsLeft > 0) {
      throw new DriverError(`§4.1.4.3.2: ${name} written before the queue's reset is over`);
    }
    if (queue.enabled) throw new DriverError(`§4.1.4.3.2: ${name} written after queue_enable`);
    if (name === "queue_size") this.resize(queue, value);
    else if (name === "queue_msix_vector") queue.vector = this.bindVector(value);
    else if (name === "queue_enable") this.enable(queue, value);
    else this.writeAddress(queue, name, value);
  }

  /** virtio 1.4 §2.6.1, §4.1.4.3.2 */
  private resetQueue(queue: Queue, value: number): void {
    const { name } = queue;
    if (!has(this.accepted, "ring_reset")) {
      throw new DriverError(`§2.6.1: queue_reset of ${name} without RING_RESET`);
    }
    if (value !== 1) throw new DriverError(`§4.1.4.3.2: ${value} written to queue_reset`);
    if (!queue.enabled) throw new DriverError(`§2.6.1: queue_reset of ${name}, which is not on`);
    this.owner.stopQueue(queue);
    queue.reset();
    queue.wasReset = true;
    queue.resetReadsLeft = this.options.queueResetReads;
    this.queueResets++;
  }

  private resize(queue: Queue, value: number): void {
    const isPower = value > 0 && (value & (value - 1)) === 0;
    if (this.isPacked && value === 0) throw new DriverError("§4.1.4.3.2: queue_size 0");
    if (!this.isPacked && !isPower) {
      throw new DriverError(`§4.1.4.3.2: queue_size ${value} is no power of two`);
    }
    if (value > queue.sizeMax) throw new DriverError(`queue_size ${value} beyond ${queue.sizeMax}`);
    queue.size = value;
  }

  private writeAddress(queue: Queue, name: string, value: number): void {
    const { field, isLow } = ADDRESSES[name] ?? {};
    if (field === undefined) return;
    const old = queue[field];
    const low = isLow === true ? value : old % HIGH;
    const high = isLow === true ? Math.floor(old / HIGH) : value;
    queue[field] = high * HIGH + low;
  }

  private enable(queue: Queue, value: number): void {
    if (value !== 1) throw new DriverError(`§4.1.4.3.2: ${value} written to queue_enable`);
    const { name } = queue;
    for (const { part, bytes, alignment, address } of this.partsOf(queue)) {
      const clause = this.isPacked ? "§2.8.11" : "§2.7.1";
      if (address % alignment !== 0) throw new DriverError(`${clause}: ${name} ${part}: alignment`);
      const arena = this.owner.ram.find(address, bytes, `${name} ${part}`);
      if (!this.isPacked) continue;
      const start = address - arena.base;
      const isZero = arena.array.subarray(start, start + bytes).every((byte) => byte === 0);
      if (part === "desc" && !isZero) throw new DriverError(`§2.8.13: ${name}: ring is not zero`);
    }
    queue.enabled = true;
    if (queue.wasReset) this.owner.startQueue(queue);
    queue.wasReset = false;
  }

  private get isPacked(): boolean {
    return has(this.accepted, "ring_packed");
  }

  private partsOf({ size, desc, driver, device }: Queue) {
    if (this.isPacked) {
      return [
        { part: "desc", bytes: 16 * size, alignment: 16, address: desc },
        { part: "driver", bytes: 4, alignment: 4, address: driver },
        { part: "device", bytes: 4, alignment: 4, address: device },
      ];
    }
    return [
      { part: "desc", bytes: 16 * size, alignment: 16, address: desc },
      { part: "driver", bytes: 6 + 2 * size, alignment: 2, address: driver },
      { part: "device", bytes: 6 + 8 * size, alignment: 4, address: device },
    ];
  }
}
