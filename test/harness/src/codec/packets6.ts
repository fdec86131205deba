// Whole frames in one call: UDP, ICMPv6 and neighbour discovery in IPv6 in Ethernet, and a parser
// that goes as deep as it can. Used by tests and by the model's peer.

import { HarnessError } from "../errors";
import { groupMac } from "./address6";
import { internetChecksum } from "./checksum";
import { buildEthernet, type Ethernet, parseEthernet, TYPE_IPV6 } from "./ethernet";
import { buildEchoBody, buildIcmpv6, type Icmpv6, type Icmpv6Echo, parseIcmpv6 } from "./icmpv6";
import { PROTOCOL_UDP } from "./ipv4";
import {
  buildIpv6,
  type ExtensionHeader,
  type Ipv6,
  PROTOCOL_ICMPV6,
  parseIpv6,
  pseudoHeaderSum6,
} from "./ipv6";
import { ND_HOP_LIMIT } from "./nd";
import { UDP_HEADER_BYTES, type UdpAddresses, type UdpFields } from "./udp";

export interface Route6 {
  readonly sourceMac: string;
  /** That of the destination's group unless given. */
  readonly destinationMac?: string;
  readonly source: string;
  readonly destination: string;
  readonly hopLimit?: number;
  readonly extensions?: readonly ExtensionHeader[];
}

/** A whole frame, not padded. */
export function ipv6Frame(route: Route6, protocol: number, payload: Uint8Array): Buffer {
  const { source, destination, hopLimit = 64, extensions = [] } = route;
  return buildEthernet({
    destination: route.destinationMac ?? groupMac(destination),
    source: route.sourceMac,
    type: TYPE_IPV6,
    payload: buildIpv6({ source, destination, protocol, payload, hopLimit, extensions }),
  });
}

/** A datagram with its checksum. */
export function buildUdp6(fields: UdpFields, addresses: UdpAddresses): Buffer {
  const datagram = Buffer.alloc(UDP_HEADER_BYTES + fields.payload.length);
  datagram.writeUInt16BE(fields.sourcePort, 0);
  datagram.writeUInt16BE(fields.destinationPort, 2);
  datagram.writeUInt16BE(datagram.length, 4);
  datagram.set(fields.payload, UDP_HEADER_BYTES);
  datagram.writeUInt16BE(checksum(datagram, addresses) || 0xffff, 6);
  return datagram;
}

function checksum(datagram: Buffer, { source, destination }: UdpAddresses): number {
  const start = pseudoHeaderSum6(source, destination, PROTOCOL_UDP, datagram.length);
  return internetChecksum(datagram, start);
}

/** Throws on a bad length, and on a checksum that is wrong or missing. */
export function parseUdp6(datagram: Buffer, addresses: UdpAddresses): Udp6 {
  const length = datagram.length < UDP_HEADER_BYTES ? 0 : datagram.readUInt16BE(4);
  if (length < UDP_HEADER_BYTES || length > datagram.length) {
    throw new HarnessError(`UDP: length ${length}, but ${datagram.length} bytes are there`);
  }
  const whole = datagram.subarray(0, length);
  if (whole.readUInt16BE(6) === 0) throw new HarnessError("UDP over IPv6 without a checksum");
  if (checksum(whole, addresses) !== 0) throw new HarnessError("UDP: the checksum is wrong");
  return {
    sourcePort: whole.readUInt16BE(0),
    destinationPort: whole.readUInt16BE(2),
    payload: whole.subarray(UDP_HEADER_BYTES),
  };
}

export interface Udp6 extends UdpFields {
  readonly payload: Buffer;
}

export function udp6Frame(route: Route6, fields: UdpFields): Buffer {
  return ipv6Frame(route, PROTOCOL_UDP, buildUdp6(fields, route));
}

export function icmpv6Frame(route: Route6, message: Icmpv6): Buffer {
  return ipv6Frame(route, PROTOCOL_ICMPV6, buildIcmpv6(message, route));
}

/** An echo request or reply. */
export function echo6Frame(route: Route6, type: number, echo: Icmpv6Echo): Buffer {
  return icmpv6Frame(route, { type, code: 0, body: buildEchoBody(echo) });
}

/** Neighbour discovery, with the hop limit that it must have unless the route has one. */
export function ndFrame(route: Route6, type: number, body: Uint8Array): Buffer {
  return icmpv6Frame({ hopLimit: ND_HOP_LIMIT, ...route }, { type, code: 0, body });
}

/** What is in a frame, as deep as it goes; all checksums verified. */
export interface Frame6 {
  readonly ethernet: Ethernet;
  readonly ipv6: Ipv6;
  readonly icmpv6?: Icmpv6 & { readonly body: Buffer };
  readonly udp?: Udp6;
}

/** Undefined when the frame is not IPv6. */
export function parseFrame6(frame: Buffer): Frame6 | undefined {
  const ethernet = parseEthernet(frame);
  if (ethernet.type !== TYPE_IPV6) return undefined;
  const ipv6 = parseIpv6(ethernet.payload);
  if (ipv6.protocol === PROTOCOL_ICMPV6) {
    return { ethernet, ipv6, icmpv6: parseIcmpv6(ipv6.payload, ipv6) };
  }
  if (ipv6.protocol !== PROTOCOL_UDP) return { ethernet, ipv6 };
  return { ethernet, ipv6, udp: parseUdp6(ipv6.payload, ipv6) };
}
