/**
 * A lane: a queue pair, the stack on top of it and the app on top of that; what one CPU runs for
 * one NIC. Made and run by lanes.ts.
 */
import * as config from "./config";
import * as machine from "./machine";
import { Runner } from "./apps/runner";
import { Moderation } from "./moderation";
import { Stack } from "./net/stack";
import { deadlineIn } from "./time";
import { Watchdog } from "./watchdog";
import { Link } from "../drivers/net/link";
import { QueuePair } from "../drivers/net/queue-pair";

/** How often a queue without interrupts is looked at. */
const POLL_US: u64 = 1000;

export class Lane {
  readonly stack: Stack;
  readonly runner: Runner;
  /** The device runs and uses this lane. Otherwise nobody touches its rings. */
  running: bool = false;
  readonly watchdog: Watchdog;
  /** A queue was emptied since the app's turn: it may have something to do at once. */
  renewed: bool = false;
  /** When this turn began. */
  private start: u64 = 0;
  private readonly moderation: Moderation = new Moderation();

  /** At boot only. `index` of `count`: which lane of the NIC it is. */
  constructor(
    readonly link: Link,
    readonly pair: QueuePair,
    nic: config.NicConfig,
    index: u32,
    count: u32,
  ) {
    const stack = new Stack(link, pair, nic, index != 0);
    this.stack = stack;
    this.watchdog = new Watchdog(link.index, pair);
    this.runner = new Runner(pair, stack, index, count);
  }

  /** The device is gone: takes back every packet that it had. */
  empty(): void {
    this.pair.empty();
    this.runner.restart();
  }

  /** One turn of the app. True: there was work. */
  step(start: u64): bool {
    const pair = this.pair;
    this.start = start;
    pair.waits = false;
    pair.disarm();
    const worked = this.runner.step(start);
    if (!worked) return false;
    // Their packets are handled in one go, so the time is that of both directions.
    const cycles = machine.tsc() - start;
    pair.rx.statistics.polls++;
    pair.rx.statistics.cycles += cycles;
    pair.tx.statistics.polls++;
    pair.tx.statistics.cycles += cycles;
    return true;
  }

  /** Until when to sleep: 0 while there is work, or in poll mode; at most `deadline`. */
  rest(worked: bool, deadline: u64): u64 {
    if (this.renewed) {
      this.renewed = false;
      return 0;
    }
    const watchdog = this.watchdog;
    if (this.start >= watchdog.due && watchdog.look(this.start, !worked)) return 0;
    if (config.mode == config.Mode.Poll) return 0;
    // A source does not wait for the device to go on.
    if (worked && (config.mode == config.Mode.Adaptive || config.app == config.App.Source))
      return 0;
    const pair = this.pair;
    if (pair.waits) return 0;
    const now = this.start;
    const frames = pair.rx.statistics.packets;
    const moderation = this.moderation;
    const blocked = this.runner.blocked;
    const isModerate = config.mode == config.Mode.Adaptive && pair.countsAhead && !blocked;
    const ahead = isModerate ? moderation.choose(now, frames) : 1;
    if (pair.arm(blocked, ahead)) return 0;
    let sooner = min(deadline, this.runner.deadline());
    if (isModerate) sooner = moderation.sleep(now, frames, sooner);
    if (pair.tx.ring.outstanding != 0) sooner = min(sooner, watchdog.due);
    return pair.rxVector == 0 ? min(sooner, deadlineIn(POLL_US)) : sooner;
  }
}
