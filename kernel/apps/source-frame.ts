/**
 * The frame that the source app sends: Ethernet, IPv4, UDP, and as data a counting pattern, so that
 * a receiver sees at once where bytes are missing or doubled. Called by source.ts, once a packet.
 */
import * as config from "../config";
import { Packet } from "../../drivers/net/packet";
import { ETHERNET_BYTES, ETHERTYPE_IPV4 } from "../net/ethernet";
import { mark } from "../net/interface";
import { Stack } from "../net/stack";
import * as ethernet from "../net/ethernet";
import * as ipv4 from "../net/ipv4";
import * as udp from "../net/udp";

/** The source port: the first of the dynamic ones, RFC 6335. */
const SOURCE_PORT: u32 = 49152;

/** Fills the one segment of `packet` with a frame of config.size bytes to `destination`. */
export function buildFrame(packet: Packet, stack: Stack, destination: usize): void {
  const size = config.size;
  const frame = packet.data;
  const ip = frame + ETHERNET_BYTES;
  const header = ip + ipv4.IPV4_BYTES;
  const data = header + udp.UDP_BYTES;
  const bytes = size - <u32>(data - frame);
  for (let i: u32 = 0; i < bytes; i++) store<u8>(data + i, <u8>i);
  udp.write(header, SOURCE_PORT, config.dstPort, bytes, stack.ip, config.dstIp);
  ipv4.write(ip, size - ETHERNET_BYTES, ipv4.PROTOCOL_UDP, stack.ip, config.dstIp);
  ethernet.write(frame, destination, stack.net.device.mac, ETHERTYPE_IPV4);
  packet.length = size;
  packet.total = size;
  mark(packet);
}
