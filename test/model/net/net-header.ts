// struct virtio_net_hdr in both directions. Used by the receiver, the sender and by tests that say
// what stands before a frame. virtio 1.4 §5.1.9
//
//   0 flags | 1 gso_type | 2 hdr_len 2 | 4 gso_size 2 | 6 csum_start 2 | 8 csum_offset 2
//   10 num_buffers 2 | 12 and with HASH_REPORT hash_value 4 | 16 hash_report 2 | 18 padding 2 | 20

export const HEADER_BYTES = 12;
export const HASH_HEADER_BYTES = 20;
export const NUM_BUFFERS = 10;

export const FLAG = { needsCsum: 1, dataValid: 2, rscInfo: 4, tunnelCsum: 8 } as const;
export const GSO = { none: 0, tcpv4: 1, udp: 3, tcpv6: 4, udpL4: 5, ecn: 0x80 } as const;
export const GSO_TUNNEL = 0x60;

export interface NetHeader {
  readonly flags: number;
  readonly gsoType: number;
  readonly hdrLen: number;
  readonly gsoSize: number;
  readonly csumStart: number;
  readonly csumOffset: number;
  readonly numBuffers: number;
}

export const PLAIN: NetHeader = {
  flags: 0,
  gsoType: GSO.none,
  hdrLen: 0,
  gsoSize: 0,
  csumStart: 0,
  csumOffset: 0,
  numBuffers: 0,
};

/** What the device says of a packet's hash: virtio 1.4 §5.1.9.4.4 */
export interface HashReport {
  readonly value: number;
  readonly report: number;
}

export function writeHash(content: Buffer, { value, report }: HashReport): void {
  content.writeUInt32LE(value, 12);
  content.writeUInt16LE(report, 16);
  content.writeUInt16LE(0, 18);
}

export function parseHeader(content: Buffer): NetHeader {
  return {
    flags: content.readUInt8(0),
    gsoType: content.readUInt8(1),
    hdrLen: content.readUInt16LE(2),
    gsoSize: content.readUInt16LE(4),
    csumStart: content.readUInt16LE(6),
    csumOffset: content.readUInt16LE(8),
    numBuffers: content.readUInt16LE(NUM_BUFFERS),
  };
}

export function writeHeader(content: Buffer, header: NetHeader): void {
  content.writeUInt8(header.flags, 0);
  content.writeUInt8(header.gsoType, 1);
  content.writeUInt16LE(header.hdrLen, 2);
  content.writeUInt16LE(header.gsoSize, 4);
  content.writeUInt16LE(header.csumStart, 6);
  content.writeUInt16LE(header.csumOffset, 8);
  content.writeUInt16LE(header.numBuffers, NUM_BUFFERS);
}
