// One virtqueue of a vhost-user device: what the front end has said of it, its ring while it runs,
// and the honest work on it: frames out of a transmit queue, frames into a receive queue. Driven by
// vhost-user-device-session.ts.

import { HarnessError } from "../errors";
import type { GuestMemory } from "./vhost-user-device-memory";
import {
  buildNetHeader,
  DEVICE_FEATURES,
  hasFeature,
  NET_HEADER_BYTES,
  type NetHeaderFields,
} from "./vhost-user-device-net";
import { PackedDeviceRing } from "./vhost-user-device-packed";
import type { VringAddresses } from "./vhost-user-device-protocol";
import { type Chain, type DeviceRing, DriverFault } from "./vhost-user-device-ring";
import { SplitDeviceRing } from "./vhost-user-device-split";
import type { System } from "./vhost-user-device-system";

/** Buffers that one turn takes from a transmit queue before others get theirs. */
const TURN_MAX = 512;

interface Waiting {
  readonly frame: Uint8Array;
  readonly header: NetHeaderFields;
}

/** What a queue tells its device. */
export interface QueueOwner {
  /** The guest has sent a frame. */
  frameFrom(queue: number, frame: Buffer, header: Buffer): void;
  /** A buffer was taken from the ring. */
  took(queue: DeviceQueue, chain: Chain): void;
  /** The driver broke a rule; the queue rests until it is started anew. */
  driverFault(queue: number, message: string): void;
  /** A queue has been started, or is about to be stopped while its ring still stands. */
  started(queue: DeviceQueue): void;
  stopping(queue: DeviceQueue): void;
  /** More is to be done, after others have had their turn. */
  again(queue: DeviceQueue): void;
}

export class DeviceQueue {
  size = 0;
  base = 0;
  addresses: VringAddresses | undefined;
  features = 0n;
  enabled = false;
  kickFd: number | undefined;
  callFd: number | undefined;
  /** The ring while it runs. */
  ring: DeviceRing | undefined;
  /** No honest work is done here, until this is cleared or the queue is started anew. */
  held = false;
  /** No interrupts are sent. */
  silent = false;
  /** Notifications and interrupts since the queue was made. */
  kicks = 0;
  interrupts = 0;
  private readonly backlog: Waiting[] = [];

  constructor(
    readonly index: number,
    readonly memory: GuestMemory,
    private readonly system: System,
    private readonly owner: QueueOwner,
  ) {}

  /** Receive queues are the even ones. virtio 1.4 §5.1.2 */
  get receives(): boolean {
    return this.index % 2 === 0;
  }

  get name(): string {
    return `${this.receives ? "rx" : "tx"} queue ${this.index}`;
  }

  get running(): boolean {
    return this.ring !== undefined && this.enabled;
  }

  get isPacked(): boolean {
    return hasFeature(this.features, DEVICE_FEATURES.packed);
  }

  start(): void {
    const { addresses, base, features, memory, name, receives, size } = this;
    if (addresses === undefined || size === 0) throw new HarnessError(`${name} has no ring`);
    const setup = {
      ...{ name, size, base, receives },
      desc: memory.fromUser(addresses.desc),
      driver: memory.fromUser(addresses.avail),
      device: memory.fromUser(addresses.used),
      eventIdx: hasFeature(features, DEVICE_FEATURES.event_idx),
      indirect: hasFeature(features, DEVICE_FEATURES.indirect_desc),
    };
    this.held = false;
    this.silent = false;
    const Format = this.isPacked ? PackedDeviceRing : SplitDeviceRing;
    this.ring = new Format(memory, setup);
    this.owner.started(this);
  }

  /** Ends the ring's work and answers where it stood. */
  stop(): number {
    const { ring } = this;
    if (ring !== undefined) {
      this.owner.stopping(this);
      this.base = ring.base();
    }
    this.ring = undefined;
    this.setKick(undefined);
    this.setCall(undefined);
    return this.base;
  }

  setKick(fd: number | undefined): void {
    if (this.kickFd !== undefined) this.system.close(this.kickFd);
    this.kickFd = fd;
  }

  setCall(fd: number | undefined): void {
    if (this.callFd !== undefined) this.system.close(this.callFd);
    this.callFd = fd;
  }

