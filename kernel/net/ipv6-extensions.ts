/**
 * IPv6 extension headers, RFC 8200 4: walked through and checked, never acted upon. Called by
 * ipv6.ts for packets whose first header is none that it knows.
 *
 *   0 next header | 1 length in 8 bytes, without the first 8 | 2 options or route ...
 *
 *   an option:  0 type | 1 bytes of data | 2 data ...           Pad1 is the type alone
 */
import { Packet } from "../../drivers/net/packet";
import { DropReason } from "./drops";
import { loadBE16 } from "./bytes";

const HOP_BY_HOP: u32 = 0;
const ROUTING: u32 = 43;
const FRAGMENT: u32 = 44;
const DESTINATION_OPTIONS: u32 = 60;

/** More than RFC 8200 4.1 knows of are an attack. */
const HEADERS_MAX: u32 = 8;

const PAD1: u32 = 0;
const PADN: u32 = 1;
/** The offset of a fragment, and more to follow. */
const FRAGMENT_MASK: u32 = 0xfff9;

/** What `skip` found: the protocol behind, and where it begins in the frame; or what was wrong. */
export let protocol: u32 = 0;
export let offset: u32 = 0;
export let failure: DropReason = DropReason.IpExtension;

function fail(reason: DropReason): bool {
  failure = reason;
  return false;
}

/** Goes through the headers from `start` on, of which `first` is the kind, up to `end`. */
export function skip(packet: Packet, first: u32, start: u32, end: u32): bool {
  protocol = first;
  offset = start;
  for (let count: u32 = 0; count < HEADERS_MAX; count++) {
    const isKnown = protocol == HOP_BY_HOP || protocol == DESTINATION_OPTIONS;
    if (!isKnown && protocol != ROUTING && protocol != FRAGMENT) return true;
    if (offset + 8 > end) return fail(DropReason.IpLength);
    if (offset + 8 > packet.length) return fail(DropReason.Truncated);
    const header = packet.data + offset;
    const bytes: u32 = protocol == FRAGMENT ? 8 : (<u32>load<u8>(header, 1) + 1) << 3;
    if (offset + bytes > end) return fail(DropReason.IpLength);
    if (offset + bytes > packet.length) return fail(DropReason.Truncated);
    // RFC 6946: what calls itself a fragment and is the whole is no fragment.
    const isPiece = protocol == FRAGMENT && (loadBE16(header + 2) & FRAGMENT_MASK) != 0;
    if (isPiece) return fail(DropReason.IpFragment);
    // RFC 8200 4.1: hop-by-hop options come first. 4.4: a route that ends here may be any.
    const isLate = protocol == HOP_BY_HOP && offset != start;
    const goesOn = protocol == ROUTING && load<u8>(header, 3) != 0;
    if (isLate || goesOn || (isKnown && !isPassable(header, bytes))) {
      return fail(DropReason.IpExtension);
    }
    protocol = load<u8>(header);
    offset += bytes;
  }
  return fail(DropReason.IpExtension);
}

/**
 * Whether a header of options holds none that forbids to go on for who does not know it. RFC 8200
 * 4.2
 */
function isPassable(header: usize, bytes: u32): bool {
  let at: u32 = 2;
  while (at < bytes) {
    const type: u32 = load<u8>(header + at);
    if (type == PAD1) {
      at++;
      continue;
    }
    if (at + 2 > bytes) return false;
    at += 2 + <u32>load<u8>(header + at, 1);
    if (type != PADN && type >> 6 != 0) return false;
  }
  return at == bytes;
}
