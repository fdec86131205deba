// Frames and the net header in front of them, for a vhost-user device. virtio 1.4 §5.1.9
//
//   flags 1 | gso_type 1 | hdr_len 2 | gso_size 2 | csum_start 2 | csum_offset 2 | num_buffers 2

export const NET_HEADER_BYTES = 12;

export const HEADER_F_NEEDS_CSUM = 1;
export const HEADER_F_DATA_VALID = 2;
export const GSO = { NONE: 0, TCPV4: 1, UDP: 3, TCPV6: 4, UDP_L4: 5, ECN: 0x80 } as const;

/** Fields of the header; those left out are 0, and num_buffers is what it has to be. */
export interface NetHeaderFields {
  readonly flags?: number;
  readonly gsoType?: number;
  readonly hdrLen?: number;
  readonly gsoSize?: number;
  readonly csumStart?: number;
  readonly csumOffset?: number;
  /** A lie, if given. */
  readonly numBuffers?: number;
}

export function buildNetHeader(fields: NetHeaderFields, buffers: number): Buffer {
  const header = Buffer.alloc(NET_HEADER_BYTES);
  header.writeUInt8(fields.flags ?? 0, 0);
  header.writeUInt8(fields.gsoType ?? 0, 1);
  header.writeUInt16LE(fields.hdrLen ?? 0, 2);
  header.writeUInt16LE(fields.gsoSize ?? 0, 4);
  header.writeUInt16LE(fields.csumStart ?? 0, 6);
  header.writeUInt16LE(fields.csumOffset ?? 0, 8);
  header.writeUInt16LE(fields.numBuffers ?? buffers, 10);
  return header;
}

/** Feature bits that a back end has a say in, by the names of QEMU's device properties. */
export const DEVICE_FEATURES = {
  csum: 0,
  guest_csum: 1,
  host_mtu: 3,
  guest_tso4: 7,
  guest_tso6: 8,
  guest_ecn: 9,
  mrg_rxbuf: 15,
  guest_announce: 21,
  mq: 22,
  indirect_desc: 28,
  event_idx: 29,
  packed: 34,
  in_order: 35,
} as const;

export type DeviceFeature = keyof typeof DEVICE_FEATURES;

export const F_PROTOCOL_FEATURES = 30;
const F_VERSION_1 = 32;

export const hasFeature = (features: bigint, bit: number) =>
  ((features >> BigInt(bit)) & 1n) === 1n;

/** The 64 bits for these features, with those that there is no doing without. */
export function featureBits(names: readonly DeviceFeature[]): bigint {
  const bits = [F_VERSION_1, F_PROTOCOL_FEATURES, ...names.map((name) => DEVICE_FEATURES[name])];
  return bits.reduce((sum, bit) => sum | (1n << BigInt(bit)), 0n);
}
