/**
 * The network stack of one NIC: it answers ARP, ICMP echo and UDP echo in place, discards, and
 * gets an address; stack6.ts does the same for IPv6. main.ts makes one for each NIC and calls
 * poll(); the apps hand received packets to receive(). One call, one packet, no copy: what it
 * answers goes back out in the buffer that it came in.
 */
import { Addressing, NicConfig } from "../config";
import { NEVER } from "../time";
import { Link } from "../../drivers/net/link";
import { Packet } from "../../drivers/net/packet";
import { QueuePair } from "../../drivers/net/queue-pair";
import { Arp } from "./arp";
import { Dhcp } from "./dhcp";
import { completeChecksum } from "./checksum";
import { DropReason, Drops } from "./drops";
import { ETHERNET_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from "./ethernet";
import { Interface } from "./interface";
import { relay } from "./relay";
import { Stack6 } from "./stack6";
import * as arp from "./arp";
import * as ethernet from "./ethernet";
import * as icmp from "./icmp";
import * as ipv4 from "./ipv4";
import * as udp from "./udp";

export class Stack {
  readonly net: Interface;
  readonly arp: Arp;
  readonly six: Stack6;
  private readonly relays: bool;
  private dhcp: Dhcp | null = null;

  /**
   * At boot only. `pair` is what answers and the stack's own packets go out on. `relays`: this is
   * not CPU 0's stack; it answers like it, but addresses and neighbours are CPU 0's to find out.
   */
  constructor(link: Link, pair: QueuePair, config: NicConfig, relays: bool) {
    const net = new Interface(link, pair);
    const arp = new Arp(net, relays);
    this.net = net;
    this.relays = relays;
    this.arp = arp;
    this.six = new Stack6(net, config, relays);
    if (config.addressing == Addressing.Dhcp) {
      this.dhcp = new Dhcp(net, arp, config.gateway);
    } else if (config.addressing == Addressing.Static) {
      net.setAddress(config.ip, config.prefix, config.gateway);
      arp.announce();
    }
  }

  /** Whether it has the address that it is meant to have; also true when none was asked for. */
  get ready(): bool {
    const dhcp = this.dhcp;
    return dhcp == null || dhcp.bound;
  }

  /** Our address, its prefix and the router, in network order; 0 while there is none. */
  get ip(): u32 {
    return this.net.ip;
  }

  get prefix(): u32 {
    return this.net.prefix;
  }

  get gateway(): u32 {
    return this.net.gateway;
  }

  /** Whether it has an address now, or looks for one: then it needs to see received packets. */
  get listens(): bool {
    return this.net.ip != 0 || this.net.configuring || this.net.six.enabled;
  }

  get drops(): Drops {
    return this.net.drops;
  }

  /**
   * Tells the network again where we are: for main.ts, when the link came back or the device asks
   * for it (virtio 1.4 §5.1.6.5.4).
   */
  announce(): void {
    if (this.net.ip != 0) this.arp.announce();
    this.six.announce();
  }

  /** The MAC of the next hop that the source app asked for, or 0 while it is not known. */
  get hopMac(): usize {
    if (this.arp.known) return this.arp.mac;
    return this.six.nd.known ? this.six.nd.mac : 0;
  }

  /** Takes over the next hop's MAC; there is one, so its kind does not matter. */
  mirrorHop(macLow: u32, macHigh: u32): void {
    this.arp.mirror(macLow, macHigh);
  }

  /** Takes over the address that CPU 0 has, and whether it looks for one. */
  mirror(ip: u32, prefix: u32, gateway: u32, configuring: bool): void {
    this.net.configuring = configuring;
    if (ip != 0) this.net.setAddress(ip, prefix, gateway);
    else this.net.clearAddress();
  }

  /** Does what is due at time stamp `now`; answers when to call again at the latest. */
  poll(now: u64): u64 {
    let deadline = NEVER;
    const dhcp = this.dhcp;
    if (dhcp != null) {
      dhcp.poll(now);
      deadline = dhcp.deadline;
    }
    if (now >= this.arp.deadline) this.arp.poll(now);
    if (now >= this.six.deadline) this.six.poll(now);
    return min(min(deadline, this.arp.deadline), this.six.deadline);
  }

  /**
   * Takes in a received packet. True: it has become its answer and is to be sent. False: it is
   * done with and to be released. Either way a counter in `drops` says what became of it.
   */
  receive(packet: Packet): bool {
    const answered = this.answer(packet);
    // An answer whose checksum is left to the device needs a device that can.
    return answered && (this.net.pair.offloads.csum || this.complete(packet));
  }

  private complete(packet: Packet): bool {
    return completeChecksum(packet) || this.net.drops.count(DropReason.Offload);
  }

  private answer(packet: Packet): bool {
    const ethertype = ethernet.accept(this.net, packet);
    if (ethertype == ETHERTYPE_IPV4) return this.receiveIpv4(packet);
    if (ethertype == ETHERTYPE_ARP) {
      if (this.relays && arp.isReply(packet)) return relay(packet, this.net.link.index);
      return this.arp.receive(packet);
    }
    if (ethertype == ETHERTYPE_IPV6 && this.net.six.enabled) return this.six.receive(packet);
    if (ethertype != ethernet.DROPPED) this.net.drops.count(DropReason.Ethertype);
    return false;
  }

  private receiveIpv4(packet: Packet): bool {
    const protocol = ipv4.accept(this.net, packet);
    if (protocol == ipv4.PROTOCOL_UDP) return this.receiveUdp(packet);
    if (protocol == ipv4.PROTOCOL_ICMP) return icmp.receive(this.net, packet);
    return false;
  }

  private receiveUdp(packet: Packet): bool {
    const net = this.net;
    const port = udp.accept(net, packet);
    if (port == 0) return false;
    const dhcp = this.dhcp;
    if (port == udp.PORT_DHCP_CLIENT && this.relays) return relay(packet, this.net.link.index);
    if (port == udp.PORT_DHCP_CLIENT && dhcp != null) {
      dhcp.receive(packet, ETHERNET_BYTES + ipv4.headerBytes + udp.UDP_BYTES, udp.dataBytes);
      return false;
    }
    // While there is no address, what got this far came for DHCP.
    if (net.ip == 0) return net.drops.count(DropReason.IpAddress);
    if (port == udp.PORT_ECHO) return udp.echo(net, packet);
    if (port != udp.PORT_DISCARD) return net.drops.count(DropReason.UdpPort);
    net.drops.accepted++;
    net.drops.discarded++;
    return false;
  }
}
