/**
 * Makes a ring in the format that was negotiated. All rings of a device have the same. Used by
 * drivers/net/.
 */
import { Ring } from "./ring";
import { PackedRelay } from "./packed-relay";
import { SplitRelay } from "./split-relay";

/**
 * A ring of `size` entries, a power of two unless `packed`. `chains`: packets may have several
 * segments. At boot only.
 */
export function makeRing(packed: bool, size: u32, chains: bool): Ring {
  return packed ? new PackedRelay(size, chains) : new SplitRelay(size, chains);
}

/** Bytes of memory that such a ring takes, rounding included. */
export function ringBytes(packed: bool, size: u32, chains: bool): u32 {
  return packed ? PackedRelay.bytes(size, chains) : SplitRelay.bytes(size, chains);
}
