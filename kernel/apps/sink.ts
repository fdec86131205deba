/**
 * app=sink: counts and drops what it receives; the queue's own counters are the count. main.ts
 * makes one for a queue pair and calls step() again and again. Where there is an address, or one
 * is looked for, ARP, neighbour discovery and DHCP have to be heard, so frames are looked at;
 * otherwise none is.
 */
import * as config from "../config";
import { Burst, BURST_MAX, Packet } from "../../drivers/net/packet";
import { QueuePair } from "../../drivers/net/queue-pair";
import { TURNFUL } from "../../drivers/virtio/ring";
import { isArp } from "../net/ethernet";
import { Stack } from "../net/stack";
import { isDiscovery } from "../net/stack6";
import { NEVER, deadlineIn } from "../time";

export class Sink {
  /** The time that `duration` allows is over. */
  done: bool = false;

  private readonly received: Burst = Burst.create();
  private end: u64 = NEVER;
  private started: bool = false;

  constructor(
    readonly pair: QueuePair,
    readonly stack: Stack,
  ) {}

  /** The device was reset: nothing is kept between steps, so there is nothing to let go of. */
  restart(): void {}

  /** Takes a burst and drops it. False when there was none. `duration` runs from the first call. */
  step(now: u64): bool {
    if (!this.started) {
      this.started = true;
      if (config.duration != 0) this.end = deadlineIn(<u64>config.duration * 1_000_000);
    }
    if (now >= this.end) this.done = true;
    if (this.stack.listens ? this.listen() : this.discard()) return true;
    // Nobody else does it, and what is left in a small ring would keep us awake.
    this.pair.reclaim();
    return false;
  }

  /** Drops what there is, a ring of it at most. False when there was none. */
  private discard(): bool {
    const pair = this.pair;
    const ring = pair.rx.ring;
    return !pair.shouldWait(ring, TURNFUL) && pair.discard(ring.size) > 0;
  }

  /** Takes a burst, and lets the stack see what is for it. False when there was none. */
  private listen(): bool {
    const pair = this.pair;
    const received = this.received;
    received.clear();
    if (pair.take(received, BURST_MAX) == 0) return false;
    const count = received.count;
    let left: u32 = 0;
    for (let i: u32 = 0; i < count; i++) {
      const packet = received.get(i);
      if (this.isForStack(packet) && this.stack.receive(packet) && pair.send(packet)) continue;
      received.put(left++, packet);
    }
    received.count = left;
    pair.giveBack(received);
    return true;
  }

  /** ARP and neighbour discovery always; anything while DHCP waits for its messages. */
  private isForStack(packet: Packet): bool {
    if (packet.next != null) return false;
    return isArp(packet) || isDiscovery(packet) || this.stack.net.configuring;
  }

  /** When step() is due without any packet. */
  deadline(): u64 {
    return this.done ? NEVER : this.end;
  }
}
