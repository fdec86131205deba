// ICMP echo requests and replies (RFC 792).

import { HarnessError } from "../errors";
import { internetChecksum } from "./checksum";

export const ICMP_ECHO_REPLY = 0;
export const ICMP_ECHO_REQUEST = 8;
const ICMP_HEADER_BYTES = 8;

export interface IcmpEcho {
  readonly type: number;
  readonly code: number;
  readonly id: number;
  readonly sequence: number;
  readonly payload: Uint8Array;
}

/** An ICMP message in the form of an echo, checksum included. */
export function buildIcmpEcho(fields: IcmpEcho): Buffer {
  const packet = Buffer.alloc(ICMP_HEADER_BYTES + fields.payload.length);
  packet.writeUInt8(fields.type, 0);
  packet.writeUInt8(fields.code, 1);
  packet.writeUInt16BE(fields.id, 4);
  packet.writeUInt16BE(fields.sequence, 6);
  packet.set(fields.payload, ICMP_HEADER_BYTES);
  packet.writeUInt16BE(internetChecksum(packet), 2);
  return packet;
}

/** Throws when the packet is cut or its checksum is wrong. */
export function parseIcmpEcho(packet: Buffer): IcmpEcho & { readonly payload: Buffer } {
  if (packet.length < ICMP_HEADER_BYTES) throw new HarnessError("ICMP: the header is cut");
  if (internetChecksum(packet) !== 0) throw new HarnessError("ICMP: the checksum is wrong");
  return {
    type: packet.readUInt8(0),
    code: packet.readUInt8(1),
    id: packet.readUInt16BE(4),
    sequence: packet.readUInt16BE(6),
    payload: packet.subarray(ICMP_HEADER_BYTES),
  };
}
