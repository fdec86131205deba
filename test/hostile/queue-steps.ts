// A device's queue as single steps: between two of them the driver may do whatever it wants. Each
// step does at most one thing that the driver can see. The ring format is the ring's business: only
// its verbs are used. Used by interleavings.test.ts.

import type { Live } from "../model/net/live";
import type { NetDevice } from "../model/net/net-device";
import { HEADER_BYTES, PLAIN, writeHeader } from "../model/net/net-header";
import type { Chain } from "../model/virtio/chain";

/** What a queue waits for before its next step. */
type Wait = "nothing" | "notification" | "end";

export abstract class QueueSteps {
  private readonly script: Generator<Wait>;
  private wait: Wait = "nothing";
  private steps = 0;
  /** What it has read, as far as it matters. */
  private seen = "";

  /** `batches`: buffers are given back as many at a time as there are. */
  constructor(
    protected readonly device: NetDevice,
    protected readonly live: Live,
    protected readonly batches: boolean,
  ) {
    this.script = this.run();
  }

  isAble(): boolean {
    if (this.wait === "end") return false;
    return this.wait === "nothing" || this.live.queue.kicked;
  }

  step(): void {
    this.steps++;
    if (this.wait === "notification") this.live.queue.kicked = false;
    const { done, value } = this.script.next();
    this.wait = done === true ? "end" : value;
  }

  /** Where it is, and what it knows. */
  get state(): string {
    const { queue } = this.live;
    return `${this.steps}${this.seen}${queue.kicked ? "k" : ""}${queue.interrupts}`;
  }

  protected note(value: number): void {
    this.seen += `,${value}`;
  }

  protected abstract run(): Generator<Wait>;

  /** How many buffers there are; asks for a notification, and looks again, when there is none. */
  protected *look(): Generator<Wait, number> {
    for (;;) {
      let count = this.live.ring.available();
      this.note(count);
      yield "nothing";
      if (count > 0) return count;
      this.live.ring.enableNotifications();
      yield "nothing";
      count = this.live.ring.available();
      this.note(count);
      if (count > 0) return count;
      yield "notification";
    }
  }

  /** Gives buffers back: element, index, interrupt, each for itself. */
  protected *giveBack(chains: readonly Chain[], bytes: number): Generator<Wait> {
    for (const chain of chains) this.live.ring.give(chain, bytes);
    yield "nothing";
    this.live.ring.publish();
    yield "nothing";
    const wants = this.live.ring.wantsInterrupt();
    this.note(Number(wants));
    if (wants) this.device.pci.interruptQueue(this.live.queue);
  }
}

/** Receives frames into the guest. */
export class ReceiveSteps extends QueueSteps {
  constructor(
    device: NetDevice,
    live: Live,
    private readonly frames: readonly Uint8Array[],
    batches: boolean,
  ) {
    super(device, live, batches);
  }

  protected *run(): Generator<Wait> {
    for (const frame of this.frames) {
      yield* this.look();
      this.live.ring.disableNotifications();
      yield "nothing";
      const chain = this.live.ring.take();
      const content = Buffer.alloc(HEADER_BYTES + frame.length);
      writeHeader(content, { ...PLAIN, numBuffers: 1 });
      content.set(frame, HEADER_BYTES);
      const written = chain.write(content);
      yield* this.giveBack([chain], written);
      yield "nothing";
    }
    yield "end";
  }
}

/** Takes what the guest sends. */
export class TransmitSteps extends QueueSteps {
  readonly sent: Buffer[] = [];

  protected *run(): Generator<Wait> {
    for (;;) {
      let left = yield* this.look();
      this.live.ring.disableNotifications();
      yield "nothing";
      while (left > 0) {
        const count = this.batches ? left : 1;
        const chains = Array.from({ length: count }, () => this.live.ring.take());
        for (const chain of chains) this.sent.push(chain.read().subarray(HEADER_BYTES));
        yield "nothing";
        yield* this.giveBack(chains, 0);
        yield "nothing";
        left -= count;
      }
    }
  }
}
