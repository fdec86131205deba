/**
 * The search for functions on the PCI buses. Called by main.ts through drivers/net/.
 */
import * as config from "./config-space";

const FUNCTIONS: u32 = 8;
const HEADER_TYPE: u32 = 0x0e;
const MULTIFUNCTION: u32 = 0x80;
const HEADER_BRIDGE: u32 = 1;
const SECONDARY_BUS: u32 = 0x19;
const NONE: u32 = u32.MAX_VALUE;

/** Answered by `nextFunction` at the end. */
export const NO_FUNCTION: u32 = u32.MAX_VALUE;

/** A bit for each bus that exists: bus 0, and those that a bridge found so far leads to. */
let buses: u32 = 1;
/** For each bus the bridge that leads to it; 0, the host bridge, for none. */
const bridges = new StaticArray<u32>(32);

/**
 * The next function after `previous` (NO_FUNCTION: the first one) on a bus that is reachable, in
 * order of bus, device, function; NO_FUNCTION at the end. Buses behind bridges are found by their
 * numbers, which firmware gave out in ascending order; without firmware only bus 0 answers.
 */
export function nextFunction(previous: u32): u32 {
  const end = config.busLimit() << 8;
  let bdf: u32 = previous == NO_FUNCTION ? 0 : following(previous);
  while (bdf < end) {
    if (!(buses & (1 << (bdf >> 8)))) {
      bdf = (bdf | 0xff) + 1;
    } else if (config.read32(bdf, 0) == NONE) {
      bdf = following(bdf);
    } else {
      noteBridge(bdf);
      return bdf;
    }
  }
  return NO_FUNCTION;
}

/** The place to look next: functions 1 to 7 exist only beside a function 0 that says so. */
function following(bdf: u32): u32 {
  const first = bdf & ~(FUNCTIONS - 1);
  if (config.read32(first, 0) == NONE) return first + FUNCTIONS;
  const several = (config.read8(first, HEADER_TYPE) & MULTIFUNCTION) != 0;
  return several ? bdf + 1 : first + FUNCTIONS;
}

function noteBridge(bdf: u32): void {
  if ((config.read8(bdf, HEADER_TYPE) & 0x7f) != HEADER_BRIDGE) return;
  const secondary = config.read8(bdf, SECONDARY_BUS);
  if (secondary <= bdf >> 8 || secondary >= config.busLimit()) return;
  buses |= 1 << secondary;
  unchecked((bridges[secondary] = bdf));
}

/** The bridge that leads to the bus of a function; NO_FUNCTION on bus 0. */
export function bridgeTo(bdf: u32): u32 {
  const bridge = unchecked(bridges[(bdf >> 8) & 31]);
  return bridge == 0 ? NO_FUNCTION : bridge;
}
