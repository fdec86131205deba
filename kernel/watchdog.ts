/**
 * Watches a lane's transmit queue: a device that has packets and gives none of them back for
 * `watchdog=` seconds is notified once more; after as long again it is reset (nic.ts). Each time
 * that did not help it waits twice as long, so that a device which is stuck for good costs little.
 * Made by lane.ts; it costs a comparison a turn, and an idle lane nothing.
 */
import * as config from "./config";
import * as events from "./events";
import { NEVER, deadlineIn } from "./time";
import { QueuePair } from "../drivers/net/queue-pair";

/** Looks within the time that a queue may stand still. */
const LOOKS: u32 = 4;
/** How often the patience doubles at most: from 10 seconds to 11 minutes. */
const DOUBLINGS_MAX: u32 = 6;

export class Watchdog {
  /** When to look again, a time stamp; of no interest while nothing is outstanding. */
  due: u64 = 0;
  /** How often it did something. */
  actions: u32 = 0;
  /** After this there was nobody to look for so long that nothing can be said. */
  private lateAt: u64 = 0;
  private completed: u64 = 0;
  /** Looks since the device last gave something back, or had nothing. */
  private looks: u32 = 0;
  private notified: bool = false;
  private doublings: u32 = 0;

  constructor(
    private readonly nic: u32,
    private readonly pair: QueuePair,
  ) {
    if (config.watchdog == 0) this.due = NEVER;
  }

  /** Looks at the queue. `idle`: nobody else takes back what was sent. True: it is given up on. */
  look(now: u64, idle: bool): bool {
    const tx = this.pair.tx;
    const late = now > this.lateAt;
    const moved = tx.ring.hasUsed() || tx.completed != this.completed;
    if (idle) tx.reclaim(tx.ring.size);
    this.completed = tx.completed;
    if (moved) this.doublings = 0;
    if (moved || late || tx.ring.outstanding == 0) this.calm();
    else this.looks++;
    const period = (<u64>config.watchdog * 1_000_000) / LOOKS;
    this.due = deadlineIn(period);
    this.lateAt = deadlineIn(2 * period);
    if (this.looks < LOOKS << this.doublings) return false;
    return this.act();
  }

  private calm(): void {
    this.looks = 0;
    this.notified = false;
  }

  private act(): bool {
    this.looks = 0;
    this.actions++;
    if (!this.notified) {
      // virtio 1.4 §2.7.10.1 would have us send none; but maybe the last one was lost.
      this.notified = true;
      this.warn("transmit queue: nothing is sent; the device is notified again");
      this.pair.tx.kickAnyway();
      return false;
    }
    this.notified = false;
    this.doublings = min(this.doublings + 1, DOUBLINGS_MAX);
    this.pair.tx.stuck = true;
    return true;
  }

  private warn(message: string): void {
    events.begin("warning");
    events.text("message", message);
    events.num("nic", this.nic);
    events.num("outstanding", this.pair.tx.ring.outstanding);
    events.end();
  }
}
