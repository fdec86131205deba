/**
 * The arena: all memory the kernel ever uses, handed out from the bottom up and never taken back.
 * Objects (`new`), rings and packet pools come from the compiler's stub runtime, which is a bump
 * allocator; this file adds alignment, and an end: `seal()`, called by main.ts when boot is over.
 *
 *   0        1 KiB        __heap_base                    next            end of linear memory
 *   |unused  |static data |objects, rings, buffers  ...  |free           |
 */
import { check } from "../check";

/** What the runtime gives anyway, in bytes. */
const ALIGNMENT: usize = 16;

/** What the runtime may need beyond the bytes asked for: its header and its own rounding. */
const OVERHEAD: usize = 48;

/** Linear memory as it is now, in bytes. */
export function memoryBytes(): usize {
  return (<usize>memory.size()) << 16;
}

/** Makes linear memory `bytes` long (a multiple of 64 KiB). False when the host has no more. */
export function growTo(bytes: usize): bool {
  const pages = <i32>(bytes >> 16) - memory.size();
  return pages <= 0 || memory.grow(pages) >= 0;
}

/** How many bytes are left. Takes a few itself, to see where the next object would be. */
export function available(): usize {
  return memoryBytes() - heap.alloc(ALIGNMENT) - OVERHEAD;
}

/**
 * A zeroed piece of `bytes` bytes at a multiple of `alignment`, a power of two. Runs out only at
 * boot, and that is a failed check; `available` tells before.
 */
export function allocate(bytes: usize, alignment: usize = ALIGNMENT): usize {
  const start = allocateUncleared(bytes, alignment);
  memory.fill(start, 0, bytes);
  return start;
}

/**
 * The same without zeroing, for packet buffers: megabytes that are written before they are read.
 */
export function allocateUncleared(bytes: usize, alignment: usize): usize {
  const whole = bytes + alignment;
  check(whole >= bytes && whole <= available(), "the arena is too small");
  return (heap.alloc(whole) + alignment - 1) & ~(alignment - 1);
}

/**
 * Gives out what is left, so that from here on an allocation of any kind must fail: linear memory
 * is as large as this CPU's share or as the module may have (asconfig.json), it does not grow, and
 * the runtime then traps.
 */
export function seal(): void {
  heap.alloc(available());
}
