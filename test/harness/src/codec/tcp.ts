// TCP segments (RFC 9293), over IPv4 and IPv6: the addresses say which. No connection is kept: one
// segment in, one out.
//
//   0      2      4          8          12        13      14       16         18       20
//   | from | to   | sequence | acknowl. | 4 n << 4 | flags | window | checksum | urgent | options, data

import { HarnessError } from "../errors";
import { internetChecksum } from "./checksum";
import { buildEthernet, type Ethernet, parseEthernet, TYPE_IPV4, TYPE_IPV6 } from "./ethernet";
import { buildIpv4, parseIpv4, pseudoHeaderSum } from "./ipv4";
import { parseIpv6, pseudoHeaderSum6 } from "./ipv6";
import type { Route } from "./packets";
import { ipv6Frame, type Route6 } from "./packets6";
import type { UdpAddresses } from "./udp";

export const PROTOCOL_TCP = 6;
export const TCP_HEADER_BYTES = 20;
export const TCP_OPTIONS_MOST_BYTES = 40;

export const TCP_FLAG = {
  fin: 0x01,
  syn: 0x02,
  rst: 0x04,
  psh: 0x08,
  ack: 0x10,
  urg: 0x20,
  ece: 0x40,
  cwr: 0x80,
} as const;

export interface TcpFields {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly acknowledgement: number;
  /** Of TCP_FLAG, or-ed. */
  readonly flags: number;
  readonly window: number;
  readonly urgent: number;
  /** At most 40 bytes, a multiple of 4. */
  readonly options: Uint8Array;
  readonly payload: Uint8Array;
}

export interface Tcp extends TcpFields {
  readonly options: Buffer;
  readonly payload: Buffer;
}

function checksum(segment: Buffer, { source, destination }: UdpAddresses): number {
  const pseudo = source.includes(":") ? pseudoHeaderSum6 : pseudoHeaderSum;
  return internetChecksum(segment, pseudo(source, destination, PROTOCOL_TCP, segment.length));
}

/** A segment with its checksum, for a packet between `addresses`. Throws on wrong options. */
export function buildTcp(fields: TcpFields, addresses: UdpAddresses): Buffer {
  const { options, payload } = fields;
  if (options.length % 4 !== 0 || options.length > TCP_OPTIONS_MOST_BYTES) {
    throw new HarnessError(`TCP: ${options.length} bytes of options, not 0, 4, ... 40`);
  }
  const header = Buffer.alloc(TCP_HEADER_BYTES);
  header.writeUInt16BE(fields.sourcePort, 0);
  header.writeUInt16BE(fields.destinationPort, 2);
  header.writeUInt32BE(fields.sequence, 4);
  header.writeUInt32BE(fields.acknowledgement, 8);
  header.writeUInt8(((TCP_HEADER_BYTES + options.length) / 4) << 4, 12);
  header.writeUInt8(fields.flags, 13);
  header.writeUInt16BE(fields.window, 14);
  header.writeUInt16BE(fields.urgent, 18);
  const segment = Buffer.concat([header, options, payload]);
  segment.writeUInt16BE(checksum(segment, addresses), 16);
  return segment;
}

/** Throws when the segment is cut, its header's length is none, or its checksum is wrong. */
export function parseTcp(segment: Buffer, addresses: UdpAddresses): Tcp {
  if (segment.length < TCP_HEADER_BYTES) throw new HarnessError("TCP: the header is cut");
  const headerBytes = (segment.readUInt8(12) >> 4) * 4;
  if (headerBytes < TCP_HEADER_BYTES || headerBytes > segment.length) {
    throw new HarnessError(`TCP: header ${headerBytes}, but ${segment.length} bytes are there`);
  }
  if (checksum(segment, addresses) !== 0) throw new HarnessError("TCP: the checksum is wrong");
  return {
    sourcePort: segment.readUInt16BE(0),
    destinationPort: segment.readUInt16BE(2),
    sequence: segment.readUInt32BE(4),
    acknowledgement: segment.readUInt32BE(8),
    flags: segment.readUInt8(13),
    window: segment.readUInt16BE(14),
    urgent: segment.readUInt16BE(18),
    options: segment.subarray(TCP_HEADER_BYTES, headerBytes),
    payload: segment.subarray(headerBytes),
  };
}

/** A whole frame over IPv4, not padded. */
export function tcpFrame(route: Route, fields: TcpFields): Buffer {
  const { source, destination, ttl = 64 } = route;
  const payload = buildTcp(fields, route);
  return buildEthernet({
    destination: route.destinationMac,
    source: route.sourceMac,
    type: TYPE_IPV4,
    vlan: route.vlan,
    payload: buildIpv4({ source, destination, protocol: PROTOCOL_TCP, payload, ttl }),
  });
}

/** A whole frame over IPv6, not padded. */
export function tcp6Frame(route: Route6, fields: TcpFields): Buffer {
  return ipv6Frame(route, PROTOCOL_TCP, buildTcp(fields, route));
}

/**
 * The TCP segment in a frame, of either version of IP, all checksums verified; undefined when the
 * frame holds something else.
 */
export function parseTcpFrame(frame: Buffer): { ethernet: Ethernet; tcp: Tcp } | undefined {
  const ethernet = parseEthernet(frame);
  if (ethernet.type !== TYPE_IPV4 && ethernet.type !== TYPE_IPV6) return undefined;
  const packet =
    ethernet.type === TYPE_IPV4 ? parseIpv4(ethernet.payload) : parseIpv6(ethernet.payload);
  if (packet.protocol !== PROTOCOL_TCP) return undefined;
  return { ethernet, tcp: parseTcp(packet.payload, packet) };
}
