// What attacks work on, and the queue that a number of theirs means. Implemented by workbench.ts and
// boot-bench.ts; used by attacks.ts and ring-attacks.ts.

import type { Guest } from "../model/guest";
import type { Live } from "../model/net/live";
import type { Oracle } from "./oracle";

/** How long the guest is to be left alone is the workbench's business. */
export interface Target {
  readonly guest: Guest;
  readonly oracle: Oracle;
  /** Frames of the usual kinds, made once. */
  readonly frames: readonly Buffer[];
  /** Lies about registers from here on: the run may end. */
  mayEnd: boolean;
  /** Lies in headers: an echo carries a promise of its sender's on, and the sender lied. */
  headersLie: boolean;
  /** Has written to buffers that may be the driver's again: what is sent may be the device's. */
  wasTouched: boolean;
  /** Time to let pass, in microseconds, before the next attack. */
  waitUs: number;
}

export type Act = (target: Target, a: number, b: number, c: number) => void;

/** A running queue by a number: receive and transmit of each pair, then the control queue. */
export function queueOf(target: Target, a: number): Live | undefined {
  const { nic } = target.guest;
  const all: Live[] = nic.pairs.flatMap(({ rx, tx }) => [rx, tx]);
  if (nic.controlLive !== undefined) all.push(nic.controlLive);
  const queue = all[a % Math.max(1, all.length)];
  // One that is being reset alone has no ring.
  if (queue?.queue.enabled !== true) return undefined;
  // While the device is brought up, its answers decide whether it can be used.
  if (queue === nic.controlLive) target.mayEnd = true;
  return queue;
}
