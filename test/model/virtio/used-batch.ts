// With IN_ORDER one used entry may stand for several buffers: it names the last, and the others
// count as used whole. This gathers what is given back until an entry must be written. Used by both
// ring formats. virtio 1.4 §2.7.9, §2.8.8

import type { Chain } from "./chain";

export class UsedBatch {
  private readonly chains: Chain[] = [];

  constructor(
    /** The most buffers an entry stands for. */
    private readonly most: number,
    /** Writes the entry: of these buffers, and this much into the last. */
    private readonly write: (chains: readonly Chain[], bytes: number) => void,
  ) {}

  add(chain: Chain, bytes: number): void {
    this.chains.push(chain);
    // The driver takes a buffer without an entry for full, so one that is not ends the batch.
    if (bytes === chain.writableBytes && this.chains.length < this.most) return;
    this.end(bytes);
  }

  /** What was gathered gets its entry now. */
  flush(): void {
    this.end(this.chains.at(-1)?.writableBytes ?? 0);
  }

  private end(bytes: number): void {
    if (this.chains.length > 0) this.write(this.chains.splice(0), bytes);
  }
}
