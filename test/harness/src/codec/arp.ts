// ARP for IPv4 over Ethernet (RFC 826).
//
//   0      2      4    5    6    8         14        18        24
//   | hw=1 | 0800 | 6  | 4  | op | src mac | src ip  | dst mac | dst ip |

import { HarnessError } from "../errors";
import { readIpv4, readMac, writeIpv4, writeMac } from "./address";
import { TYPE_IPV4 } from "./ethernet";

export const ARP_REQUEST = 1;
export const ARP_REPLY = 2;
const ARP_BYTES = 28;

export interface Arp {
  readonly operation: number;
  readonly senderMac: string;
  readonly senderIp: string;
  readonly targetMac: string;
  readonly targetIp: string;
}

/** An ARP message for IPv4 on Ethernet: 28 bytes, the payload of a frame. */
export function buildArp(fields: Arp): Buffer {
  const packet = Buffer.alloc(ARP_BYTES);
  packet.writeUInt16BE(1, 0);
  packet.writeUInt16BE(TYPE_IPV4, 2);
  packet.writeUInt8(6, 4);
  packet.writeUInt8(4, 5);
  packet.writeUInt16BE(fields.operation, 6);
  writeMac(packet, 8, fields.senderMac);
  writeIpv4(packet, 14, fields.senderIp);
  writeMac(packet, 18, fields.targetMac);
  writeIpv4(packet, 24, fields.targetIp);
  return packet;
}

/** Throws when the packet is cut or not about IPv4 over Ethernet. */
export function parseArp(packet: Buffer): Arp {
  if (packet.length < ARP_BYTES) throw new HarnessError(`ARP: ${packet.length} bytes, not 28`);
  if (packet.readUInt32BE(0) !== 0x0001_0800 || packet.readUInt16BE(4) !== 0x0604) {
    throw new HarnessError("ARP: not IPv4 over Ethernet");
  }
  return {
    operation: packet.readUInt16BE(6),
    senderMac: readMac(packet, 8),
    senderIp: readIpv4(packet, 14),
    targetMac: readMac(packet, 18),
    targetIp: readIpv4(packet, 24),
  };
}
