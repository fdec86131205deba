/**
 * ICMPv6, RFC 4443: its checksum, and echo. Called by stack6.ts for every ICMPv6 message to us.
 *
 *   0 type | 1 code | 2 checksum | 4 identifier | 6 sequence number | 8 data ...
 */
import { Packet } from "../../drivers/net/packet";
import { VALID, completeChecksum, fold, sumBytes, sumPacket, update } from "./checksum";
import { isUnspecified6 } from "./address6";
import { DropReason } from "./drops";
import { Interface } from "./interface";
import * as ethernet from "./ethernet";
import * as ipv6 from "./ipv6";

export const ICMPV6_BYTES: u32 = 8;
/** Type and code as one word in memory order. */
const ECHO_REQUEST: u32 = 128;
const ECHO_REPLY: u32 = 129;

/** The type of a message that is right, or 0 for one that was dropped. */
export function accept(net: Interface, packet: Packet): u32 {
  if (ipv6.payloadBytes < ICMPV6_BYTES) return <u32>net.drops.count(DropReason.IcmpLength);
  if (packet.length < ipv6.offset + ICMPV6_BYTES) {
    return <u32>net.drops.count(DropReason.Truncated);
  }
  // Every answer has another checksum: what is left to be completed is completed now.
  if (!completeChecksum(packet) || !isRight(packet)) {
    return <u32>net.drops.count(DropReason.IcmpChecksum);
  }
  return load<u8>(packet.data + ipv6.offset);
}

function isRight(packet: Packet): bool {
  const bytes = ipv6.payloadBytes;
  const protocol = ipv6.PROTOCOL_ICMPV6;
  const pseudo = ipv6.sumPseudoHeader(ipv6.source, ipv6.destination, bytes, protocol);
  return fold(pseudo + sumPacket(packet, ipv6.offset, bytes)) == VALID;
}

/** Turns an echo request into its reply in place. True: to be sent. RFC 4443 4.2 */
export function echo(net: Interface, packet: Packet): bool {
  const message = packet.data + ipv6.offset;
  if (load<u16>(message) != ECHO_REQUEST) return net.drops.count(DropReason.IcmpType);
  const source = ipv6.source;
  let from = ipv6.destination;
  let checksum = update(load<u16>(message, 2), ECHO_REQUEST, ECHO_REPLY);
  if (ipv6.toGroup) {
    // A group answers with the addresses of its members.
    const index = net.six.sourceFor(source);
    if (index < 0) return net.drops.count(DropReason.IpAddress);
    from = net.six.at(<u32>index);
    checksum = update(checksum, fold(sumBytes(ipv6.destination, 16)), fold(sumBytes(from, 16)));
  }
  if (isUnspecified6(source) || net.six.isOurs(source))
    return net.drops.count(DropReason.IpAddress);
  store<u16>(message, <u16>ECHO_REPLY);
  store<u16>(message, <u16>checksum, 2);
  ipv6.answer(net, packet, from, ipv6.PROTOCOL_ICMPV6);
  ethernet.answer(packet.data, net.link.mac);
  net.drops.accepted++;
  return true;
}
