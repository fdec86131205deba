// What the matrix asks of a kind of backend: cards for one boot, a way to exchange content with the
// guest through each, and the backend's own count of frames. Implemented by socket-benches.ts and
// kernel-benches.ts.

import type { Backend, DeviceOptions } from "../backends/backend";
import type { BackendName, Cell } from "./cells";

/** See Bench.window. */
export const DPDK_WINDOW = 4;

export interface Exchange {
  /** UDP payloads, in bytes, that each flow sends one after the other. */
  readonly bytes: readonly number[];
  readonly flows: number;
  /** So many flows are under way at a time. */
  readonly window: number;
  readonly timeoutMs: number;
}

export interface Exchanged {
  readonly sent: number;
  /** Came back unchanged. */
  readonly right: number;
  /** The first thing that was wrong; empty when nothing was. */
  readonly wrong: string;
}

/** Frames by the backend's own count, the guest's side not asked. */
export interface FrameCounts {
  readonly toGuest: number;
  readonly fromGuest: number;
}

export interface Card {
  readonly backend: Backend;
  /** Further properties of QEMU's device. */
  readonly options?: DeviceOptions;
  /** For the guest: `a.b.c.d/len`. */
  readonly address: string;
  /** Sends datagrams to the guest's echo service and checks each that comes back. */
  exchange(load: Exchange): Promise<Exchanged>;
  /** Undefined where the backend counts nothing. */
  counts(): Promise<FrameCounts | undefined>;
}

export interface Bench {
  readonly name: BackendName;
  /** The most queue pairs that it can have. */
  readonly mostQueues: number;
  /** True when all cards of a boot must have the same number of queues. */
  readonly uniform: boolean;
  /** False when only some queues are used, however many flows there are. */
  readonly spreads: boolean;
  /**
   * The most datagrams under way at a time. DPDK drops what a guest has no buffer for, and without
   * mergeable buffers a ring holds few; the others wait.
   */
  readonly window: number;
  /** True when the cards of a boot hear each other's broadcasts. */
  readonly oneLink: boolean;
  /** Why this machine cannot run it, and whether the lab can. */
  unavailable(): Promise<{ reason: string; labHasIt: boolean } | undefined>;
  open(): Promise<void>;
  /** Cards for the cells of one boot, ready for QEMU to be started. */
  cards(cells: readonly Cell[]): Promise<readonly Card[]>;
  /** Ends what `cards` has made; QEMU has ended. */
  release(): Promise<void>;
  close(): Promise<void>;
}
