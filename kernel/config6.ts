/**
 * What the command line says of IPv6: values of ip6=, gw6= and an IPv6 dstip=. Called by config.ts,
 * which keeps them, and config-checks.ts.
 */
import { Addressing6, NicConfig } from "./config";
import {
  equal6,
  isGroup6,
  isHost6,
  isLinkLocal6,
  isUnspecified6,
  parseIpv6,
  samePrefix6,
  writeGroupMac,
} from "./net/address6";
import { find, isText, number, parseNumber } from "./text";

/** Headers of Ethernet, IPv6, and UDP or TCP, in bytes. */
const UDP_HEADERS_BYTES: u32 = 62;
const TCP_HEADERS_BYTES: u32 = 74;

/** What fits into an MTU of 1,500 with both headers, and TCP options as for IPv4. */
export const TCP_MSS: u32 = 1428;

const SLASH: u32 = 0x2f;

/** The value of ip6=. Answers null, or what is wrong with it. */
export function applyAddress(to: NicConfig, value: usize, length: u32): string | null {
  if (isText(value, length, "off")) return null;
  if (isText(value, length, "auto")) {
    to.addressing6 = Addressing6.Auto;
    return null;
  }
  const slash = find(value, length, SLASH);
  const isRight =
    slash < length &&
    parseIpv6(value, slash, to.ip6) &&
    isHost6(to.ip6) &&
    // Every NIC has one of its own making.
    !isLinkLocal6(to.ip6) &&
    parseNumber(value + slash + 1, length - slash - 1, 1, 128);
  if (!isRight) return "is not auto, off or an IPv6 address/len beyond the link";
  to.prefix6 = <u32>number;
  to.addressing6 = Addressing6.Static;
  return null;
}

/** The value of gw6=. */
export function applyGateway(to: NicConfig, value: usize, length: u32): string | null {
  const isRight = parseIpv6(value, length, to.gateway6) && isHost6(to.gateway6);
  return isRight ? null : "is not a host's IPv6 address";
}

/** What is wrong with a gateway, now that the address is known, or null. */
export function checkGateway(nic: NicConfig): string | null {
  if (isUnspecified6(nic.gateway6)) return null;
  if (nic.addressing6 != Addressing6.Static) return "needs an address in ip6=";
  const isNeighbour = isLinkLocal6(nic.gateway6) || samePrefix6(nic.gateway6, nic.ip6, nic.prefix6);
  if (isNeighbour && !equal6(nic.gateway6, nic.ip6)) return null;
  return "is not another host in the network of ip6=";
}

/** Reads where the source sends into the 16 bytes at `to`: a host or a group. */
export function parseDestination(value: usize, length: u32, to: usize): bool {
  return parseIpv6(value, length, to) && (isHost6(to) || isGroup6(to));
}

export function isGroup(address: usize): bool {
  return isGroup6(address);
}

/** Frames to a group have its Ethernet address. */
export function groupMac(to: usize, address: usize): void {
  if (isGroup6(address)) writeGroupMac(to, address);
}

/** The shortest frame that a source can send over IPv6, in bytes. */
export function sizeMin(isTcp: bool): u32 {
  return isTcp ? TCP_HEADERS_BYTES : UDP_HEADERS_BYTES;
}
