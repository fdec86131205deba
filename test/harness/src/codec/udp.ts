// UDP datagrams (RFC 768). The checksum covers the IPv4 addresses, so both functions need them.

import { HarnessError } from "../errors";
import { internetChecksum } from "./checksum";
import { PROTOCOL_UDP, pseudoHeaderSum } from "./ipv4";

export const UDP_HEADER_BYTES = 8;

export interface UdpFields {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly payload: Uint8Array;
}

export interface Udp extends UdpFields {
  readonly payload: Buffer;
  /** False when the sender left the checksum out, as IPv4 allows. */
  readonly hasChecksum: boolean;
}

export interface UdpAddresses {
  readonly source: string;
  readonly destination: string;
}

/** A datagram with its checksum, for a packet between `addresses`. */
export function buildUdp(fields: UdpFields, addresses: UdpAddresses): Buffer {
  const datagram = Buffer.alloc(UDP_HEADER_BYTES + fields.payload.length);
  datagram.writeUInt16BE(fields.sourcePort, 0);
  datagram.writeUInt16BE(fields.destinationPort, 2);
  datagram.writeUInt16BE(datagram.length, 4);
  datagram.set(fields.payload, UDP_HEADER_BYTES);
  // Zero means "no checksum", so a sum of zero is sent as its other representation.
  datagram.writeUInt16BE(checksum(datagram, addresses) || 0xffff, 6);
  return datagram;
}

/** Throws on a bad length or checksum. */
export function parseUdp(datagram: Buffer, addresses: UdpAddresses): Udp {
  if (datagram.length < UDP_HEADER_BYTES) throw new HarnessError("UDP: the header is cut");
  const length = datagram.readUInt16BE(4);
  if (length < UDP_HEADER_BYTES || length > datagram.length) {
    throw new HarnessError(`UDP: length ${length}, but ${datagram.length} bytes are there`);
  }
  const whole = datagram.subarray(0, length);
  const hasChecksum = datagram.readUInt16BE(6) !== 0;
  if (hasChecksum && checksum(whole, addresses) !== 0) {
    throw new HarnessError("UDP: the checksum is wrong");
  }
  return {
    sourcePort: datagram.readUInt16BE(0),
    destinationPort: datagram.readUInt16BE(2),
    payload: whole.subarray(UDP_HEADER_BYTES),
    hasChecksum,
  };
}

function checksum(datagram: Buffer, { source, destination }: UdpAddresses): number {
  const start = pseudoHeaderSum(source, destination, PROTOCOL_UDP, datagram.length);
  return internetChecksum(datagram, start);
}
