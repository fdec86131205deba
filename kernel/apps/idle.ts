/**
 * app=idle: answers nothing. It only takes packets and gives their buffers back, so that the device
 * does not stall; DHCP and routers are heard if they were asked for. main.ts makes one for a queue
 * pair and calls step().
 */
import { Burst, BURST_MAX } from "../../drivers/net/packet";
import { QueuePair } from "../../drivers/net/queue-pair";
import { Stack } from "../net/stack";
import { isDiscovery } from "../net/stack6";
import { NEVER } from "../time";

export class Idle {
  /** It never ends of itself. */
  readonly done: bool = false;

  private readonly received: Burst = Burst.create();

  constructor(
    readonly pair: QueuePair,
    readonly stack: Stack,
  ) {}

  /** The device was reset: nothing is kept between steps. */
  restart(): void {}

  /** Takes a burst and releases it. False when there was none. */
  step(now: u64): bool {
    const pair = this.pair;
    const received = this.received;
    received.clear();
    if (pair.take(received, BURST_MAX) == 0) {
      // Nobody else does it, and what is left in a small ring would keep us awake.
      pair.reclaim();
      return false;
    }
    for (let i: u32 = 0; i < received.count; i++) {
      const packet = received.get(i);
      // Whatever the stack would answer is not sent.
      const isHeard = this.stack.net.configuring || isDiscovery(packet);
      if (isHeard && this.stack.listens) this.stack.receive(packet);
    }
    pair.giveBack(received);
    return true;
  }

  /** When step() is due without any packet. */
  deadline(): u64 {
    return NEVER;
  }
}
