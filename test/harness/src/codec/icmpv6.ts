// ICMPv6 (RFC 4443): any message with its checksum, and echo.

import { HarnessError } from "../errors";
import { internetChecksum } from "./checksum";
import { PROTOCOL_ICMPV6, pseudoHeaderSum6 } from "./ipv6";
import type { UdpAddresses } from "./udp";

export const ICMPV6_ECHO_REQUEST = 128;
export const ICMPV6_ECHO_REPLY = 129;
const HEADER_BYTES = 4;

export interface Icmpv6 {
  readonly type: number;
  readonly code: number;
  /** All that follows the checksum. */
  readonly body: Uint8Array;
}

export interface Icmpv6Echo {
  readonly id: number;
  readonly sequence: number;
  readonly payload: Uint8Array;
}

/** A message, checksum included, for a packet between `addresses`. */
export function buildIcmpv6({ type, code, body }: Icmpv6, addresses: UdpAddresses): Buffer {
  const message = Buffer.concat([Buffer.from([type, code, 0, 0]), body]);
  message.writeUInt16BE(checksum(message, addresses), 2);
  return message;
}

/** Throws when the message is cut or its checksum is wrong. */
export function parseIcmpv6(message: Buffer, addresses: UdpAddresses): Icmpv6 & { body: Buffer } {
  if (message.length < HEADER_BYTES) throw new HarnessError("ICMPv6: the header is cut");
  if (checksum(message, addresses) !== 0) throw new HarnessError("ICMPv6: the checksum is wrong");
  const body = message.subarray(HEADER_BYTES);
  return { type: message.readUInt8(0), code: message.readUInt8(1), body };
}

function checksum(message: Buffer, { source, destination }: UdpAddresses): number {
  const start = pseudoHeaderSum6(source, destination, PROTOCOL_ICMPV6, message.length);
  return internetChecksum(message, start);
}

/** The body of an echo request or reply. */
export function buildEchoBody({ id, sequence, payload }: Icmpv6Echo): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16BE(id, 0);
  head.writeUInt16BE(sequence, 2);
  return Buffer.concat([head, payload]);
}

export function parseEchoBody(body: Buffer): Icmpv6Echo & { payload: Buffer } {
  if (body.length < 4) throw new HarnessError("ICMPv6: the echo is cut");
  const [id, sequence] = [body.readUInt16BE(0), body.readUInt16BE(2)];
  return { id, sequence, payload: body.subarray(4) };
}
