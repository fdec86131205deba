/**
 * What is measured: the cases of `make bench`, and which of them a quick run has. Used by all of
 * bench-*.ts.
 */

/** Seen from the guest: it transmits (the backend counts what it receives) or receives. */
export type Direction = "tx" | "rx";
export type RingFormat = "split" | "packed" | "packed-in-order";

export interface Case {
  readonly direction: Direction;
  readonly ring: RingFormat;
  /** Bytes of a frame without FCS. */
  readonly frameBytes: number;
  /** Frames that the device is to cut (TSO). */
  readonly tso: boolean;
}

/** Bytes without FCS of the frames that people call 64 to 1518 bytes long. */
export const FRAME_BYTES = [60, 124, 252, 508, 1020, 1276, 1514];
const TSO_FRAME_BYTES = 65214;

export const idOf = ({ direction, ring, frameBytes, tso }: Case): string =>
  `${direction}-${ring}-${tso ? "tso" : frameBytes}`;

/** The case as people call it; sizes with FCS, as they are on a wire. */
export const titleOf = ({ direction, ring, frameBytes, tso }: Case): string =>
  `${direction.toUpperCase()} ${ring}, ${tso ? "64 KiB with TSO" : `${frameBytes + 4} bytes`}`;

export function casesFor(formats: readonly RingFormat[], quick: boolean): Case[] {
  const directions: readonly Direction[] = ["tx", "rx"];
  const small = formats.flatMap((ring) =>
    directions.map((direction) => ({ direction, ring, frameBytes: 60, tso: false })),
  );
  if (quick) return small;
  const sizes = FRAME_BYTES.slice(1).flatMap((frameBytes) =>
    directions.map((direction) => ({
      direction,
      ring: "split" as const,
      frameBytes,
      tso: false,
    })),
  );
  const tso: Case = { direction: "tx", ring: "split", frameBytes: TSO_FRAME_BYTES, tso: true };
  return [...small, ...sizes, tso];
}
