/**
 * Words in memory, as the command line and the console bring them: `length` bytes at `pointer`,
 * without an end mark. Called by config.ts, command-line.ts
 * and console.ts.
 */

/** What parseNumber read last. */
export let number: u64 = 0;

export function isText(pointer: usize, length: u32, text: string): bool {
  if (length != <u32>text.length) return false;
  for (let i: u32 = 0; i < length; i++) {
    if (<i32>load<u8>(pointer + i) != text.charCodeAt(i)) return false;
  }
  return true;
}

/** The index of the word in `names`, or -1. */
export function parseName(pointer: usize, length: u32, names: StaticArray<string>): i32 {
  for (let i = 0; i < names.length; i++) if (isText(pointer, length, names[i])) return i;
  return -1;
}

/** Whether it is a decimal number from `low` to `high`; it is then in `number`. */
export function parseNumber(pointer: usize, length: u32, low: u64, high: u64): bool {
  let total: u64 = 0;
  for (let i: u32 = 0; i < length; i++) {
    const digit = <u64>load<u8>(pointer + i) - 0x30;
    if (digit > 9 || total > (high - min(digit, high)) / 10) return false;
    total = total * 10 + digit;
  }
  number = total;
  return length > 0 && total >= low && total <= high;
}

export function hexDigit(c: u32): u32 {
  if (c - 0x30 < 10) return c - 0x30;
  const letter = c | 0x20;
  return letter - 0x61 < 6 ? letter - 0x57 : 16;
}

/** Reads two hexadecimal digits a byte into the bytes at `to`. */
export function parseHex(pointer: usize, length: u32, to: usize): bool {
  for (let i: u32 = 0; i < length; i += 2) {
    const high = hexDigit(load<u8>(pointer + i));
    const low = i + 1 < length ? hexDigit(load<u8>(pointer + i, 1)) : 16;
    if (high > 15 || low > 15) return false;
    store<u8>(to + (i >> 1), <u8>((high << 4) | low));
  }
  return true;
}

/** Where the byte first stands in the word; `length` when it does not. */
export function find(pointer: usize, length: u32, byte: u32): u32 {
  let i: u32 = 0;
  while (i < length && load<u8>(pointer + i) != byte) i++;
  return i;
}
