// The virtual time stamp counter: it moves when the guest calls the machine, and when the machine
// lets time pass because everybody sleeps. Owned by Machine.

/** Ticks in a millisecond: the rate that the guest is told. 1 GHz, so a tick is a nanosecond. */
export const TSC_KHZ = 1_000_000;

export class Clock {
  /** Ticks since the machine was switched on. The guest boots a little later. */
  now = 1_000_000;

  advance(ticks: number): void {
    this.now += ticks;
  }
}

/** Ticks in so many microseconds. */
export function ticksOfUs(us: number): number {
  return us * (TSC_KHZ / 1000);
}
