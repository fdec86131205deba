// Ethernet II frames, with or without one 802.1Q tag, without FCS. Nothing is padded: the backends
// carry frames as they are.
//
//   0        6       12   14
//   | dst    | src   | type | payload            untagged
//   | dst    | src   | 8100 | tag | type | payload   tagged

import { HarnessError } from "../errors";
import { readMac, writeMac } from "./address";

export const ETHERNET_HEADER_BYTES = 14;
/** The shortest frame on a real wire, without FCS. */
export const MINIMUM_FRAME_BYTES = 60;
const TAG_BYTES = 4;

export const TYPE_IPV4 = 0x0800;
export const TYPE_ARP = 0x0806;
export const TYPE_IPV6 = 0x86dd;
export const TYPE_VLAN = 0x8100;
/** For local experiments (IEEE 802): frames that no host answers. */
export const TYPE_EXPERIMENT = 0x88b5;

export interface VlanTag {
  readonly priority: number;
  readonly dropEligible: boolean;
  readonly id: number;
}

export interface Ethernet {
  readonly destination: string;
  readonly source: string;
  readonly type: number;
  readonly vlan?: VlanTag;
  readonly payload: Buffer;
}

export interface EthernetFields {
  readonly destination: string;
  readonly source: string;
  readonly type: number;
  readonly vlan?: VlanTag | undefined;
  readonly payload: Uint8Array;
}

/** The bytes of a frame. */
export function buildEthernet(fields: EthernetFields): Buffer {
  const header = ETHERNET_HEADER_BYTES + (fields.vlan === undefined ? 0 : TAG_BYTES);
  const frame = Buffer.alloc(header + fields.payload.length);
  writeMac(frame, 0, fields.destination);
  writeMac(frame, 6, fields.source);
  if (fields.vlan !== undefined) {
    const { priority, dropEligible, id } = fields.vlan;
    frame.writeUInt16BE(TYPE_VLAN, 12);
    frame.writeUInt16BE((priority << 13) | (dropEligible ? 0x1000 : 0) | id, 14);
  }
  frame.writeUInt16BE(fields.type, header - 2);
  frame.set(fields.payload, header);
  return frame;
}

/** Views the parts of a frame. Throws when it is shorter than its header. */
export function parseEthernet(frame: Buffer): Ethernet {
  if (frame.length < ETHERNET_HEADER_BYTES) {
    throw new HarnessError(`Ethernet: frame of ${frame.length} bytes has no room for its header`);
  }
  const addresses = { destination: readMac(frame, 0), source: readMac(frame, 6) };
  const type = frame.readUInt16BE(12);
  if (type !== TYPE_VLAN) {
    return { ...addresses, type, payload: frame.subarray(ETHERNET_HEADER_BYTES) };
  }
  const header = ETHERNET_HEADER_BYTES + TAG_BYTES;
  if (frame.length < header) throw new HarnessError("Ethernet: the VLAN tag is cut");
  const tag = frame.readUInt16BE(14);
  const vlan = { priority: tag >> 13, dropEligible: (tag & 0x1000) !== 0, id: tag & 0xfff };
  return { ...addresses, type: frame.readUInt16BE(16), vlan, payload: frame.subarray(header) };
}

/** The frame with zero bytes up to the shortest length of a real wire (60). */
export function padded(frame: Buffer): Buffer {
  if (frame.length >= MINIMUM_FRAME_BYTES) return frame;
  return Buffer.concat([frame], MINIMUM_FRAME_BYTES);
}
