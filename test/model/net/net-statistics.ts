// Statistics that the device gives on its control queue: which there are, and their values. Called by
// control-commands.ts. virtio 1.4 §5.1.9.5.11
//
//   request  vq_index 2 | reserved 6 | types_bitmap 8
//   reply    type 1 | reserved 1 | vq_index 2 | reserved 2 | size 2 | counters, 8 each

import { DriverError } from "../errors";
import type { Answer } from "./control-commands";
import type { Live } from "./live";
import type { NetDevice } from "./net-device";

const REQUEST_BYTES = 16;
const REPLY_HEADER_BYTES = 8;
const RX_BASIC = 1n << 0n;
const TX_BASIC = 1n << 16n;
const CVQ = 1n << 32n;
const REPLY_RX_BASIC = 0;
const REPLY_TX_BASIC = 16;
const REPLY_CVQ = 32;

/** What this device counts. */
export const SUPPORTED = RX_BASIC | TX_BASIC | CVQ;

export function queryStatistics(): Answer {
  const data = Buffer.alloc(8);
  data.writeBigUInt64LE(SUPPORTED);
  return { ack: 0, data };
}

export function readStatistics(device: NetDevice, requests: Buffer): Answer {
  if (requests.length % REQUEST_BYTES !== 0) {
    throw new DriverError(`§5.1.9.5.11: STATS_GET with ${requests.length} bytes of requests`);
  }
  const replies: Buffer[] = [];
  for (let at = 0; at < requests.length; at += REQUEST_BYTES) {
    const index = requests.readUInt16LE(at);
    replies.push(replyTo(device, index, requests.readBigUInt64LE(at + 8)));
  }
  return { ack: 0, data: Buffer.concat(replies) };
}

function replyTo(device: NetDevice, index: number, types: bigint): Buffer {
  const isControl = index === device.controlIndex;
  const fits = isControl ? CVQ : index % 2 === 0 ? RX_BASIC : TX_BASIC;
  if ((types & ~SUPPORTED) !== 0n || (types & ~fits) !== 0n) {
    throw new DriverError(`§5.1.9.5.11: statistics 0x${types.toString(16)} of queue ${index}`);
  }
  if (types === 0n) return Buffer.of();
  if (isControl) return reply(REPLY_CVQ, index, [device.state.commands, device.state.done]);
  const live = device.liveAt(index);
  const type = index % 2 === 0 ? REPLY_RX_BASIC : REPLY_TX_BASIC;
  return reply(type, index, live === undefined ? [0, 0, 0, 0, 0, 0] : basic(live));
}

/** notifications, packets, bytes, interrupts, drops, overruns or malformed. */
function basic({ queue, packets, bytes, drops }: Live): number[] {
  return [queue.kicks, packets, bytes, queue.interrupts, drops, 0];
}

function reply(type: number, index: number, counters: readonly number[]): Buffer {
  const bytes = REPLY_HEADER_BYTES + 8 * counters.length;
  const data = Buffer.alloc(bytes);
  data.writeUInt8(type, 0);
  data.writeUInt16LE(index, 2);
  data.writeUInt16LE(bytes, 6);
  counters.forEach((value, i) => {
    data.writeBigUInt64LE(BigInt(value), REPLY_HEADER_BYTES + 8 * i);
  });
  return data;
}
