// Whole frames in one call: UDP and ICMP echo in IPv4 in Ethernet, and a parser that goes as deep
// as it can. Used by the peer and by tests.

import { buildEthernet, type Ethernet, parseEthernet, TYPE_IPV4, type VlanTag } from "./ethernet";
import { buildIcmpEcho, type IcmpEcho } from "./icmp";
import { buildIpv4, type Ipv4, PROTOCOL_ICMP, PROTOCOL_UDP, parseIpv4 } from "./ipv4";
import { buildUdp, parseUdp, type Udp, type UdpFields } from "./udp";

export interface Route {
  readonly sourceMac: string;
  readonly destinationMac: string;
  readonly source: string;
  readonly destination: string;
  readonly vlan?: VlanTag;
  readonly ttl?: number;
}

/** A whole frame with a UDP datagram, not padded; `padded` makes it 60 bytes. */
export function udpFrame(route: Route, fields: UdpFields): Buffer {
  return ipv4Frame(route, PROTOCOL_UDP, buildUdp(fields, route));
}

/** A whole frame with an ICMP echo request or reply, not padded. */
export function icmpEchoFrame(route: Route, fields: IcmpEcho): Buffer {
  return ipv4Frame(route, PROTOCOL_ICMP, buildIcmpEcho(fields));
}

function ipv4Frame(route: Route, protocol: number, payload: Uint8Array): Buffer {
  const { source, destination, ttl = 64 } = route;
  return buildEthernet({
    destination: route.destinationMac,
    source: route.sourceMac,
    type: TYPE_IPV4,
    vlan: route.vlan,
    payload: buildIpv4({ source, destination, protocol, payload, ttl }),
  });
}

export interface UdpPacket {
  readonly ethernet: Ethernet;
  readonly ipv4: Ipv4;
  readonly udp: Udp;
}

/**
 * The UDP datagram in a frame, all checksums verified; undefined when the frame holds something
 * else.
 */
export function parseUdpFrame(frame: Buffer): UdpPacket | undefined {
  const ethernet = parseEthernet(frame);
  if (ethernet.type !== TYPE_IPV4) return undefined;
  const ipv4 = parseIpv4(ethernet.payload);
  if (ipv4.protocol !== PROTOCOL_UDP) return undefined;
  return { ethernet, ipv4, udp: parseUdp(ipv4.payload, ipv4) };
}
