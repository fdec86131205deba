// What a ring format offers to the device: buffers to take and to give back, and the suppression of
// notifications in both directions. split-ring.ts and packed-ring.ts implement it; `openRing` and
// `openAudit` choose by what was negotiated. Used by net/.

import type { Machine } from "../machine/machine";
import type { Vcpu } from "../machine/vcpu";
import type { Watcher } from "../machine/watcher";
import { QueueAudit } from "./audit";
import type { Chain } from "./chain";
import { PackedAudit } from "./packed-audit";
import { PackedRing } from "./packed-ring";
import type { Queue } from "./queue";
import { SplitRing } from "./split-ring";

export interface RingOptions {
  readonly packed: boolean;
  readonly eventIdx: boolean;
  readonly indirect: boolean;
  readonly inOrder: boolean;
  /** With inOrder: the most buffers that one used entry stands for. */
  readonly usedBatch: number;
  /** Who writes: the device (receive), the driver (transmit), or first one, then the other. */
  readonly use: "receive" | "transmit" | "command";
}

export interface DeviceRing {
  readonly queue: Queue;
  readonly options: RingOptions;
  /** Buffers given back so far, modulo 65,536. */
  readonly usedIdx: number;
  /** What a notification must say of where the driver goes on. virtio 1.4 §2.9 */
  readonly nextOffer: number;
  available(): number;
  /** What the driver has made available and has not got back, in the ring's own measure. */
  held(): number;
  take(): Chain;
  untake(chains: readonly Chain[]): void;
  give(chain: Chain, bytes: number): void;
  writeUsed(id: number, bytes: number): void;
  publish(): void;
  wantsInterrupt(): boolean;
  enableNotifications(): void;
  disableNotifications(): void;
}

/** Watches the driver's accesses to a ring. */
export interface RingAudit extends Watcher {
  /** Notifications that the rule asked for since the device started. */
  readonly required: number;
  notified(): void;
  settle(): void;
  close(): void;
  /** The device is gone, in the midst of whatever the driver does: nothing has to follow. */
  abandon(): void;
  /** How much that was given back, in the ring's own measure, the driver has not read. */
  unread(): number;
}

/** The ring of a queue and who watches its driver. */
export function openRing(
  machine: Machine,
  cpu: Vcpu,
  queue: Queue,
  options: RingOptions,
): { readonly ring: DeviceRing; readonly audit: RingAudit } {
  if (options.packed) {
    const ring = new PackedRing(machine.ram, queue, options);
    return { ring, audit: new PackedAudit(machine, cpu, ring) };
  }
  const ring = new SplitRing(machine.ram, queue, options);
  return { ring, audit: new QueueAudit(machine, cpu, ring) };
}
