/**
 * ICMP echo, RFC 792 and RFC 1122 3.2.2.6. Called by the stack for every ICMP message to us.
 *
 *   0 type | 1 code | 2 checksum | 4 identifier | 6 sequence number | 8 data ...
 */
import { Packet } from "../../drivers/net/packet";
import { VALID, completeChecksum, sumPacket, update } from "./checksum";
import { DropReason } from "./drops";
import { ETHERNET_BYTES } from "./ethernet";
import { Interface } from "./interface";
import * as ethernet from "./ethernet";
import * as ipv4 from "./ipv4";

const ICMP_BYTES: u32 = 8;
/** Type and code as one word in memory order. */
const ECHO: u32 = 8;
const ECHO_REPLY: u32 = 0;

/** Turns an echo request into its reply in place. True: to be sent. */
export function receive(net: Interface, packet: Packet): bool {
  const offset = ETHERNET_BYTES + ipv4.headerBytes;
  if (ipv4.payloadBytes < ICMP_BYTES) return net.drops.count(DropReason.IcmpLength);
  if (packet.length < offset + ICMP_BYTES) return net.drops.count(DropReason.Truncated);
  const message = packet.data + offset;
  if (load<u16>(message) != ECHO) return net.drops.count(DropReason.IcmpType);
  // Its checksum is about to change: what is left to be completed is completed now.
  if (!completeChecksum(packet) || sumPacket(packet, offset, ipv4.payloadBytes) != VALID) {
    return net.drops.count(DropReason.IcmpChecksum);
  }
  store<u16>(message, <u16>ECHO_REPLY);
  store<u16>(message, <u16>update(load<u16>(message, 2), ECHO, ECHO_REPLY), 2);
  ipv4.answer(packet);
  ethernet.answer(packet.data, net.link.mac);
  net.drops.accepted++;
  return true;
}
