/**
 * IPv4 and Ethernet addresses: what kinds there are and how they are written. Called by config.ts
 * and by the protocols.
 *
 * An IPv4 address is a u32 as plain load<u32> reads it from a packet: network order in memory, so
 * 192.0.2.1 is 0x010200c0 and its first byte is in the low bits.
 */
import { parseHex } from "../text";

export const LIMITED_BROADCAST: u32 = 0xffffffff;

/** The network mask of a prefix of 0 to 32 bits, in network order. */
export function maskOf(prefix: u32): u32 {
  return prefix == 0 ? 0 : bswap<u32>(0xffffffff << (32 - prefix));
}

/** The length of a mask in network order, or -1 when its ones are not all in front. */
export function prefixOf(mask: u32): i32 {
  const prefix = popcnt<u32>(mask);
  return maskOf(prefix) == mask ? <i32>prefix : -1;
}

/** Whether a host may have `address`: of class A to C, not 0/8, not loopback. RFC 1122 3.2.1.3 */
export function isUnicast(address: u32): bool {
  const first = address & 255;
  return first != 0 && first != 127 && first < 224;
}

/** Whether it is the network's own or its directed broadcast address; RFC 3021 for /31 and /32. */
export function isNetworkOrBroadcast(address: u32, prefix: u32): bool {
  if (prefix >= 31) return false;
  const mask = maskOf(prefix);
  return (address & ~mask) == 0 || (address | mask) == 0xffffffff;
}

/** A unicast address that a host of a network with this prefix may have. */
export function isHost(address: u32, prefix: u32): bool {
  return isUnicast(address) && !isNetworkOrBroadcast(address, prefix);
}

/** Whether the Ethernet address at `mac` is a group address (broadcast too). IEEE 802 8.2 */
export function isGroupMac(mac: usize): bool {
  return (load<u8>(mac) & 1) != 0;
}

export function isZeroMac(mac: usize): bool {
  return load<u32>(mac) == 0 && load<u16>(mac, 4) == 0;
}

export function equalMac(a: usize, b: usize): bool {
  return load<u32>(a) == load<u32>(b) && load<u16>(a, 4) == load<u16>(b, 4);
}

export function copyMac(to: usize, from: usize): void {
  store<u32>(to, load<u32>(from));
  store<u16>(to, load<u16>(from, 4), 4);
}

/** Reads `length` characters as a.b.c.d, decimal without leading zeros. -1 when it is not one. */
export function parseIpv4(text: usize, length: u32): i64 {
  let address: u32 = 0;
  let part: u32 = 0;
  let digits: u32 = 0;
  let shift: u32 = 0;
  for (let i: u32 = 0; i <= length; i++) {
    const c: u32 = i < length ? load<u8>(text + i) : 0x2e;
    if (c == 0x2e) {
      if (digits == 0 || shift > 24) return -1;
      address |= part << shift;
      shift += 8;
      part = 0;
      digits = 0;
    } else {
      const digit = c - 0x30;
      if (digit > 9 || (digits > 0 && part == 0)) return -1;
      part = part * 10 + digit;
      digits++;
      if (part > 255) return -1;
    }
  }
  return shift == 32 ? <i64>address : -1;
}

/** Reads `length` characters as xx:xx:xx:xx:xx:xx into the six bytes at `to`. */
export function parseMac(text: usize, length: u32, to: usize): bool {
  if (length != 17) return false;
  for (let i: usize = 0; i < 6; i++) {
    const at = text + i * 3;
    if (!parseHex(at, 2, to + i)) return false;
    if (i < 5 && load<u8>(at, 2) != 0x3a) return false;
  }
  return true;
}
