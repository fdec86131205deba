// The vhost-user protocol as QEMU speaks it, as far as a network back end has part in it: messages
// and their payloads. Pure; used by vhost-user-device-session.ts.
//
//   message   request 4 | flags 4 | size 4 | payload           all little-endian
//   vring     index 4 | num 4
//   addresses index 4 | flags 4 | desc 8 | used 8 | avail 8 | log 8     the front end's own addresses
//   memory    count 4 | - 4 | { guest address 8 | bytes 8 | front end's address 8 | offset 8 } ...

import { HarnessError } from "../errors";

export const HEADER_BYTES = 12;
const VERSION = 1;
const FLAG_REPLY = 4;
const FLAG_NEED_REPLY = 8;
/** Eight regions, the longest message there is. */
export const PAYLOAD_BYTES_MAX = 8 + 8 * 32;
const REGION_BYTES = 32;

export const REQUEST = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
} as const;

export const PROTOCOL_FEATURE = { MQ: 0, REPLY_ACK: 3 } as const;

/** Bits of SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR beside the queue's index. */
export const VRING_INDEX_MASK = 0xffn;
export const VRING_NO_FD = 0x100n;

export interface Header {
  readonly request: number;
  readonly needsReply: boolean;
  readonly size: number;
}

export interface VringState {
  readonly index: number;
  readonly num: number;
}

export interface VringAddresses {
  readonly index: number;
  readonly desc: bigint;
  readonly used: bigint;
  readonly avail: bigint;
}

export interface RegionTable {
  /** Guest-physical. */
  readonly guest: number;
  readonly bytes: number;
  /** In the front end's own address space, which SET_VRING_ADDR speaks of. */
  readonly user: bigint;
  /** Where it begins in the file whose descriptor comes with it. */
  readonly offset: number;
}

/** The name of a request, for messages. */
export function requestName(request: number): string {
  const found = Object.entries(REQUEST).find(([, number]) => number === request);
  return found?.[0] ?? `request ${request}`;
}

export function parseHeader(data: Buffer): Header {
  const [request, flags, size] = [data.readUInt32LE(0), data.readUInt32LE(4), data.readUInt32LE(8)];
  if ((flags & 3) !== VERSION || (flags & FLAG_REPLY) !== 0) {
    throw new HarnessError(`vhost-user: ${requestName(request)} with flags ${flags}`);
  }
  if (size > PAYLOAD_BYTES_MAX) {
    throw new HarnessError(`vhost-user: ${requestName(request)} of ${size} bytes`);
  }
  return { request, needsReply: (flags & FLAG_NEED_REPLY) !== 0, size };
}

function expectBytes(payload: Buffer, bytes: number, what: string): void {
  if (payload.length >= bytes) return;
  throw new HarnessError(`vhost-user: ${what} of ${payload.length} bytes, not ${bytes}`);
}

export function parseNumber(payload: Buffer): bigint {
  expectBytes(payload, 8, "a number");
  return payload.readBigUInt64LE();
}

export function parseVringState(payload: Buffer): VringState {
  expectBytes(payload, 8, "a vring state");
  return { index: payload.readUInt32LE(0), num: payload.readUInt32LE(4) };
}

export function parseVringAddresses(payload: Buffer): VringAddresses {
  expectBytes(payload, 40, "vring addresses");
  return {
    index: payload.readUInt32LE(0),
    desc: payload.readBigUInt64LE(8),
    used: payload.readBigUInt64LE(16),
    avail: payload.readBigUInt64LE(24),
  };
}

export function parseMemoryTable(payload: Buffer): RegionTable[] {
  expectBytes(payload, 8, "a memory table");
  const count = payload.readUInt32LE(0);
  expectBytes(payload, 8 + REGION_BYTES * count, `a memory table of ${count} regions`);
  return Array.from({ length: count }, (_, i) => {
    const at = 8 + REGION_BYTES * i;
    return {
      guest: Number(payload.readBigUInt64LE(at)),
      bytes: Number(payload.readBigUInt64LE(at + 8)),
      user: payload.readBigUInt64LE(at + 16),
      offset: Number(payload.readBigUInt64LE(at + 24)),
    };
  });
}

function reply(request: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(request, 0);
  header.writeUInt32LE(VERSION | FLAG_REPLY, 4);
  header.writeUInt32LE(payload.length, 8);
  return Buffer.concat([header, payload]);
}

export function numberReply(request: number, value: bigint): Buffer {
  const payload = Buffer.alloc(8);
  payload.writeBigUInt64LE(value);
  return reply(request, payload);
}

export function vringReply(request: number, { index, num }: VringState): Buffer {
  const payload = Buffer.alloc(8);
  payload.writeUInt32LE(index, 0);
  payload.writeUInt32LE(num >>> 0, 4);
  return reply(request, payload);
}
