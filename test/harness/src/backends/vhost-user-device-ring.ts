// What the two ring formats of a vhost-user device have in common. vhost-user-device-split.ts and
// -packed.ts are the formats; vhost-user-device-queue.ts drives them.
//
// The honest verbs (`take`, `give`, `publish` and the suppression) check everything that the driver
// wrote against what it must do, and throw a DriverFault. `writeUsed` and what the formats have
// beside it write whatever they are told.

import { HarnessError } from "../errors";
import type { GuestMemory } from "./vhost-user-device-memory";

/** The driver broke a rule of the ring. */
export class DriverFault extends HarnessError {
  override name = "DriverFault";
}

export const DESC_BYTES = 16;
export const F_NEXT = 1;
export const F_WRITE = 2;
export const F_INDIRECT = 4;

/** What a ring is started with. Addresses are the guest's. */
export interface RingSetup {
  readonly name: string;
  readonly size: number;
  readonly desc: number;
  /** The driver's area (avail ring, event suppression) and the device's (used ring). */
  readonly driver: number;
  readonly device: number;
  /** As SET_VRING_BASE has it. */
  readonly base: number;
  readonly eventIdx: boolean;
  readonly indirect: boolean;
  /** The device writes into its buffers. */
  readonly receives: boolean;
}

export interface Segment {
  readonly address: number;
  readonly bytes: number;
  readonly writable: boolean;
}

/** A buffer that the driver has made available. */
export interface Chain {
  /** The head (split) or buffer id (packed). */
  readonly id: number;
  /** Descriptors of the ring that it takes. */
  readonly slots: number;
  readonly segments: readonly Segment[];
}

/** A part of guest memory that belongs to a ring. */
export interface Area {
  readonly address: number;
  readonly bytes: number;
}

export interface DeviceRing {
  readonly setup: RingSetup;
  /** The three parts, as long as the device may think they are. */
  readonly areas: Readonly<Record<"desc" | "driver" | "device", Area>>;
  /** The next buffer, or undefined when there is none. Throws DriverFault. */
  take(): Chain | undefined;
  /** Puts back the buffers that were taken last. */
  untake(chains: readonly Chain[]): void;
  /** Gives a buffer back into which `bytes` were written; seen with `publish`. */
  give(chain: Chain, bytes: number): void;
  publish(): void;
  /** Whether the driver wants an interrupt for what was published since the last call. */
  wantsInterrupt(): boolean;
  /** Asks for a notification with the next buffer; the caller then looks once more. */
  enableNotifications(): void;
  disableNotifications(): void;
  /** As GET_VRING_BASE answers it. */
  base(): number;
  /** Writes the next used element or descriptor, whatever it says; seen with `publish`. */
  writeUsed(id: number, bytes: number): void;
  /** Writes what tells the driver when to notify us, whatever it says. */
  writeSuppression(flags: number, event: number): void;
}

/** Whether moving an index from `old` to `current` passes `event`. virtio 1.4 §2.7.7.2 */
export function passes(event: number, current: number, old: number): boolean {
  return ((current - event - 1) & 0xffff) < ((current - old) & 0xffff);
}

/** Throws for buffers that no device could use. `memory` has what the guest has. */
export function checkSegments(
  memory: GuestMemory,
  { name, receives }: RingSetup,
  segments: readonly Segment[],
): void {
  for (const { address, bytes, writable } of segments) {
    if (bytes === 0) throw new DriverFault(`${name}: a descriptor of 0 bytes`);
    if (writable !== receives) {
      throw new DriverFault(`${name}: a buffer is ${writable ? "" : "not "}writable`);
    }
    if (!memory.has(address, bytes)) {
      throw new DriverFault(`${name}: ${bytes} bytes at 0x${address.toString(16)} are not memory`);
    }
  }
}
