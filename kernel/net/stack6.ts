/**
 * The IPv6 half of a NIC's network stack: its addresses, neighbours and routers, and what becomes
 * of each IPv6 frame. Made by stack.ts, which calls it when a frame's ethertype is IPv6's.
 *
 *   link-local address --dad--> preferred         router --advertisement--> SLAAC address --dad-->
 */
import * as machine from "../machine";
import { Addressing6, NicConfig } from "../config";
import { Packet } from "../../drivers/net/packet";
import { isUnspecified6 } from "./address6";
import { AddressState, LINK_ENTRY, Origin } from "./addresses6";
import { Dad } from "./dad";
import { DropReason } from "./drops";
import { ETHERNET_BYTES, ETHERTYPE_IPV6 } from "./ethernet";
import { Interface } from "./interface";
import { loadBE16 } from "./bytes";
import { PROTOCOL_UDP } from "./ipv4";
import { Nd } from "./nd";
import { relay } from "./relay";
import { Slaac } from "./slaac";
import * as icmpv6 from "./icmpv6";
import * as ipv6 from "./ipv6";
import * as message from "./nd-message";
import * as udp6 from "./udp6";

/** Types from here on are neighbour discovery's, five of them. RFC 4861 4 */
const ND_FIRST: u32 = message.ROUTER_SOLICITATION;
const ND_TYPES: u32 = 5;

const STATIC_ENTRY: u32 = 1;

export class Stack6 {
  readonly nd: Nd;
  private readonly dad: Dad;
  private readonly slaac: Slaac;
  private readonly automatic: bool;
  /** The router of the command line, or 0. */
  private readonly gateway: usize;

  /** At boot only. `relays`: addresses, neighbours and routers are CPU 0's to find out. */
  constructor(
    readonly net: Interface,
    config: NicConfig,
    readonly relays: bool,
  ) {
    const dad = new Dad(net);
    const slaac = new Slaac(net, dad);
    this.dad = dad;
    this.slaac = slaac;
    this.nd = new Nd(net, dad);
    this.automatic = config.addressing6 == Addressing6.Auto;
    this.gateway = isUnspecified6(config.gateway6) ? 0 : config.gateway6;
    const six = net.six;
    six.setLinkLocal(net.link.mac);
    if (config.addressing6 == Addressing6.Off) {
      // Nobody hears of it, but a source's frames may come from it.
      six.setState(LINK_ENTRY, AddressState.Preferred);
    } else {
      this.begin(config);
    }
  }

  private begin(config: NicConfig): void {
    const six = this.net.six;
    six.enabled = true;
    this.dad.start(LINK_ENTRY);
    if (this.automatic) {
      this.slaac.solicit();
    } else {
      six.set(STATIC_ENTRY, config.ip6, config.prefix6, Origin.Static);
      this.dad.start(STATIC_ENTRY);
    }
  }

  /** When poll() has something to do. */
  get deadline(): u64 {
    return min(min(this.dad.deadline, this.nd.deadline), this.slaac.deadline);
  }

  poll(now: u64): void {
    if (now >= this.dad.deadline) {
      this.dad.poll(now);
      // An address may be one of those now that grow old.
      if (this.automatic) this.slaac.deadline = 0;
    }
    if (now >= this.nd.deadline) this.nd.poll(now);
    if (now >= this.slaac.deadline) this.slaac.poll(now);
  }

  /** Tells the network where we are, and asks who is there: it may be another network. */
  announce(): void {
    if (!this.net.six.enabled) return;
    this.nd.announce();
    if (this.automatic) this.slaac.solicit();
  }

  /** The neighbour that leads to `address`, or 0 when there is none. */
  nextHop(address: usize): usize {
    if (this.net.six.isOnLink(address)) return address;
    return this.gateway != 0 ? this.gateway : this.slaac.defaultRouter(machine.tsc());
  }

  // ---- receiving --------------------------------------------------------------------------------

  /** Takes in a frame with an IPv6 ethertype. True: it has become its answer. */
  receive(packet: Packet): bool {
    const net = this.net;
    const protocol = ipv6.accept(net, packet);
    if (protocol == PROTOCOL_UDP) return udp6.receive(net, packet);
    if (protocol != ipv6.PROTOCOL_ICMPV6) return false;
    const type = icmpv6.accept(net, packet);
    if (type == 0) return false;
    if (type - ND_FIRST < ND_TYPES) return this.discover(packet, type);
    return icmpv6.echo(net, packet);
  }

  /** Neighbour discovery. */
  private discover(packet: Packet, type: u32): bool {
    const drops = this.net.drops;
    if (ipv6.hopLimit != message.HOP_LIMIT) return drops.count(DropReason.NdHopLimit);
    const isSolicitation = type == message.SOLICITATION;
    const isAdvertisement = type == message.ADVERTISEMENT;
    const isRouters = type == message.ROUTER_ADVERTISEMENT;
    // Whoever asks for duplicates may mean an address that only CPU 0 thinks about.
    const isAnswerable = isSolicitation && !isUnspecified6(ipv6.source);
    if (this.relays && !isAnswerable) {
      return isSolicitation || isAdvertisement || isRouters
        ? relay(packet, this.net.link.index)
        : drops.count(DropReason.Nd);
    }
    if (isSolicitation) return this.nd.solicited(packet);
    if (isAdvertisement) this.nd.advertised(packet);
    else if (isRouters && this.automatic) this.slaac.advertised(packet, machine.tsc());
    // To hosts that have all their addresses from the command line, and what only routers hear.
    else drops.count(DropReason.Nd);
    return false;
  }
}

/** Whether the frame is neighbour discovery, for apps that look at nothing else. */
export function isDiscovery(packet: Packet): bool {
  if (packet.length < ipv6.HEADERS_BYTES + icmpv6.ICMPV6_BYTES) return false;
  const frame = packet.data;
  const isIcmp =
    loadBE16(frame + 12) == ETHERTYPE_IPV6 &&
    load<u8>(frame + ETHERNET_BYTES, 6) == ipv6.PROTOCOL_ICMPV6;
  return isIcmp && <u32>load<u8>(frame + ipv6.HEADERS_BYTES) - ND_FIRST < ND_TYPES;
}
