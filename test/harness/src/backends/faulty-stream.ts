// The `stream` backend with a bad network in front of the guest: what the test sends goes through a
// FaultLine. What the guest sends comes unchanged, so that everything it does can be judged.

import { delay } from "../deadline";
import { type FaultCounts, FaultLine, type FaultRates, type LineFrame } from "../fault-line";
import { StreamBackend } from "./stream";

export class FaultyStreamBackend extends StreamBackend {
  private line: FaultLine | undefined;
  private queue: Promise<void> = Promise.resolve();
  /** Frames given to the guest, by whether they were as sent. */
  delivered = { intact: 0, corrupted: 0 };

  /** From now on the network is bad. */
  faults(seed: number, rates: FaultRates): void {
    this.line = new FaultLine(seed, rates);
    this.delivered = { intact: 0, corrupted: 0 };
  }

  /** Gives out what is held back; from now on the network is good. Returns what has happened. */
  async calm(): Promise<FaultCounts> {
    const { line } = this;
    if (line === undefined) throw new Error("calm: the network is good already");
    await this.deliver(line.flush());
    this.line = undefined;
    return line.counts;
  }

  override async sendBurst(frames: readonly Uint8Array[]): Promise<void> {
    const { line } = this;
    if (line === undefined) return super.sendBurst(frames);
    return this.deliver(frames.flatMap((frame) => line.push(frame)));
  }

  /** In order, also when the callers do not wait for each other. */
  private deliver(items: readonly LineFrame[]): Promise<void> {
    const next = this.queue.then(async () => {
      for (const { frame, corrupted, delayMs } of items) {
        if (delayMs > 0) await delay(delayMs);
        await super.sendBurst([frame]);
        this.delivered[corrupted ? "corrupted" : "intact"]++;
      }
    });
    this.queue = next.catch(() => undefined);
    return next;
  }
}

/** A new stream backend whose network can be made bad, for one VM. */
export function faultyStream(): FaultyStreamBackend {
  return new FaultyStreamBackend();
}
