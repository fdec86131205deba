// One virtqueue of a running device: the ring, who watches it, and where the device stands with it.
// Made by NetDevice at DRIVER_OK, gone with the next reset.

import { ModelError } from "../errors";
import type { Machine } from "../machine/machine";
import type { Vcpu } from "../machine/vcpu";
import { type DeviceRing, openRing, type RingAudit, type RingOptions } from "../virtio/device-ring";
import { PackedRing } from "../virtio/packed-ring";
import type { Queue } from "../virtio/queue";
import { SplitRing } from "../virtio/split-ring";
import type { Arrival } from "./net-receiver";

export class Live {
  readonly ring: DeviceRing;
  readonly audit: RingAudit;
  /** The CPU in whose memory the ring lies. */
  readonly cpu: Vcpu;
  /** Receive: frames that wait for buffers; and the ring was empty, so nothing is done before a
   * notification comes. */
  readonly waiting: Arrival[] = [];
  starved = false;
  /** Transmit: a turn ended with its batch, there may be more. */
  awake = false;
  /** What went through it since DRIVER_OK. */
  packets = 0;
  bytes = 0;
  drops = 0;

  constructor(
    machine: Machine,
    readonly queue: Queue,
    options: RingOptions,
  ) {
    const owner = machine.cpus.find(
      ({ arena }) => arena.base <= queue.desc && queue.desc < arena.base + arena.bytes,
    );
    this.cpu = owner ?? machine.bootCpu;
    const { ring, audit } = openRing(machine, this.cpu, queue, options);
    this.ring = ring;
    this.audit = audit;
  }

  /** The ring, for tests that know its format. */
  get split(): SplitRing {
    if (this.ring instanceof SplitRing) return this.ring;
    throw new ModelError(`${this.queue.name} is no split ring`);
  }

  get packed(): PackedRing {
    if (this.ring instanceof PackedRing) return this.ring;
    throw new ModelError(`${this.queue.name} is no packed ring`);
  }

  count(bytes: number): void {
    this.packets++;
    this.bytes += bytes;
  }
}

/** A receive and a transmit queue. */
export interface LivePair {
  readonly rx: Live;
  readonly tx: Live;
}
