/**
 * The app that the command line chose, as one object. Made and driven by lane.ts; the choice is a
 * comparison a burst.
 */
import * as config from "../config";
import { QueuePair } from "../../drivers/net/queue-pair";
import { Lane } from "../lane";
import { Stack } from "../net/stack";
import { Echo } from "./echo";
import { Forward } from "./forward";
import { Idle } from "./idle";
import { Sink } from "./sink";
import { Source } from "./source";

export class Runner {
  private echo: Echo | null = null;
  private sink: Sink | null = null;
  private source: Source | null = null;
  private forward: Forward | null = null;
  private idle: Idle | null = null;

  /** At boot only. `lane` of `lanes`: a source's frames are divided among them. */
  constructor(pair: QueuePair, stack: Stack, lane: u32, lanes: u32) {
    if (config.app == config.App.Sink) this.sink = new Sink(pair, stack);
    else if (config.app == config.App.Source) this.source = new Source(pair, stack, lane, lanes);
    else if (config.app == config.App.Echo) this.echo = new Echo(pair, stack);
    else if (config.app == config.App.Forward) this.forward = new Forward(pair, stack);
    else this.idle = new Idle(pair, stack);
  }

  /** The other NIC's lane on this CPU is there: app=forward sends on it. */
  join(other: Lane): void {
    const forward = this.forward;
    if (forward != null) forward.join(other);
  }

  /** One turn; false when there was nothing to do. */
  @inline
  step(now: u64): bool {
    const source = this.source;
    if (source != null) return source.step(now);
    const sink = this.sink;
    if (sink != null) return sink.step(now);
    const echo = this.echo;
    if (echo != null) return echo.step(now);
    const forward = this.forward;
    if (forward != null) return forward.step();
    const idle = this.idle;
    return idle != null && idle.step(now);
  }

  /** Whether it has come to its end (`count`, `duration`). */
  get done(): bool {
    const source = this.source;
    if (source != null) return source.done;
    const sink = this.sink;
    return sink != null && sink.done;
  }

  /** Whether it can do nothing before the transmit ring has room. */
  get blocked(): bool {
    const echo = this.echo;
    return echo != null && echo.blocked;
  }

  /** Gives away the frames that a source has yet to send; 0 for other apps. */
  yieldShare(): u64 {
    const source = this.source;
    return source != null ? source.yieldShare() : 0;
  }

  /** A source is to send so many more. */
  takeShare(frames: u64): void {
    const source = this.source;
    if (source != null && frames != 0) source.takeShare(frames);
  }

  /** When a turn is due without any packet. */
  deadline(): u64 {
    const source = this.source;
    if (source != null) return source.deadline();
    const sink = this.sink;
    if (sink != null) return sink.deadline();
    const forward = this.forward;
    if (forward != null) return forward.deadline();
    const echo = this.echo;
    return echo != null ? echo.deadline() : u64.MAX_VALUE;
  }

  /** The device was reset, and every packet is back in the pool. */
  restart(): void {
    const source = this.source;
    if (source != null) source.restart();
    const echo = this.echo;
    if (echo != null) echo.restart();
  }
}
