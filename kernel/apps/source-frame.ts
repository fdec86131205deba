/**
 * The frame that the source app sends: Ethernet, IPv4, UDP, and as data a counting pattern, so that
 * a receiver sees at once where bytes are missing or doubled. Called by source.ts, once a packet.
 */
import * as config from "../config";
import { GSO_TCPV4, GSO_UDP_L4, request } from "../../drivers/net/header";
import { Packet } from "../../drivers/net/packet";
import { storeBE16, storeBE32 } from "../net/bytes";
import { fold } from "../net/checksum";
import { ETHERNET_BYTES, ETHERTYPE_IPV4 } from "../net/ethernet";
import { mark } from "../net/interface";
import { Stack } from "../net/stack";
import * as ethernet from "../net/ethernet";
import * as ipv4 from "../net/ipv4";
import * as udp from "../net/udp";

/** The source port: the first of the dynamic ones, RFC 6335. */
const SOURCE_PORT: u32 = 49152;

const TCP_BYTES: u32 = 20;
/** Offset of the checksum in a TCP header. */
const TCP_CHECKSUM: u32 = 16;
const TCP_ACK: u32 = 0x10;

/** How many segments a frame of config.size bytes takes of buffers with room for `room` bytes. */
export function segmentsNeeded(room: u32): u32 {
  return (config.size + room - 1) / room;
}

/**
 * Fills `packet`, which has a linked chain of enough segments of `room` bytes, with a frame of
 * config.size bytes to `destination`.
 */
export function buildFrame(packet: Packet, room: u32, stack: Stack, destination: usize): void {
  const frame = packet.data;
  const ip = frame + ETHERNET_BYTES;
  const isTcp = config.gso == config.Gso.Tcp4;
  const protocol = isTcp ? ipv4.PROTOCOL_TCP : ipv4.PROTOCOL_UDP;
  const headers: u32 = ETHERNET_BYTES + ipv4.IPV4_BYTES + (isTcp ? TCP_BYTES : udp.UDP_BYTES);
  fill(packet, room, headers);
  const transport = ip + ipv4.IPV4_BYTES;
  if (isTcp) writeTcp(transport);
  else udp.writeHeader(transport, SOURCE_PORT, config.dstPort, config.size - headers);
  ipv4.write(ip, config.size - ETHERNET_BYTES, protocol, stack.ip, config.dstIp);
  ethernet.write(frame, destination, stack.net.link.mac, ETHERTYPE_IPV4);
  finishChecksum(packet, transport, stack);
  packet.total = config.size;
  mark(packet);
}

/** The counting pattern, behind `headers` bytes, over all segments; sets their lengths. */
function fill(packet: Packet, room: u32, headers: u32): void {
  let left = config.size;
  let offset = headers;
  let value: u32 = 0;
  let segment: Packet | null = packet;
  while (segment != null) {
    const here = min(left, room);
    for (let i = offset; i < here; i++, value++) store<u8>(segment.data + i, <u8>value);
    segment.length = here;
    left -= here;
    offset = 0;
    segment = segment.next;
  }
}

function writeTcp(header: usize): void {
  storeBE16(header, SOURCE_PORT);
  storeBE16(header + 2, config.dstPort);
  storeBE32(header + 4, 1);
  storeBE32(header + 8, 1);
  store<u8>(header + 12, (TCP_BYTES >> 2) << 4);
  store<u8>(header + 13, TCP_ACK);
  storeBE16(header + 14, 65535);
  store<u32>(header, 0, TCP_CHECKSUM);
}

/** Left to the device with a frame that it cuts, or computed. virtio 1.4 §5.1.9.2.1 */
function finishChecksum(packet: Packet, transport: usize, stack: Stack): void {
  const start = ETHERNET_BYTES + ipv4.IPV4_BYTES;
  const bytes = config.size - start;
  if (config.gso == config.Gso.None) {
    udp.finish(transport, stack.ip, config.dstIp, bytes);
    return;
  }
  const isTcp = config.gso == config.Gso.Tcp4;
  const protocol = isTcp ? ipv4.PROTOCOL_TCP : ipv4.PROTOCOL_UDP;
  const offset = isTcp ? TCP_CHECKSUM : udp.UDP_CHECKSUM;
  const pseudo = fold(udp.sumPseudoHeader(stack.ip, config.dstIp, bytes, protocol));
  store<u16>(transport + offset, <u16>pseudo);
  request(packet, start, offset, isTcp ? GSO_TCPV4 : GSO_UDP_L4, config.mss);
}
