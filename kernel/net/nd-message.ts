/**
 * Neighbour discovery's messages as bytes, RFC 4861 4: their options are read here, and all that we
 * send is written here. Called by nd.ts, dad.ts and slaac.ts.
 *
 *   solicitation, advertisement  0 type | 1 code | 2 checksum | 4 flags | 8 target 16 | 24 options
 *   router solicitation          0 type | 1 code | 2 checksum | 4 -     | 8 options
 *   router advertisement         0 type | 1 code | 2 checksum | 4 hop limit | 5 flags
 *                                6 lifetime | 8 reachable | 12 retransmit | 16 options
 *
 *   an option                    0 type | 1 length in 8 bytes | 2 ...
 *   a link-layer address         2 MAC 6 | 8
 *   prefix information           2 prefix length | 3 flags | 4 valid | 8 preferred | 12 -
 *                                16 prefix 16 | 32
 */
import { Packet } from "../../drivers/net/packet";
import { ALL_NODES, copy6, isGroup6, writeGroupMac } from "./address6";
import { copyMac, isGroupMac, isZeroMac } from "./address";
import { fold, sumBytes } from "./checksum";
import { ETHERNET_BYTES, ETHERTYPE_IPV6 } from "./ethernet";
import { Interface } from "./interface";
import * as ethernet from "./ethernet";
import * as ipv6 from "./ipv6";

export const ROUTER_SOLICITATION: u32 = 133;
export const ROUTER_ADVERTISEMENT: u32 = 134;
export const SOLICITATION: u32 = 135;
export const ADVERTISEMENT: u32 = 136;
/** What only neighbours may send: nothing that a router passed on has it. RFC 4861 3.1 */
export const HOP_LIMIT: u32 = 255;

/** Bytes of the messages before their options. */
export const ROUTER_SOLICITATION_BYTES: u32 = 8;
export const ROUTER_ADVERTISEMENT_BYTES: u32 = 16;
export const NEIGHBOUR_BYTES: u32 = 24;

export const OPTION_SOURCE_MAC: u32 = 1;
export const OPTION_TARGET_MAC: u32 = 2;
const OPTION_PREFIX: u32 = 3;
const MAC_OPTION_BYTES: u32 = 8;
const PREFIX_OPTION_BYTES: u32 = 32;

/** Flags of an advertisement, in the byte at 4. */
export const SOLICITED: u32 = 0x40;
export const OVERRIDE: u32 = 0x20;

/** The MACs in the options that parseOptions looked at; hasMac tells whether they were there. */
export const sourceMac: usize = memory.data(8, 8);
export const targetMac: usize = memory.data(8, 8);
export let hasSourceMac: bool = false;
export let hasTargetMac: bool = false;

// ---- reading ------------------------------------------------------------------------------------

/** Looks at options of `bytes` bytes. False if they do not hold together. RFC 4861 6.1, 7.1 */
export function parseOptions(options: usize, bytes: u32): bool {
  hasSourceMac = false;
  hasTargetMac = false;
  let at: u32 = 0;
  while (at < bytes) {
    if (at + 2 > bytes) return false;
    const option = options + at;
    const length = (<u32>load<u8>(option, 1)) << 3;
    // An option without a length would be looked at for ever.
    if (length == 0 || length > bytes - at) return false;
    at += length;
    const type: u32 = load<u8>(option);
    if (type == OPTION_SOURCE_MAC) {
      hasSourceMac = takeMac(sourceMac, option, length);
      if (!hasSourceMac) return false;
    } else if (type == OPTION_TARGET_MAC) {
      hasTargetMac = takeMac(targetMac, option, length);
      if (!hasTargetMac) return false;
    }
  }
  return true;
}

function takeMac(to: usize, option: usize, length: u32): bool {
  copyMac(to, option + 2);
  return length == MAC_OPTION_BYTES && !isGroupMac(to) && !isZeroMac(to);
}

/** The next prefix information from `at` on, or 0. The options were looked at before. */
export function nextPrefix(at: usize, end: usize): usize {
  while (at + 2 <= end) {
    const length = (<u32>load<u8>(at, 1)) << 3;
    // Looked at again, for the device can still write them.
    if (length == 0 || at + length > end) return 0;
    if (load<u8>(at) == OPTION_PREFIX && length == PREFIX_OPTION_BYTES) return at;
    at += length;
  }
  return 0;
}

export function afterPrefix(option: usize): usize {
  return option + PREFIX_OPTION_BYTES;
}

// ---- writing ------------------------------------------------------------------------------------

/**
 * Sends a message: `bytes` before the options, with `target` unless that is 0, and with our MAC in
 * an option of type `option` unless that is 0. False if nothing could be sent now.
 */
export function send(
  net: Interface,
  type: u32,
  flags: u32,
  bytes: u32,
  from: usize,
  to: usize,
  target: usize,
  option: u32,
): bool {
  const length = bytes + (option != 0 ? MAC_OPTION_BYTES : 0);
  const packet = net.newPacket(ipv6.HEADERS_BYTES + length);
  if (packet == null) return false;
  ethernet.write(packet.data, ethernet.BROADCAST_MAC, net.link.mac, ETHERTYPE_IPV6);
  // All that we begin ourselves goes to groups.
  if (isGroup6(to)) writeGroupMac(packet.data, to);
  write(net, packet, type, flags, bytes, from, to, target, option);
  return net.send(packet);
}

/** Writes all but the Ethernet header; the packet has room, and is as long as it has to be. */
function write(
  net: Interface,
  packet: Packet,
  type: u32,
  flags: u32,
  bytes: u32,
  from: usize,
  to: usize,
  target: usize,
  option: u32,
): void {
  const length = packet.length - ipv6.HEADERS_BYTES;
  const header = packet.data + ETHERNET_BYTES;
  const message = packet.data + ipv6.HEADERS_BYTES;
  ipv6.write(header, length, ipv6.PROTOCOL_ICMPV6, HOP_LIMIT, from, to);
  store<u32>(message, type);
  store<u32>(message, flags, 4);
  if (target != 0) copy6(message + 8, target);
  if (option != 0) {
    store<u16>(message + bytes, <u16>(option | 0x0100));
    copyMac(message + bytes + 2, net.link.mac);
  }
  const sum = ipv6.sumPseudoHeader(header + 8, header + 24, length, ipv6.PROTOCOL_ICMPV6);
  store<u16>(message, <u16>~fold(sum + sumBytes(message, length)), 2);
}

/**
 * Turns a received solicitation for `target`, our address, into its answer in place: to the asker
 * at `mac`, or to all nodes if the asker has no address yet. RFC 4861 7.2.4
 */
export function answer(net: Interface, packet: Packet, target: usize, toAll: bool): void {
  const length = NEIGHBOUR_BYTES + MAC_OPTION_BYTES;
  packet.length = ipv6.HEADERS_BYTES + length;
  packet.total = packet.length;
  const frame = packet.data;
  if (toAll) writeGroupMac(frame, ALL_NODES);
  else copyMac(frame, hasSourceMac ? sourceMac : frame + 6);
  copyMac(frame + 6, net.link.mac);
  const to = toAll ? ALL_NODES : ipv6.source;
  const flags = toAll ? OVERRIDE : SOLICITED | OVERRIDE;
  const option = OPTION_TARGET_MAC;
  write(net, packet, ADVERTISEMENT, flags, NEIGHBOUR_BYTES, target, to, target, option);
}
