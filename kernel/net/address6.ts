/**
 * IPv6 addresses: what kinds there are (RFC 4291), how they are made from Ethernet addresses, and
 * how they are written. Called by config.ts and by the protocols. An address is named by a pointer
 * to its 16 bytes in network order.
 *
 *   0 prefix 8 | 8 interface identifier 8 | 16
 */
import { hexDigit } from "../text";

export const ADDRESS6_BYTES: u32 = 16;

export const UNSPECIFIED: usize = memory.data(16, 8);
export const ALL_NODES: usize = memory.data<u8>([
  0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
]);
export const ALL_ROUTERS: usize = memory.data<u8>([
  0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
]);

/** fe80::/64 and ff02::1:ff00:0/104 as words in memory order. RFC 4291 2.5.6, 2.7.1 */
const LINK_LOCAL: u64 = 0x80fe;
const GROUP_OF_LINK: u64 = 0x02ff;
const SOLICITED_NODE: u64 = 0x000000ff_01000000;

export function equal6(a: usize, b: usize): bool {
  return load<u64>(a) == load<u64>(b) && load<u64>(a, 8) == load<u64>(b, 8);
}

export function copy6(to: usize, from: usize): void {
  store<u64>(to, load<u64>(from));
  store<u64>(to, load<u64>(from, 8), 8);
}

export function isUnspecified6(address: usize): bool {
  return (load<u64>(address) | load<u64>(address, 8)) == 0;
}

export function isGroup6(address: usize): bool {
  return load<u8>(address) == 0xff;
}

/** In fe80::/10. */
export function isLinkLocal6(address: usize): bool {
  return (load<u16>(address) & 0xc0ff) == 0x80fe;
}

/** Whether a host may have it: not ::, ::1, an IPv4 address in disguise, or a group. */
export function isHost6(address: usize): bool {
  if (isGroup6(address)) return false;
  const rest = load<u64>(address, 8);
  if (load<u64>(address) != 0) return true;
  const isMapped = <u32>rest == 0xffff0000;
  return !isMapped && rest != 0 && rest != (<u64>1) << 56;
}

/** Whether the first `bits` bits (0 to 128) are the same. */
export function samePrefix6(a: usize, b: usize, bits: u32): bool {
  const high = bswap<u64>(load<u64>(a) ^ load<u64>(b));
  const low = bswap<u64>(load<u64>(a, 8) ^ load<u64>(b, 8));
  if (bits == 0) return true;
  if (bits <= 64) return high >> (64 - bits) == 0;
  return high == 0 && low >> (128 - bits) == 0;
}

/** Writes the eight bytes of the interface identifier that a MAC leads to. RFC 4291 appendix A */
function writeInterfaceId(to: usize, mac: usize): void {
  store<u8>(to, load<u8>(mac) ^ 2);
  store<u16>(to, load<u16>(mac, 1), 1);
  store<u16>(to, 0xfeff, 3);
  store<u8>(to, load<u8>(mac, 3), 5);
  store<u16>(to, load<u16>(mac, 4), 6);
}

/** Writes fe80:: with the interface identifier of a MAC. RFC 2464 5 */
export function writeLinkLocal(to: usize, mac: usize): void {
  store<u64>(to, LINK_LOCAL);
  writeInterfaceId(to + 8, mac);
}

/** Whether `group` is the solicited-node group of `address`. RFC 4291 2.7.1 */
export function isSolicitedNode(group: usize, address: usize): bool {
  return (
    load<u64>(group) == GROUP_OF_LINK &&
    (load<u64>(group, 8) & 0x000000ff_ffffffff) == SOLICITED_NODE &&
    load<u8>(group, 13) == load<u8>(address, 13) &&
    load<u16>(group, 14) == load<u16>(address, 14)
  );
}

/** Writes the solicited-node group of an address. */
export function writeSolicitedNode(to: usize, address: usize): void {
  store<u64>(to, GROUP_OF_LINK);
  store<u64>(to, SOLICITED_NODE, 8);
  store<u8>(to, load<u8>(address, 13), 13);
  store<u16>(to, load<u16>(address, 14), 14);
}

/** Writes the Ethernet group address of an IPv6 group. RFC 2464 7 */
export function writeGroupMac(to: usize, group: usize): void {
  store<u16>(to, 0x3333);
  store<u32>(to, load<u32>(group, 12), 2);
}

/**
 * Reads `length` characters as an IPv6 address, RFC 4291 2.2 without the dotted form, into the 16
 * bytes at `to`. False when it is not one.
 */
export function parseIpv6(text: usize, length: u32, to: usize): bool {
  memory.fill(to, 0, ADDRESS6_BYTES);
  // Groups written so far, and how many of them were in front of "::".
  let groups: u32 = 0;
  let gap: i32 = -1;
  let at: u32 = 0;
  if (isColon(text, length, 0)) {
    if (!isColon(text, length, 1)) return false;
    gap = 0;
    at = 2;
  }
  while (at < length) {
    let digits: u32 = 0;
    while (at + digits < length && load<u8>(text + at + digits) != 0x3a) digits++;
    if (groups == 8 || !parseGroup(text + at, digits, to + 2 * groups)) return false;
    groups++;
    at += digits;
    if (at == length) break;
    // A colon, and then more digits or, once, a second colon.
    if (isColon(text, length, at + 1)) {
      if (gap >= 0) return false;
      gap = <i32>groups;
      at += 2;
    } else if (++at == length) {
      return false;
    }
  }
  if (gap < 0) return groups == 8;
  if (groups > 7) return false;
  const tail = 2 * (groups - <u32>gap);
  const from = to + 2 * gap;
  memory.copy(to + ADDRESS6_BYTES - tail, from, tail);
  memory.fill(from, 0, ADDRESS6_BYTES - 2 * groups);
  return true;
}

function isColon(text: usize, length: u32, at: u32): bool {
  return at < length && load<u8>(text + at) == 0x3a;
}

/** One to four hexadecimal digits as 16 bits. */
function parseGroup(text: usize, digits: u32, to: usize): bool {
  if (digits == 0 || digits > 4) return false;
  let value: u32 = 0;
  for (let i: u32 = 0; i < digits; i++) {
    const digit = hexDigit(load<u8>(text + i));
    if (digit > 15) return false;
    value = (value << 4) | digit;
  }
  store<u16>(to, bswap<u16>(<u16>value));
  return true;
}
