/**
 * The frame that the source app sends: Ethernet, IPv4 or IPv6, UDP or TCP, and as data a counting
 * pattern, so that a receiver sees at once where bytes are missing or doubled. Called by source.ts,
 * once a packet.
 */
import * as config from "../config";
import { GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, request } from "../../drivers/net/header";
import { Packet } from "../../drivers/net/packet";
import { storeBE16, storeBE32 } from "../net/bytes";
import { fold } from "../net/checksum";
import { ETHERNET_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from "../net/ethernet";
import { mark } from "../net/interface";
import { Stack } from "../net/stack";
import * as ethernet from "../net/ethernet";
import * as ipv4 from "../net/ipv4";
import * as ipv6 from "../net/ipv6";
import * as udp from "../net/udp";
import * as udp6 from "../net/udp6";

/** The source port: the first of the dynamic ones, RFC 6335. */
const SOURCE_PORT: u32 = 49152;

const TCP_BYTES: u32 = 20;
/** Offset of the checksum in a TCP header. */
const TCP_CHECKSUM: u32 = 16;
const TCP_ACK: u32 = 0x10;

function isTcp(): bool {
  return config.gso == config.Gso.Tcp4 || config.gso == config.Gso.Tcp6;
}

/** Into what the device is to cut it, as the net header says it. */
export function gsoType(): u32 {
  if (config.gso == config.Gso.None) return GSO_NONE;
  if (config.gso == config.Gso.Tcp4) return GSO_TCPV4;
  return config.gso == config.Gso.Tcp6 ? GSO_TCPV6 : GSO_UDP_L4;
}

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
  const ipBytes = config.isDst6 ? ipv6.IPV6_BYTES : ipv4.IPV4_BYTES;
  const start = ETHERNET_BYTES + ipBytes;
  const transport = frame + start;
  const protocol = isTcp() ? ipv4.PROTOCOL_TCP : ipv4.PROTOCOL_UDP;
  const headers = start + (isTcp() ? TCP_BYTES : udp.UDP_BYTES);
  fill(packet, room, headers);
  if (isTcp()) writeTcp(transport);
  else udp.writeHeader(transport, SOURCE_PORT, config.dstPort, config.size - headers);
  if (config.isDst6) {
    const from = source6(stack);
    const limit = stack.net.six.hopLimit;
    ipv6.write(ip, config.size - start, protocol, limit, from, config.dstIp6);
  } else {
    ipv4.write(ip, config.size - ETHERNET_BYTES, protocol, stack.ip, config.dstIp);
  }
  const ethertype = config.isDst6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4;
  ethernet.write(frame, destination, stack.net.link.mac, ethertype);
  finishChecksum(packet, start, protocol, stack);
  packet.total = config.size;
  mark(packet);
}

/** Our address towards the destination; source.ts has waited for one. */
function source6(stack: Stack): usize {
  const six = stack.net.six;
  return six.at(max<i32>(0, six.sourceFor(config.dstIp6)));
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
function finishChecksum(packet: Packet, start: u32, protocol: u32, stack: Stack): void {
  const bytes = config.size - start;
  const transport = packet.data + start;
  if (config.gso == config.Gso.None) {
    if (config.isDst6) udp6.finish(transport, source6(stack), config.dstIp6, bytes);
    else udp.finish(transport, stack.ip, config.dstIp, bytes);
    return;
  }
  const pseudo = config.isDst6
    ? ipv6.sumPseudoHeader(source6(stack), config.dstIp6, bytes, protocol)
    : udp.sumPseudoHeader(stack.ip, config.dstIp, bytes, protocol);
  const offset = isTcp() ? TCP_CHECKSUM : udp.UDP_CHECKSUM;
  store<u16>(transport + offset, <u16>fold(pseudo));
  request(packet, start, offset, gsoType(), config.mss);
}
