/**
 * Ethernet II frames, without the FCS. Called by the stack for every frame.
 *
 *   0             6          12          14
 *   | destination | source   | ethertype | ...
 */
import { frameLimit } from "../../drivers/net/header";
import { Packet } from "../../drivers/net/packet";
import { copyMac, equalMac, isGroupMac } from "./address";
import { loadBE16, storeBE16 } from "./bytes";
import { DropReason } from "./drops";
import { Interface } from "./interface";

export const ETHERNET_BYTES: u32 = 14;
export const ETHERTYPE_IPV4: u32 = 0x0800;
export const ETHERTYPE_ARP: u32 = 0x0806;
export const ETHERTYPE_IPV6: u32 = 0x86dd;
/** How Ethernet addresses of IPv6 groups begin, in memory order. RFC 2464 7 */
const IPV6_GROUP: u32 = 0x3333;

/** The broadcast address. */
export const BROADCAST_MAC: usize = memory.data<u8>([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);

export function isBroadcastMac(mac: usize): bool {
  return load<u32>(mac) == 0xffffffff && load<u16>(mac, 4) == 0xffff;
}

/** What accept() answers for a frame that it dropped and counted; no ethertype is as large. */
export const DROPPED: u32 = 0x10000;

function drop(net: Interface, reason: DropReason): u32 {
  net.drops.count(reason);
  return DROPPED;
}

/** The ethertype of a frame that is for us and well-formed, or DROPPED. */
export function accept(net: Interface, packet: Packet): u32 {
  if (packet.total < ETHERNET_BYTES) return drop(net, DropReason.TooShort);
  if (packet.total > frameLimit(packet, net.link.mtu)) return drop(net, DropReason.TooLong);
  if (packet.length < ETHERNET_BYTES) return drop(net, DropReason.Truncated);
  const frame = packet.data;
  if (!equalMac(frame, net.link.mac) && !isBroadcastMac(frame) && !isOurGroup(net, frame)) {
    return drop(net, DropReason.NotForUs);
  }
  if (isGroupMac(frame + 6)) return drop(net, DropReason.Source);
  return loadBE16(frame + 12);
}

/** A group of IPv6's; which of them are ours, ipv6.ts sees in the address behind. */
function isOurGroup(net: Interface, frame: usize): bool {
  return net.six.enabled && load<u16>(frame) == IPV6_GROUP;
}

/** Whether the frame is ARP, from whomever to whomever. */
export function isArp(packet: Packet): bool {
  return packet.length >= ETHERNET_BYTES && loadBE16(packet.data + 12) == ETHERTYPE_ARP;
}

/** Turns a received header round. */
export function answer(frame: usize, mac: usize): void {
  copyMac(frame, frame + 6);
  copyMac(frame + 6, mac);
}

export function write(frame: usize, destination: usize, source: usize, ethertype: u32): void {
  copyMac(frame, destination);
  copyMac(frame + 6, source);
  storeBE16(frame + 12, ethertype);
}
