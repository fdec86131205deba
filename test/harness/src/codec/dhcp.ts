// DHCP messages (RFC 2131) as UDP payloads: the fixed part and options as a map from code to bytes.
//
//   0    1       2      3      4     8      10      12   16   20   24   28
//   | op | htype | hlen | hops | xid | secs | flags | ci | yi | si | gi | chaddr …
//   44      108    236      240
//   | sname | file | cookie | options

import { HarnessError } from "../errors";
import { readIpv4, readMac, writeIpv4, writeMac } from "./address";

export const DHCP_SERVER_PORT = 67;
export const DHCP_CLIENT_PORT = 68;
export const BOOT_REQUEST = 1;
export const BOOT_REPLY = 2;

/** Values of option 53. */
export const DHCP_MESSAGE = {
  discover: 1,
  offer: 2,
  request: 3,
  decline: 4,
  ack: 5,
  nak: 6,
} as const;

/** Codes of the options used here. */
export const DHCP_OPTION = {
  subnetMask: 1,
  router: 3,
  requestedAddress: 50,
  leaseTime: 51,
  messageType: 53,
  serverId: 54,
} as const;

const FIXED_BYTES = 240;
const COOKIE = 0x63825363;
const OPTION_PAD = 0;
const OPTION_END = 255;

export interface Dhcp {
  readonly operation: number;
  readonly transaction: number;
  /** The client cannot receive unicast before it has an address. */
  readonly broadcast: boolean;
  readonly clientIp: string;
  readonly yourIp: string;
  readonly serverIp: string;
  readonly clientMac: string;
  readonly options: ReadonlyMap<number, Uint8Array>;
}

/** A DHCP message, the payload of a UDP datagram. */
export function buildDhcp(fields: Dhcp): Buffer {
  const fixed = Buffer.alloc(FIXED_BYTES);
  fixed.writeUInt8(fields.operation, 0);
  fixed.writeUInt8(1, 1);
  fixed.writeUInt8(6, 2);
  fixed.writeUInt32BE(fields.transaction, 4);
  fixed.writeUInt16BE(fields.broadcast ? 0x8000 : 0, 10);
  writeIpv4(fixed, 12, fields.clientIp);
  writeIpv4(fixed, 16, fields.yourIp);
  writeIpv4(fixed, 20, fields.serverIp);
  writeMac(fixed, 28, fields.clientMac);
  fixed.writeUInt32BE(COOKIE, 236);
  const options = [...fields.options].flatMap(([code, value]) => [code, value.length, ...value]);
  return Buffer.concat([fixed, Buffer.from([...options, OPTION_END])]);
}

/** Throws on a cut message, a wrong cookie, and an option that runs over the end. */
export function parseDhcp(message: Buffer): Dhcp {
  if (message.length < FIXED_BYTES) throw new HarnessError("DHCP: the fixed part is cut");
  if (message.readUInt32BE(236) !== COOKIE) throw new HarnessError("DHCP: wrong magic cookie");
  return {
    operation: message.readUInt8(0),
    transaction: message.readUInt32BE(4),
    broadcast: (message.readUInt16BE(10) & 0x8000) !== 0,
    clientIp: readIpv4(message, 12),
    yourIp: readIpv4(message, 16),
    serverIp: readIpv4(message, 20),
    clientMac: readMac(message, 28),
    options: parseOptions(message.subarray(FIXED_BYTES)),
  };
}

function parseOptions(bytes: Buffer): Map<number, Uint8Array> {
  const options = new Map<number, Uint8Array>();
  for (let at = 0; at < bytes.length; ) {
    const code = bytes.readUInt8(at);
    if (code === OPTION_END) return options;
    if (code === OPTION_PAD) {
      at++;
      continue;
    }
    const length = at + 1 < bytes.length ? bytes.readUInt8(at + 1) : Infinity;
    if (at + 2 + length > bytes.length) throw new HarnessError(`DHCP: option ${code} is cut`);
    options.set(code, bytes.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return options;
}

/** Four bytes of an address, for an option's value. */
export function ipv4Bytes(address: string): Buffer {
  const bytes = Buffer.alloc(4);
  writeIpv4(bytes, 0, address);
  return bytes;
}
