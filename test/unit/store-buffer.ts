// The CPU's store buffer, as seen by a device: what the driver stores into the words that the device
// polls is not seen before a full barrier, or some time later. On x86 that is the one way in which
// two sides can miss each other. Used by races.test.ts, which lets the device act in the midst of a
// guest's step.

import type { Vcpu } from "../model/machine/vcpu";
import type { Random } from "../model/random";
import type { Queue } from "../model/virtio/queue";

export class StoreBuffer {
  /** Offsets in the arena of avail flags, avail index and used_event of each queue. */
  private readonly words: readonly number[];
  /** What the device sees of them, and what the driver has stored. */
  private readonly seen: Uint16Array;
  private readonly stored: Uint16Array;
  private barriers = 0;

  constructor(
    private readonly cpu: Vcpu,
    queues: readonly Queue[],
    private readonly random: Random,
  ) {
    this.words = queues.flatMap(({ driver, size }) => {
      const at = driver - cpu.arena.base;
      return [at, at + 2, at + 4 + 2 * size];
    });
    this.seen = new Uint16Array(this.words.length);
    this.stored = new Uint16Array(this.words.length);
    this.drain();
  }

  /** Everything stored so far is seen from now on. */
  drain(): void {
    this.barriers = this.cpu.fullBarriers;
    this.copyTo(this.seen);
  }

  /** To be called at each access: a barrier has drained the buffer, or time has, now and then. */
  access(): void {
    if (this.cpu.fullBarriers !== this.barriers || this.random.below(64) === 0) this.drain();
  }

  /** Lets the device act on what it sees. */
  act<Result>(work: () => Result): Result {
    this.copyTo(this.stored);
    this.write(this.seen);
    const result = work();
    this.write(this.stored);
    return result;
  }

  private copyTo(values: Uint16Array): void {
    const { view } = this.cpu.arena;
    this.words.forEach((at, index) => {
      values[index] = view.getUint16(at, true);
    });
  }

  private write(values: Uint16Array): void {
    const { view } = this.cpu.arena;
    this.words.forEach((at, index) => {
      view.setUint16(at, values[index] ?? 0, true);
    });
  }
}
