/**
 * UDP, RFC 768 and RFC 1122 4.1.3; the echo service of RFC 862. Called by the stack for every
 * datagram to us, and by what sends datagrams of its own.
 *
 *   0 source port | 2 destination port | 4 length | 6 checksum | 8 data ...
 */
import { Packet } from "../../drivers/net/packet";
import { loadBE16, storeBE16 } from "./bytes";
import { VALID, fold, sumBytes, sumPacket } from "./checksum";
import { DropReason } from "./drops";
import { ETHERNET_BYTES } from "./ethernet";
import { Interface } from "./interface";
import * as ethernet from "./ethernet";
import * as ipv4 from "./ipv4";

export const UDP_BYTES: u32 = 8;
export const PORT_ECHO: u32 = 7;
export const PORT_DISCARD: u32 = 9;
export const PORT_DHCP_SERVER: u32 = 67;
export const PORT_DHCP_CLIENT: u32 = 68;

/** What accept() found in the packet at hand, checked. */
export let sourcePort: u32 = 0;
export let dataBytes: u32 = 0;

/** The sum of the pseudo header, to be folded with the datagram's. RFC 768 */
function sumPseudoHeader(from: u32, to: u32, length: u32): u64 {
  const protocolAndLength = (ipv4.PROTOCOL_UDP << 8) + bswap<u16>(<u16>length);
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
  if (load<u16>(header, 6) != 0) {
    const sum = sumPseudoHeader(ipv4.source, ipv4.destination, length);
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
  ethernet.answer(packet.data, net.device.mac);
  net.drops.accepted++;
  return true;
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
  const length = UDP_BYTES + bytes;
  storeBE16(header, fromPort);
  storeBE16(header + 2, toPort);
  storeBE16(header + 4, length);
  store<u16>(header, 0, 6);
  const checksum = ~fold(sumPseudoHeader(from, to, length) + sumBytes(header, length)) & 0xffff;
  // A zero would say that there is no checksum.
  store<u16>(header, <u16>(checksum == 0 ? 0xffff : checksum), 6);
}
