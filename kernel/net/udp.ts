/**
 * UDP, RFC 768 and RFC 1122 4.1.3; the echo service of RFC 862. Called by the stack for every
 * datagram to us, and by what sends datagrams of its own.
 *
 *   0 source port | 2 destination port | 4 length | 6 checksum | 8 data ...
 */
import { isChecked, isPartial } from "../../drivers/net/header";
import { Packet } from "../../drivers/net/packet";
import { loadBE16, storeBE16 } from "./bytes";
import { VALID, fold, sumBytes, sumPacket } from "./checksum";
import { DropReason } from "./drops";
import { ETHERNET_BYTES } from "./ethernet";
import { Interface } from "./interface";
import * as ethernet from "./ethernet";
import * as ipv4 from "./ipv4";

export const UDP_BYTES: u32 = 8;
export const UDP_CHECKSUM: u32 = 6;
export const PORT_ECHO: u32 = 7;
export const PORT_DISCARD: u32 = 9;
export const PORT_DHCP_SERVER: u32 = 67;
export const PORT_DHCP_CLIENT: u32 = 68;

/** What accept() found in the packet at hand, checked. */
export let sourcePort: u32 = 0;
export let dataBytes: u32 = 0;

/** The sum of the pseudo header of UDP or TCP, to be folded with the datagram's. RFC 768 */
export function sumPseudoHeader(from: u32, to: u32, length: u32, protocol: u32): u64 {
  const protocolAndLength = (protocol << 8) + bswap<u16>(<u16>length);
  return <u64>from + to + protocolAndLength;
}

/** The destination port of a well-formed datagram; 0 for one that was dropped. */
export function accept(net: Interface, packet: Packet): u32 {
  const offset = ETHERNET_BYTES + ipv4.headerBytes;
  if (ipv4.payloadBytes < UDP_BYTES) return <u32>net.drops.count(DropReason.UdpLength);
  if (packet.length < offset + UDP_BYTES) return <u32>net.drops.count(DropReason.Truncated);
  const header = packet.data + offset;
  const length = loadBE16(header + 4);
  if (length < UDP_BYTES || length > ipv4.payloadBytes) {
    return <u32>net.drops.count(DropReason.UdpLength);
  }
  // A device has checked it, or a host on this machine left it to be completed: then it is right.
  const trusted = isChecked(packet) || isPartial(packet, offset, UDP_CHECKSUM);
  if (load<u16>(header, 6) != 0 && !trusted) {
    const sum = sumPseudoHeader(ipv4.source, ipv4.destination, length, ipv4.PROTOCOL_UDP);
    if (fold(sum + sumPacket(packet, offset, length)) != VALID) {
      return <u32>net.drops.count(DropReason.UdpChecksum);
    }
  }
  sourcePort = loadBE16(header);
  dataBytes = length - UDP_BYTES;
  const port = loadBE16(header + 2);
  if (port == 0) net.drops.count(DropReason.UdpPort);
  return port;
}

/** Turns a datagram to the echo port round in place; its checksum stays right. */
export function echo(net: Interface, packet: Packet): bool {
  // Nobody answers a broadcast, for a whole network would; and two echo services, one named as the
  // source of a forged datagram, would answer each other for ever.
  if (ipv4.toBroadcast) return net.drops.count(DropReason.IpAddress);
  if (sourcePort == PORT_ECHO || sourcePort == 0) return net.drops.count(DropReason.UdpPort);
  const header = packet.data + ETHERNET_BYTES + ipv4.headerBytes;
  storeBE16(header, PORT_ECHO);
  storeBE16(header + 2, sourcePort);
  ipv4.answer(packet);
  ethernet.answer(packet.data, net.link.mac);
  net.drops.accepted++;
  return true;
}

/** Writes the header of a datagram with `bytes` bytes of data; its checksum is 0 until `finish`. */
export function writeHeader(header: usize, fromPort: u32, toPort: u32, bytes: u32): void {
  storeBE16(header, fromPort);
  storeBE16(header + 2, toPort);
  storeBE16(header + 4, UDP_BYTES + bytes);
  store<u16>(header, 0, UDP_CHECKSUM);
}

/** Puts the checksum into a datagram of `length` bytes, header included, that lies in one piece. */
export function finish(header: usize, from: u32, to: u32, length: u32): void {
  const sum = sumPseudoHeader(from, to, length, ipv4.PROTOCOL_UDP) + sumBytes(header, length);
  const checksum = ~fold(sum) & 0xffff;
  // A zero would say that there is no checksum.
  store<u16>(header, <u16>(checksum == 0 ? 0xffff : checksum), UDP_CHECKSUM);
}

/** Writes the header of a datagram whose data, `bytes` long, follows it in place already. */
export function write(
  header: usize,
  fromPort: u32,
  toPort: u32,
  bytes: u32,
  from: u32,
  to: u32,
): void {
  writeHeader(header, fromPort, toPort, bytes);
  finish(header, from, to, UDP_BYTES + bytes);
}
