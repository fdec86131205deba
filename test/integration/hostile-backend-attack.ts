// What an attack of a vhost-user device is, for the files that have them.

import type { Chain } from "qemu-test-harness";
import { ringOf, type Scene } from "./hostile-backend-scene";

export interface BackendAttack {
  readonly name: string;
  readonly queue: "receive" | "transmit";
  /** Where only one format has such a thing. */
  readonly ring?: "split" | "packed";
  /** The driver must notice: an error event that says so, and a reset of its own accord. */
  readonly error?: RegExp;
  /** It costs packets, which are counted: for this reason, or for any. */
  readonly drop?: string;
  /** The ring is beyond use, or may be; afterwards the guest is told to reset the device. */
  readonly spoils?: boolean;
  readonly run: (scene: Scene, pair: number) => Promise<void> | void;
}

export function firstOf(chains: readonly Chain[]): Chain {
  const [first] = chains;
  if (first === undefined) throw new Error("the ring has no buffer");
  return first;
}

/** A buffer of the receive queue, taken out of the hands of the honest device. */
export function takeOne(scene: Scene, pair: number): Chain {
  const queue = scene.rx(pair);
  const chain = ringOf(queue).take();
  if (chain === undefined) throw new Error(`${queue.name} has no buffer`);
  return chain;
}
