/**
 * How many frames one receive interrupt is to stand for: one at rest, so that the first frame after
 * a silence is heard of at once; 64 under load, with a timer that looks every 100 us for those that
 * are fewer (event_idx: the device is asked for an interrupt so many frames ahead). So a burst costs
 * an interrupt and not twenty. Used by lane.ts in adaptive mode.
 *
 *   at rest --- 16 frames and more since the last sleep ---> load
 *   load --- 5 ms without a sleep that brought 4 frames ---> at rest
 *
 * 16 frames is what a load has and a conversation has not: who waits for answers to fewer is not
 * made to wait.
 */
import { deadlineIn } from "./time";

const LOAD_FRAMES: u64 = 16;
const FEW_FRAMES: u64 = 4;
const LOAD_US: u64 = 5000;

const AHEAD: u32 = 64;
const PATIENCE_US: u64 = 100;

export class Moderation {
  /** Until when it is under load, by the time stamp counter. */
  private loadEnd: u64 = 0;
  /** Frames received before the last sleep. */
  private before: u64 = 0;

  /** At `now` `frames` were received in all: for how many more to ask for an interrupt. */
  choose(now: u64, frames: u64): u32 {
    const enough = now < this.loadEnd ? FEW_FRAMES : LOAD_FRAMES;
    if (frames - this.before >= enough) this.loadEnd = deadlineIn(LOAD_US);
    return now < this.loadEnd ? AHEAD : 1;
  }

  /** It sleeps: until `deadline`, or sooner to look for frames too few for their interrupt. */
  sleep(now: u64, frames: u64, deadline: u64): u64 {
    this.before = frames;
    return now < this.loadEnd ? min(deadline, deadlineIn(PATIENCE_US)) : deadline;
  }
}
