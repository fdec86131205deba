/**
 * Time, from the machine's time stamp counter. Deadlines are counter values, as `step` answers
 * them to the host; durations are microseconds. Called by events.ts, main.ts, the network stack
 * and the apps, per event and per step, never per packet: these functions divide.
 */
import * as machine from "./machine";

/** The deadline that does not come. */
export const NEVER: u64 = u64.MAX_VALUE;

/** Durations from here on (35 years, such as a DHCP lease without end) end in NEVER. */
const ENDLESS_US: u64 = 1 << 50;

let khz: u64 = 0;
let bootTsc: u64 = 0;

function calibrate(): void {
  khz = max<u64>(machine.tscKhz(), 1);
  bootTsc = machine.bootTsc();
}

/** Counter ticks in microseconds. Divided in two steps so that nothing overflows. */
export function tscToUs(ticks: u64): u64 {
  if (khz == 0) calibrate();
  return (ticks / khz) * 1000 + ((ticks % khz) * 1000) / khz;
}

/** The counter `us` microseconds from now; NEVER when that is beyond any run. */
export function deadlineIn(us: u64): u64 {
  if (us >= ENDLESS_US) return NEVER;
  if (khz == 0) calibrate();
  return machine.tsc() + (us / 1000) * khz + ((us % 1000) * khz) / 1000;
}

/** Microseconds since this machine booted; the same clock on every CPU. */
export function nowUs(): u64 {
  if (khz == 0) calibrate();
  const now = machine.tsc();
  return now > bootTsc ? tscToUs(now - bootTsc) : 0;
}
