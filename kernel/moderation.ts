/**
 * How many frames one receive interrupt is to stand for: one at rest, so that the first frame after
 * a silence is heard of at once; 64 under load, with a timer that looks every 100 us for those that
 * are fewer (event_idx: the device is asked for an interrupt so many frames ahead). So a burst costs
 * an interrupt and not twenty. Used by lane.ts in adaptive mode.
 *
 *   at rest --- 16 frames and more since the last sleep ---> load
 *   load --- 10 sleeps in a row with fewer than 4 frames each ---> at rest
 *
 * 16 frames is what a load has and a conversation has not: who waits for answers to fewer is not
 * made to wait.
 */
import { deadlineIn } from "./time";

const LOAD_FRAMES: u64 = 16;
const FEW_FRAMES: u64 = 4;
const QUIET_SLEEPS: u32 = 10;

const AHEAD: u32 = 64;
const PATIENCE_US: u64 = 100;

export class Moderation {
  /** Sleeps in a row that brought few frames, at most QUIET_SLEEPS: then it is at rest. */
  private quiet: u32 = QUIET_SLEEPS;
  /** What `quiet` will be if it sleeps now. */
  private next: u32 = QUIET_SLEEPS;
  /** Frames received before the last sleep. */
  private before: u64 = 0;

  /** `frames` were received in all: for how many more to ask for an interrupt before a sleep. */
  choose(frames: u64): u32 {
    const came = frames - this.before;
    let next = this.quiet;
    if (came >= LOAD_FRAMES) next = 0;
    else if (next != QUIET_SLEEPS) next = came < FEW_FRAMES ? next + 1 : 0;
    this.next = next;
    return next == QUIET_SLEEPS ? 1 : AHEAD;
  }

  /** It sleeps: until `deadline`, or sooner to look for frames too few for their interrupt. */
  sleep(frames: u64, deadline: u64): u64 {
    this.before = frames;
    this.quiet = this.next;
    return this.next == QUIET_SLEEPS ? deadline : min(deadline, deadlineIn(PATIENCE_US));
  }
}
