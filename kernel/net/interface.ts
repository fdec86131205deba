/**
 * What the protocols share of one NIC: its device, the queue pair that they send on, its addresses
 * and its drop counters. Made by stack.ts; held by arp.ts, dhcp.ts and the rest.
 */
import { Link } from "../../drivers/net/link";
import { Packet } from "../../drivers/net/packet";
import { QueuePair } from "../../drivers/net/queue-pair";
import { maskOf } from "./address";
import { Addresses6 } from "./addresses6";
import { Drops } from "./drops";

/** When to try again what could not be sent: no free packet, no slot in the ring, or no link. */
export const RESEND_US: u64 = 100_000;

/**
 * Packets that the source app has filled are marked, in the word of the record that is left to
 * apps, so that it knows its own when they come back from the ring. Whoever else sends a packet
 * takes the mark off.
 */
export function mark(packet: Packet): void {
  packet.mark = 1;
}

export function unmark(packet: Packet): void {
  packet.mark = 0;
}

export function isMarked(packet: Packet): bool {
  return packet.mark != 0;
}

export class Interface {
  readonly drops: Drops = new Drops();

  /** Our address in network order; 0 while there is none. */
  ip: u32 = 0;
  prefix: u32 = 0;
  mask: u32 = 0;
  /** The directed broadcast address; 0 when the network has none (/31, /32). RFC 3021 */
  broadcast: u32 = 0;
  gateway: u32 = 0;
  /** DHCP waits for an address: datagrams for it may come to an address not yet ours. */
  configuring: bool = false;
  /** What there is of IPv6. */
  readonly six: Addresses6 = new Addresses6();

  constructor(
    readonly link: Link,
    readonly pair: QueuePair,
  ) {}

  setAddress(ip: u32, prefix: u32, gateway: u32): void {
    this.ip = ip;
    this.prefix = prefix;
    this.mask = maskOf(prefix);
    this.broadcast = prefix < 31 ? ip | ~this.mask : 0;
    this.gateway = gateway;
  }

  clearAddress(): void {
    this.ip = 0;
    this.prefix = 0;
    this.mask = 0;
    this.broadcast = 0;
    this.gateway = 0;
  }

  /** Whether a datagram to `address` is a broadcast that we hear. */
  isBroadcast(address: u32): bool {
    return address == 0xffffffff || (address == this.broadcast && address != 0);
  }

  /** The neighbour that leads to `address`; 0 when there is none. */
  nextHop(address: u32): u32 {
    return ((address ^ this.ip) & this.mask) == 0 ? address : this.gateway;
  }

  /** A packet for a frame of `bytes` bytes in one segment, or null when none is free. */
  newPacket(bytes: u32): Packet | null {
    if (!this.link.linkUp) return null;
    const packet = this.pair.pool.take();
    if (packet == null) return null;
    packet.length = bytes;
    packet.total = bytes;
    unmark(packet);
    return packet;
  }

  /** Sends a packet of newPacket, or gives it back. */
  send(packet: Packet): bool {
    if (this.pair.send(packet)) return true;
    this.pair.pool.release(packet);
    return false;
  }
}
