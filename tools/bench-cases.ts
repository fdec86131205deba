/**
 * What is measured: the cases of `make bench`, and which of them a quick run has. Used by all of
 * bench-*.ts.
 */

/**
 * Seen from the guest: it transmits (the backend counts what it receives), receives, or forwards
 * what it gets on one NIC to the other: one way, or both ways at once.
 */
export type Direction = "tx" | "rx" | "forward" | "forward-both";
export const RING_FORMATS = ["split", "split-in-order", "packed", "packed-in-order"] as const;
export type RingFormat = (typeof RING_FORMATS)[number];
/** Of the report: 64 bytes by ring format, sizes, forwarding. */
export type Group = "formats" | "sizes" | "forward";

export interface Case {
  readonly group: Group;
  readonly direction: Direction;
  readonly ring: RingFormat;
  /** Bytes of a frame without FCS. */
  readonly frameBytes: number;
  /** Frames of 64 KiB: what is sent is to be cut by the device (TSO). */
  readonly large: boolean;
  /** With MRG_RXBUF; without it frames are in one buffer and the receive header says nothing. */
  readonly merged: boolean;
}

/** Bytes without FCS of the frames that people call 64 to 1518 bytes long. */
export const FRAME_BYTES = [60, 124, 252, 508, 1020, 1276, 1514];
const LARGE_FRAME_BYTES = 65214;

export const isPacked = (ring: RingFormat) => ring.startsWith("packed");
export const isInOrder = (ring: RingFormat) => ring.endsWith("in-order");
export const isForward = ({ direction }: Case) => direction.startsWith("forward");

export const idOf = ({ direction, ring, frameBytes, large, merged }: Case): string =>
  `${direction}-${ring}-${large ? "64k" : frameBytes}${merged ? "-merged" : ""}`;

const DIRECTION_TITLES: Record<Direction, string> = {
  tx: "TX",
  rx: "RX",
  forward: "forward, one way",
  "forward-both": "forward, both ways (rate of each)",
};

/** The frame's size with FCS, as it is on a wire. */
function sizeOf({ direction, frameBytes, large }: Case): string {
  if (!large) return `${frameBytes + 4} bytes`;
  return direction === "tx" ? "64 KiB with TSO" : "64 KiB";
}

/** The case as people call it. */
export const titleOf = (what: Case): string =>
  `${DIRECTION_TITLES[what.direction]}, ${what.ring}, ${sizeOf(what)}` +
  `${what.merged ? ", merged buffers" : ""}`;

function smallCase(group: Group, direction: Direction, ring: RingFormat): Case {
  return { group, direction, ring, frameBytes: 60, large: false, merged: false };
}

function sizeCase(direction: Direction, frameBytes: number): Case {
  const large = frameBytes === LARGE_FRAME_BYTES;
  return { group: "sizes", direction, ring: "split", frameBytes, large, merged: true };
}

/** A quick run has split and packed rings only, no sizes, and forwards one way. */
export function casesFor(formats: readonly RingFormat[], quick: boolean): Case[] {
  const chosen = quick ? formats.filter((ring) => ring === "split" || ring === "packed") : formats;
  const small = chosen.flatMap((ring) => [
    smallCase("formats", "tx", ring),
    smallCase("formats", "rx", ring),
  ]);
  const forward = (quick ? chosen.slice(0, 1) : chosen).map((ring) =>
    smallCase("forward", "forward", ring),
  );
  if (quick) return [...small, ...forward];
  const both = chosen.slice(0, 1).map((ring) => smallCase("forward", "forward-both", ring));
  const sizes = [...FRAME_BYTES, LARGE_FRAME_BYTES].flatMap((frameBytes) => [
    sizeCase("tx", frameBytes),
    sizeCase("rx", frameBytes),
  ]);
  return [...small, ...forward, ...both, ...sizes];
}
