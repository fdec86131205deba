/**
 * Big-endian fields of a frame, at any alignment. Called by every protocol. An IPv4 address is not
 * read with these: it stays in network order (address.ts).
 */

export function loadBE16(pointer: usize): u32 {
  return bswap<u16>(load<u16>(pointer));
}

export function loadBE32(pointer: usize): u32 {
  return bswap<u32>(load<u32>(pointer));
}

export function storeBE16(pointer: usize, value: u32): void {
  store<u16>(pointer, bswap<u16>(<u16>value));
}

export function storeBE32(pointer: usize, value: u32): void {
  store<u32>(pointer, bswap<u32>(value));
}
