/**
 * UDP over IPv6, RFC 768 and RFC 8200 8.1: the same datagrams as in udp.ts, with a pseudo header of
 * their own and a checksum that must be there. Called by stack6.ts for every datagram to us, and by
 * the source app.
 */
import { isChecked, isPartial } from "../../drivers/net/header";
import { Packet } from "../../drivers/net/packet";
import { loadBE16, storeBE16 } from "./bytes";
import { VALID, fold, sumBytes, sumPacket } from "./checksum";
import { DropReason } from "./drops";
import { Interface } from "./interface";
import { PROTOCOL_UDP } from "./ipv4";
import { PORT_DISCARD, PORT_ECHO, UDP_BYTES, UDP_CHECKSUM } from "./udp";
import * as ethernet from "./ethernet";
import * as ipv6 from "./ipv6";

/** Serves the datagram that ipv6.ts accepted. True: it has become its answer. */
export function receive(net: Interface, packet: Packet): bool {
  const offset = ipv6.offset;
  if (ipv6.payloadBytes < UDP_BYTES) return net.drops.count(DropReason.UdpLength);
  if (packet.length < offset + UDP_BYTES) return net.drops.count(DropReason.Truncated);
  const header = packet.data + offset;
  const length = loadBE16(header + 4);
  if (length < UDP_BYTES || length > ipv6.payloadBytes) {
    return net.drops.count(DropReason.UdpLength);
  }
  if (!isRight(packet, header, length)) return net.drops.count(DropReason.UdpChecksum);
  const sourcePort = loadBE16(header);
  const port = loadBE16(header + 2);
  if (port == PORT_ECHO) return echo(net, packet, header, sourcePort);
  if (port != PORT_DISCARD) return net.drops.count(DropReason.UdpPort);
  net.drops.accepted++;
  net.drops.discarded++;
  return false;
}

/** Checked by a device, or left by a host on this machine to be completed; or right. */
function isRight(packet: Packet, header: usize, length: u32): bool {
  if (isPartial(packet, ipv6.offset, UDP_CHECKSUM)) return true;
  // Without a checksum nothing would protect the addresses. RFC 8200 8.1
  if (load<u16>(header, UDP_CHECKSUM) == 0) return false;
  if (isChecked(packet)) return true;
  const pseudo = ipv6.sumPseudoHeader(ipv6.source, ipv6.destination, length, PROTOCOL_UDP);
  return fold(pseudo + sumPacket(packet, ipv6.offset, length)) == VALID;
}

/** Turns a datagram to the echo port round in place; its checksum stays right. */
function echo(net: Interface, packet: Packet, header: usize, sourcePort: u32): bool {
  // See udp.ts: no answer to a group, and none to another echo service.
  if (ipv6.toGroup || net.six.isOurs(ipv6.source)) return net.drops.count(DropReason.IpAddress);
  if (sourcePort == PORT_ECHO || sourcePort == 0) return net.drops.count(DropReason.UdpPort);
  storeBE16(header, PORT_ECHO);
  storeBE16(header + 2, sourcePort);
  ipv6.answer(net, packet, ipv6.destination, PROTOCOL_UDP);
  ethernet.answer(packet.data, net.link.mac);
  net.drops.accepted++;
  return true;
}

/** Puts the checksum into a datagram of `length` bytes, header included, that lies in one piece. */
export function finish(header: usize, from: usize, to: usize, length: u32): void {
  const sum = ipv6.sumPseudoHeader(from, to, length, PROTOCOL_UDP) + sumBytes(header, length);
  const checksum = ~fold(sum) & 0xffff;
  store<u16>(header, <u16>(checksum == 0 ? 0xffff : checksum), UDP_CHECKSUM);
}
