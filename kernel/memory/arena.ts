/**
 * The arena: all memory the kernel ever uses, handed out from the bottom up and never taken back.
 * `new` (kernel/memory/runtime.ts), the rings and the packet pools all come from here. After
 * `seal()`, which main.ts calls at the end of boot, an allocation is a failed check.
 *
 *   0        1 KiB        __heap_base                    next            limit
 *   |unused  |static data |objects, rings, buffers  ...  |free           |
 */
import { check } from "../check";

/** The smallest alignment given out, in bytes; enough for every object. */
const ALIGNMENT: usize = 16;

@lazy let next: usize = (__heap_base + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
@lazy let sealed: bool = false;

/** Linear memory as it is now, in bytes. */
export function memoryBytes(): usize {
  return <usize>memory.size() << 16;
}

/** Makes linear memory `bytes` long (a multiple of 64 KiB). False when the host has no more. */
export function growTo(bytes: usize): bool {
  const pages = <i32>(bytes >> 16) - memory.size();
  return pages <= 0 || memory.grow(pages) >= 0;
}

/**
 * A zeroed piece of `bytes` bytes at a multiple of `alignment`, a power of two. Runs out only at
 * boot, and that is a failed check; `available` tells before.
 */
export function allocate(bytes: usize, alignment: usize = ALIGNMENT): usize {
  check(!sealed, "memory was allocated after boot");
  const start = (next + alignment - 1) & ~(alignment - 1);
  check(start + bytes >= start && start + bytes <= memoryBytes(), "the arena is too small");
  next = start + bytes;
  memory.fill(start, 0, bytes);
  return start;
}

/** How many bytes are left. */
export function available(): usize {
  return memoryBytes() - next;
}

/** From here on every allocation is a failed check. */
export function seal(): void {
  sealed = true;
}
