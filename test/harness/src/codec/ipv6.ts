// IPv6 headers (RFC 8200) and extension headers in front of the transport. Fragments are
// represented, not reassembled.

import { HarnessError } from "../errors";
import { readIpv6, writeIpv6 } from "./address6";
import { onesSum } from "./checksum";

export const PROTOCOL_HOP_BY_HOP = 0;
export const PROTOCOL_ROUTING = 43;
export const PROTOCOL_FRAGMENT = 44;
export const PROTOCOL_ICMPV6 = 58;
export const PROTOCOL_NONE = 59;
export const PROTOCOL_DESTINATION_OPTIONS = 60;
export const IPV6_HEADER_BYTES = 40;

export interface ExtensionHeader {
  /** Which header it is. */
  readonly protocol: number;
  /** All of it but its first byte, the next header: 8 n - 1 bytes. */
  readonly rest: Uint8Array;
}

export interface Ipv6Fields {
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  readonly payload: Uint8Array;
  readonly hopLimit?: number;
  readonly extensions?: readonly ExtensionHeader[];
}

export interface Ipv6 extends Required<Ipv6Fields> {
  readonly payload: Buffer;
}

/** A packet: header, extension headers, payload. */
export function buildIpv6(fields: Ipv6Fields): Buffer {
  const { extensions = [], payload, protocol } = fields;
  const chain = extensions.map(({ rest }, i) => {
    return Buffer.from([extensions[i + 1]?.protocol ?? protocol, ...rest]);
  });
  const content = Buffer.concat([...chain, payload]);
  const header = Buffer.alloc(IPV6_HEADER_BYTES);
  header.writeUInt8(0x60, 0);
  header.writeUInt16BE(content.length, 4);
  header.writeUInt8(extensions[0]?.protocol ?? protocol, 6);
  header.writeUInt8(fields.hopLimit ?? 64, 7);
  writeIpv6(header, 8, fields.source);
  writeIpv6(header, 24, fields.destination);
  return Buffer.concat([header, content]);
}

/** Options that fill an extension header of `bytes` bytes, a multiple of 8. */
export function paddingOptions(protocol: number, bytes = 8): ExtensionHeader {
  const rest = Buffer.alloc(bytes - 1);
  rest.writeUInt8(bytes / 8 - 1, 0);
  rest.writeUInt8(1, 1);
  rest.writeUInt8(bytes - 4, 2);
  return { protocol, rest };
}

/**
 * Views a packet; bytes after its length (Ethernet padding) are left out. Throws on a bad length.
 */
export function parseIpv6(packet: Buffer): Ipv6 {
  if (packet.length < IPV6_HEADER_BYTES) throw new HarnessError("IPv6: the header is cut");
  if (packet.readUInt8(0) >> 4 !== 6) throw new HarnessError("IPv6: the version is not 6");
  const end = IPV6_HEADER_BYTES + packet.readUInt16BE(4);
  if (end > packet.length) {
    throw new HarnessError(`IPv6: ${end} bytes announced, but ${packet.length} are there`);
  }
  let protocol = packet.readUInt8(6);
  let at = IPV6_HEADER_BYTES;
  const extensions: ExtensionHeader[] = [];
  while (isExtension(protocol)) {
    if (at + 8 > end) throw new HarnessError("IPv6: an extension header is cut");
    const bytes = protocol === PROTOCOL_FRAGMENT ? 8 : 8 * (packet.readUInt8(at + 1) + 1);
    if (at + bytes > end) throw new HarnessError("IPv6: an extension header is cut");
    extensions.push({ protocol, rest: packet.subarray(at + 1, at + bytes) });
    protocol = packet.readUInt8(at);
    at += bytes;
  }
  return {
    source: readIpv6(packet, 8),
    destination: readIpv6(packet, 24),
    protocol,
    hopLimit: packet.readUInt8(7),
    extensions,
    payload: packet.subarray(at, end),
  };
}

function isExtension(protocol: number): boolean {
  return [
    PROTOCOL_HOP_BY_HOP,
    PROTOCOL_ROUTING,
    PROTOCOL_FRAGMENT,
    PROTOCOL_DESTINATION_OPTIONS,
  ].includes(protocol);
}

/** The sum over the pseudo header that checksums above IPv6 begin with. RFC 8200 8.1 */
export function pseudoHeaderSum6(
  source: string,
  destination: string,
  protocol: number,
  length: number,
): number {
  const pseudo = Buffer.alloc(40);
  writeIpv6(pseudo, 0, source);
  writeIpv6(pseudo, 16, destination);
  pseudo.writeUInt32BE(length, 32);
  pseudo.writeUInt8(protocol, 39);
  return onesSum(pseudo);
}
