/**
 * IPv6 headers, RFC 8200. Called by stack6.ts for every IPv6 frame, and by what sends packets of
 * its own. ipv6-extensions.ts knows the headers between this one and the transport's.
 *
 *   0 version, class, flow label | 4 payload length | 6 next header | 7 hop limit
 *   8 source 16 | 24 destination 16 | 40
 */
import { dropFront } from "../../drivers/net/header";
import { Packet } from "../../drivers/net/packet";
import { copy6, isGroup6, isHost6, isUnspecified6 } from "./address6";
import { isGroupMac } from "./address";
import { loadBE16, storeBE16 } from "./bytes";
import { sumBytes } from "./checksum";
import { DropReason } from "./drops";
import { ETHERNET_BYTES } from "./ethernet";
import { Interface } from "./interface";
import { PROTOCOL_UDP } from "./ipv4";
import * as extensions from "./ipv6-extensions";

export const IPV6_BYTES: u32 = 40;
export const PROTOCOL_ICMPV6: u32 = 58;
/** Ethernet's and this header: where the transport's begins in what we send. */
export const HEADERS_BYTES: u32 = ETHERNET_BYTES + IPV6_BYTES;

/**
 * What accept() found in the packet at hand. Kept, not read again: the device can still write the
 * packet, and these were checked.
 */
export const source: usize = memory.data(16, 8);
export const destination: usize = memory.data(16, 8);
/** Where the transport header is in the frame, and bytes from there to the packet's end. */
export let offset: u32 = 0;
export let payloadBytes: u32 = 0;
export let hopLimit: u32 = 0;
/** Whether it went to a group. */
export let toGroup: bool = false;

/** The protocol of a packet that is for us and well-formed; 0 for one that was dropped. */
export function accept(net: Interface, packet: Packet): u32 {
  const drops = net.drops;
  if (packet.total < HEADERS_BYTES) return <u32>drops.count(DropReason.IpLength);
  if (packet.length < HEADERS_BYTES) return <u32>drops.count(DropReason.Truncated);
  const header = packet.data + ETHERNET_BYTES;
  if (load<u8>(header) >> 4 != 6) return <u32>drops.count(DropReason.IpVersion);
  payloadBytes = loadBE16(header + 4);
  // A payload of 0 is nothing that we serve: no header follows, or it is a jumbogram (RFC 2675).
  if (payloadBytes == 0 || payloadBytes > packet.total - HEADERS_BYTES) {
    return <u32>drops.count(DropReason.IpLength);
  }
  copy6(source, header + 8);
  copy6(destination, header + 24);
  hopLimit = load<u8>(header, 7);
  if (!isForUs(net, isGroupMac(packet.data))) return <u32>drops.count(DropReason.IpAddress);

  offset = HEADERS_BYTES;
  let protocol: u32 = load<u8>(header, 6);
  if (protocol != PROTOCOL_UDP && protocol != PROTOCOL_ICMPV6) {
    protocol = skipExtensions(net, packet, protocol);
    if (protocol == 0) return 0;
  }
  // Only a host without an address yet sends from none, and nothing but ICMPv6. RFC 4291 2.5.2
  const isFromNone = isUnspecified6(source) && protocol == PROTOCOL_ICMPV6;
  if (!isFromNone && !isHost6(source)) return <u32>drops.count(DropReason.IpAddress);
  return protocol;
}

function isForUs(net: Interface, linkGroup: bool): bool {
  toGroup = isGroup6(destination);
  if (toGroup) return net.six.hears(destination);
  return !linkGroup && net.six.isOurs(destination);
}

/** The protocol behind extension headers, or 0. */
function skipExtensions(net: Interface, packet: Packet, first: u32): u32 {
  const end = HEADERS_BYTES + payloadBytes;
  if (!extensions.skip(packet, first, HEADERS_BYTES, end)) {
    return <u32>net.drops.count(extensions.failure);
  }
  offset = extensions.offset;
  payloadBytes = end - offset;
  const protocol = extensions.protocol;
  if (protocol == PROTOCOL_UDP || protocol == PROTOCOL_ICMPV6) return protocol;
  return <u32>net.drops.count(DropReason.IpProtocol);
}

/** The sum of the pseudo header, to be folded with what follows it. RFC 8200 8.1 */
export function sumPseudoHeader(from: usize, to: usize, length: u32, protocol: u32): u64 {
  const protocolAndLength = (protocol << 8) + bswap<u16>(<u16>length);
  return sumBytes(from, 16) + sumBytes(to, 16) + protocolAndLength;
}

/**
 * Turns the header of the accepted packet round, to come from `from`, one of our addresses.
 * Extension headers were for the way here (a route, say): they are taken out.
 */
export function answer(net: Interface, packet: Packet, from: usize, protocol: u32): void {
  if (offset != HEADERS_BYTES) squeeze(packet);
  const header = packet.data + ETHERNET_BYTES;
  store<u32>(header, 0x60);
  storeBE16(header + 4, payloadBytes);
  store<u8>(header, <u8>protocol, 6);
  store<u8>(header, <u8>net.six.hopLimit, 7);
  copy6(header + 8, from);
  copy6(header + 24, source);
}

/**
 * Moves what the first buffer has of the payload to where extension headers were. The one copy on
 * the way of a packet, for packets that hardly anybody sends; bounded by the buffer.
 */
function squeeze(packet: Packet): void {
  const skipped = offset - HEADERS_BYTES;
  memory.copy(packet.data + HEADERS_BYTES, packet.data + offset, packet.length - offset);
  packet.length -= skipped;
  packet.total -= skipped;
  dropFront(packet, skipped);
  offset = HEADERS_BYTES;
}

/** Writes a header for `payload` bytes behind it. */
export function write(
  header: usize,
  payload: u32,
  protocol: u32,
  limit: u32,
  from: usize,
  to: usize,
): void {
  store<u32>(header, 0x60);
  storeBE16(header + 4, payload);
  store<u8>(header, <u8>protocol, 6);
  store<u8>(header, <u8>limit, 7);
  copy6(header + 8, from);
  copy6(header + 24, to);
}