  /** Sends an interrupt, whether the driver wants one or not. */
  interrupt(): void {
    if (this.callFd === undefined) return;
    this.interrupts++;
    this.system.signal(this.callFd);
  }

  /** The honest work that there is: after a notification, and whenever something has changed. */
  work(): void {
    const { ring } = this;
    if (ring === undefined || !this.enabled || this.held) return;
    try {
      const isMore = this.receives ? this.fill(ring) : this.empty(ring);
      if (isMore) this.owner.again(this);
    } catch (error) {
      if (!(error instanceof DriverFault)) throw error;
      this.held = true;
      this.owner.driverFault(this.index, error.message);
    }
  }

  /** Tells the driver what was given back. */
  flush(ring: DeviceRing): void {
    ring.publish();
    if (ring.wantsInterrupt() && !this.silent) this.interrupt();
  }

  // ---- transmit --------------------------------------------------------------------------------

  private empty(ring: DeviceRing): boolean {
    ring.disableNotifications();
    for (let turns = 0; turns < TURN_MAX; ) {
      const chain = ring.take();
      if (chain !== undefined) {
        this.owner.took(this, chain);
        this.sendOut(chain);
        ring.give(chain, 0);
        turns++;
        continue;
      }
      this.flush(ring);
      ring.enableNotifications();
      const late = ring.take();
      if (late === undefined) return false;
      ring.untake([late]);
    }
    this.flush(ring);
    return true;
  }

  private sendOut({ segments }: Chain): void {
    const all = Buffer.concat(
      segments.map(({ address, bytes }) => this.memory.bytes(address, bytes)),
    );
    if (all.length <= NET_HEADER_BYTES) {
      throw new DriverFault(`${this.name}: a buffer of ${all.length} bytes is no frame`);
    }
    const frame = all.subarray(NET_HEADER_BYTES);
    this.owner.frameFrom(this.index, frame, all.subarray(0, NET_HEADER_BYTES));
  }

  // ---- receive ---------------------------------------------------------------------------------

  /** Gives a frame to the guest, now or as soon as there are buffers. */
  push(frame: Uint8Array, header: NetHeaderFields): void {
    this.backlog.push({ frame, header });
    this.work();
  }

  /** Drops the frames that wait for buffers. */
  forget(): void {
    this.backlog.length = 0;
  }

  /** Frames that wait for buffers. */
  get waiting(): number {
    return this.backlog.length;
  }

  /** Puts waiting frames into buffers; asks for a notification when there are too few. */
  private fill(ring: DeviceRing): boolean {
    ring.disableNotifications();
    for (let next = this.backlog[0]; next !== undefined; next = this.backlog[0]) {
      if (!this.deliver(ring, next)) {
        this.flush(ring);
        ring.enableNotifications();
        if (!this.deliver(ring, next)) return false;
      }
      this.backlog.shift();
    }
    this.flush(ring);
    return false;
  }

  /** False when there are too few buffers for it yet. */
  private deliver(ring: DeviceRing, { frame, header }: Waiting): boolean {
    const wanted = NET_HEADER_BYTES + frame.length;
    const chains: Chain[] = [];
    for (let room = 0; room < wanted; ) {
      const chain = ring.take();
      if (chain === undefined) {
        ring.untake(chains);
        return false;
      }
      chains.push(chain);
      room += chain.segments.reduce((sum, { bytes }) => sum + bytes, 0);
    }
    if (chains.length > 1 && !hasFeature(this.features, DEVICE_FEATURES.mrg_rxbuf)) {
      ring.untake(chains);
      throw new HarnessError(`${this.name}: a frame of ${frame.length} bytes, and no mrg_rxbuf`);
    }
    const all = Buffer.concat([buildNetHeader(header, chains.length), frame]);
    let at = 0;
    for (const chain of chains) {
      this.owner.took(this, chain);
      const before = at;
      for (const { address, bytes } of chain.segments) {
        const piece = all.subarray(at, at + bytes);
        this.memory.write(address, piece);
        at += piece.length;
      }
      ring.give(chain, at - before);
    }
    return true;
  }
}
