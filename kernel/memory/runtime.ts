/**
 * The AssemblyScript runtime of this module (`--runtime` in asconfig.json): the compiler calls it
 * for `new`. Objects come from the arena and live for ever; there is no collector.
 */
import { allocate } from "./arena";

/**
 * What the compiler expects in front of a managed object.
 *
 *   -20 size of block | -16 collector 1 | -12 collector 2 | -8 class id | -4 bytes | 0 object
 */
const HEADER_BYTES: usize = 32;

@global @unsafe
export function __alloc(bytes: usize): usize {
  return allocate(bytes);
}

@global @unsafe
export function __new(bytes: usize, id: u32): usize {
  const object = allocate(HEADER_BYTES + bytes) + HEADER_BYTES;
  store<u32>(object - 8, id);
  store<u32>(object - 4, <u32>bytes);
  return object;
}

@global @unsafe
export function __renew(object: usize, bytes: usize): usize {
  const id = load<u32>(object - 8);
  const copy = __new(bytes, id);
  memory.copy(copy, object, min(bytes, <usize>load<u32>(object - 4)));
  return copy;
}

@global @unsafe
export function __realloc(pointer: usize, bytes: usize): usize {
  const copy = allocate(bytes);
  memory.copy(copy, pointer, bytes);
  return copy;
}

@global @unsafe
export function __free(pointer: usize): void {}

@global @unsafe
export function __link(parent: usize, child: usize, expectMultiple: bool): void {}

@global @unsafe
export function __pin(object: usize): usize {
  return object;
}

@global @unsafe
export function __unpin(object: usize): void {}

@global @unsafe
export function __visit(object: usize, cookie: u32): void {}

@global @unsafe
export function __collect(): void {}
