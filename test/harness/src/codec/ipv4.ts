// IPv4 headers (RFC 791). Fragments are represented, not reassembled.

import { HarnessError } from "../errors";
import { readIpv4, writeIpv4 } from "./address";
import { internetChecksum, onesSum } from "./checksum";

export const PROTOCOL_ICMP = 1;
export const PROTOCOL_UDP = 17;
export const IPV4_HEADER_BYTES = 20;

export interface Ipv4Fields {
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  readonly payload: Uint8Array;
  readonly ttl?: number;
  readonly id?: number;
  /** Don't fragment; set unless given. */
  readonly dontFragment?: boolean;
}

export interface Ipv4 extends Required<Ipv4Fields> {
  readonly headerBytes: number;
  readonly moreFragments: boolean;
  /** In bytes. */
  readonly fragmentOffset: number;
  readonly payload: Buffer;
}

/** A packet without options: header with its checksum, then the payload. */
export function buildIpv4(fields: Ipv4Fields): Buffer {
  const total = IPV4_HEADER_BYTES + fields.payload.length;
  const packet = Buffer.alloc(total);
  packet.writeUInt8(0x45, 0);
  packet.writeUInt16BE(total, 2);
  packet.writeUInt16BE(fields.id ?? 0, 4);
  packet.writeUInt16BE((fields.dontFragment ?? true) ? 0x4000 : 0, 6);
  packet.writeUInt8(fields.ttl ?? 64, 8);
  packet.writeUInt8(fields.protocol, 9);
  writeIpv4(packet, 12, fields.source);
  writeIpv4(packet, 16, fields.destination);
  packet.writeUInt16BE(internetChecksum(packet.subarray(0, IPV4_HEADER_BYTES)), 10);
  packet.set(fields.payload, IPV4_HEADER_BYTES);
  return packet;
}

/**
 * Views a packet; bytes after its total length (Ethernet padding) are left out. Throws on a bad
 * length or checksum.
 */
export function parseIpv4(packet: Buffer): Ipv4 {
  if (packet.length < IPV4_HEADER_BYTES) throw new HarnessError("IPv4: the header is cut");
  const headerBytes = (packet.readUInt8(0) & 15) * 4;
  const total = packet.readUInt16BE(2);
  if (packet.readUInt8(0) >> 4 !== 4) throw new HarnessError("IPv4: the version is not 4");
  if (headerBytes < IPV4_HEADER_BYTES || total < headerBytes || total > packet.length) {
    throw new HarnessError(
      `IPv4: header ${headerBytes}, total ${total}, but ${packet.length} bytes are there`,
    );
  }
  if (internetChecksum(packet.subarray(0, headerBytes)) !== 0) {
    throw new HarnessError("IPv4: the header checksum is wrong");
  }
  const fragment = packet.readUInt16BE(6);
  return {
    source: readIpv4(packet, 12),
    destination: readIpv4(packet, 16),
    protocol: packet.readUInt8(9),
    ttl: packet.readUInt8(8),
    id: packet.readUInt16BE(4),
    dontFragment: (fragment & 0x4000) !== 0,
    moreFragments: (fragment & 0x2000) !== 0,
    fragmentOffset: (fragment & 0x1fff) * 8,
    headerBytes,
    payload: packet.subarray(headerBytes, total),
  };
}

/** The sum over the pseudo header that UDP's checksum begins with. */
export function pseudoHeaderSum(
  source: string,
  destination: string,
  protocol: number,
  length: number,
): number {
  const pseudo = Buffer.alloc(12);
  writeIpv4(pseudo, 0, source);
  writeIpv4(pseudo, 4, destination);
  pseudo.writeUInt16BE(protocol, 8);
  pseudo.writeUInt16BE(length, 10);
  return onesSum(pseudo);
}
