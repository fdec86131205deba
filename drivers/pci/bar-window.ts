/**
 * Addresses for BARs that firmware left empty, as on microvm, where there is no PCI firmware. They
 * come from the 512 MiB below the ECAM region: on microvm that is the host bridge's 32-bit window,
 * on q35 it lies between RAM and the ECAM region. The real list is in the DSDT's bytecode, which
 * takes an interpreter to read; docs/boot.md says more. Used by function.ts.
 */

const WINDOW_BYTES: u64 = 512 << 20;
const FOUR_GIB: u64 = 1 << 32;

let next: u64 = 0;
let limit: u64 = 0;

/** Sets the window: what lies below `ecam` and above RAM, whose low part ends at `ramEnd`. */
export function setBarWindow(ecam: u64, ramEnd: u64): void {
  if (ecam < WINDOW_BYTES || ecam >= FOUR_GIB) return;
  next = max(ecam - WINDOW_BYTES, ramEnd);
  limit = ecam;
}

/** An address for a BAR of `size` bytes (a power of two), aligned to it; 0 if there is no room. */
export function allocateBar(size: u64): u64 {
  // At least a page, so that no two BARs share one that is mapped for either.
  const step = max<u64>(size, 4096);
  const address = (next + step - 1) & ~(step - 1);
  if (limit == 0 || address < next || address + step > limit) return 0;
  next = address + step;
  return address;
}
