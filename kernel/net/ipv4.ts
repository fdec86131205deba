/**
 * IPv4 headers, RFC 791 and RFC 1122 3.2.1. Called by the stack for every IPv4 frame, and by what
 * sends datagrams of its own.
 *
 *   0 version, IHL | 1 TOS | 2 total length | 4 identification | 6 flags, fragment offset
 *   8 TTL | 9 protocol | 10 checksum | 12 source | 16 destination | 20 options ... | IHL * 4
 */
import { Packet } from "../../drivers/net/packet";
import { isNetworkOrBroadcast, isUnicast } from "./address";
import { loadBE16, storeBE16 } from "./bytes";
import { VALID, fold, sumBytes, update } from "./checksum";
import { DropReason } from "./drops";
import { ETHERNET_BYTES, isBroadcastMac } from "./ethernet";
import { Interface } from "./interface";

export const IPV4_BYTES: u32 = 20;
export const PROTOCOL_ICMP: u32 = 1;
export const PROTOCOL_TCP: u32 = 6;
export const PROTOCOL_UDP: u32 = 17;

const TTL: u8 = 64;
/** Option 1 of RFC 791: no operation. */
const OPTION_NOP: u8 = 1;
/** More fragments, and the fragment offset. */
const FRAGMENT_MASK: u32 = 0x3fff;

/**
 * What accept() found in the packet at hand. Kept, not read again: the device can still write the
 * packet, and these were checked.
 */
export let headerBytes: u32 = 0;
export let payloadBytes: u32 = 0;
export let source: u32 = 0;
export let destination: u32 = 0;
/** Whether it went to a broadcast address, and so must not be answered. */
export let toBroadcast: bool = false;

/** The protocol of a datagram that is for us and well-formed; 0 for one that was dropped. */
export function accept(net: Interface, packet: Packet): u32 {
  const drops = net.drops;
  if (packet.total < ETHERNET_BYTES + IPV4_BYTES) return <u32>drops.count(DropReason.IpLength);
  if (packet.length < ETHERNET_BYTES + IPV4_BYTES) return <u32>drops.count(DropReason.Truncated);
  const header = packet.data + ETHERNET_BYTES;
  const first: u32 = load<u8>(header);
  if (first >> 4 != 4) return <u32>drops.count(DropReason.IpVersion);

  const total = loadBE16(header + 2);
  headerBytes = (first & 15) << 2;
  if (headerBytes < IPV4_BYTES || total < headerBytes || total > packet.total - ETHERNET_BYTES) {
    return <u32>drops.count(DropReason.IpLength);
  }
  payloadBytes = total - headerBytes;
  if (packet.length < ETHERNET_BYTES + headerBytes) return <u32>drops.count(DropReason.Truncated);
  if (fold(sumBytes(header, headerBytes)) != VALID) return <u32>drops.count(DropReason.IpChecksum);
  if ((loadBE16(header + 6) & FRAGMENT_MASK) != 0) return <u32>drops.count(DropReason.IpFragment);

  const protocol: u32 = load<u8>(header + 9);
  if (protocol != PROTOCOL_UDP && protocol != PROTOCOL_ICMP) {
    return <u32>drops.count(DropReason.IpProtocol);
  }
  source = load<u32>(header + 12);
  destination = load<u32>(header + 16);
  if (!isForUs(net, protocol, isBroadcastMac(packet.data)) || !isFromHost(net)) {
    return <u32>drops.count(DropReason.IpAddress);
  }
  return protocol;
}

function isForUs(net: Interface, protocol: u32, linkBroadcast: bool): bool {
  toBroadcast = net.isBroadcast(destination);
  if (toBroadcast) return protocol == PROTOCOL_UDP;
  // A server may send the offer to the address that it offers (RFC 2131 4.1); dhcp.ts looks on.
  if (net.configuring) return protocol == PROTOCOL_UDP;
  // RFC 1122 3.3.6: a link-layer broadcast of an IP unicast is discarded.
  return destination == net.ip && net.ip != 0 && !linkBroadcast;
}

/** RFC 1122 3.2.1.3: a source is one host, and not we. */
function isFromHost(net: Interface): bool {
  if (!isUnicast(source) || (source == net.ip && net.ip != 0)) return false;
  const inOurNetwork = net.ip != 0 && ((source ^ net.ip) & net.mask) == 0;
  return !inOurNetwork || !isNetworkOrBroadcast(source, net.prefix);
}

/**
 * Turns the header of the accepted packet round. Swapping the addresses leaves the checksum as it
 * is; the TTL is a change of one word. Options were for the way here (a route, say): they are
 * blanked.
 */
export function answer(packet: Packet): void {
  const header = packet.data + ETHERNET_BYTES;
  store<u32>(header, destination, 12);
  store<u32>(header, source, 16);
  if (headerBytes == IPV4_BYTES) {
    const before: u32 = load<u16>(header, 8);
    store<u8>(header, TTL, 8);
    const after: u32 = load<u16>(header, 8);
    store<u16>(header, <u16>update(load<u16>(header, 10), before, after), 10);
    return;
  }
  memory.fill(header + IPV4_BYTES, OPTION_NOP, headerBytes - IPV4_BYTES);
  store<u8>(header, TTL, 8);
  store<u16>(header, 0, 10);
  store<u16>(header, <u16>~fold(sumBytes(header, headerBytes)), 10);
}

/** Writes a header without options for a datagram of `total` bytes, this header included. */
export function write(header: usize, total: u32, protocol: u32, from: u32, to: u32): void {
  store<u8>(header, 0x45);
  store<u8>(header, 0, 1);
  storeBE16(header + 2, total);
  // RFC 6864: the identification says nothing where a datagram must not be fragmented (DF).
  store<u16>(header, 0, 4);
  storeBE16(header + 6, 0x4000);
  store<u8>(header, TTL, 8);
  store<u8>(header, <u8>protocol, 9);
  store<u16>(header, 0, 10);
  store<u32>(header, from, 12);
  store<u32>(header, to, 16);
  store<u16>(header, <u16>~fold(sumBytes(header, IPV4_BYTES)), 10);
}
