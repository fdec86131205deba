/**
 * struct virtio_net_hdr: what the driver believes of it in a received packet, and what it writes in
 * front of one to send. Used by rx-queue.ts and tx-queue.ts; the network stack asks the functions
 * at the end. virtio 1.4 §5.1.9
 *
 *   0 flags | 1 gso_type | 2 hdr_len 2 | 4 gso_size 2 | 6 csum_start 2 | 8 csum_offset 2 |
 *   10 num_buffers 2 | 12 and, with HASH_REPORT, what hash-report.ts knows of | 20
 *
 * Packet.header holds the first eight bytes, cleaned of what was not negotiated or does not hold
 * together, and Packet.csumOffset the field behind them.
 */
import * as features from "../virtio/features";
import { ETHERNET_BYTES, Packet } from "./packet";

export const NEEDS_CSUM: u64 = 1;
export const DATA_VALID: u64 = 2;
const RSC_INFO: u64 = 4;

export const GSO_NONE: u32 = 0;
export const GSO_TCPV4: u32 = 1;
export const GSO_TCPV6: u32 = 4;
export const GSO_UDP_L4: u32 = 5;
const GSO_ECN: u32 = 0x80;

/** The longest frame with segmentation: an Ethernet header and 65,535 bytes. */
export const GSO_FRAME_BYTES_MAX: u32 = 65549;

const UDP_BYTES: u32 = 8;
/** Where TCP has its checksum: only TCP has it there. */
const TCP_CSUM_OFFSET: u16 = 16;

/** Offload features of a device, as bits of what both sides agreed upon. */
@unmanaged
export class Offloads {
  /** GUEST_CSUM: received packets may have partial checksums. */
  guestCsum: bool = false;
  /** CSUM: packets to send may. */
  csum: bool = false;
  /** A bit for each gso_type that may be received, and that may be sent. */
  guestGso: u32 = 0;
  hostGso: u32 = 0;
  /** GUEST_ECN, HOST_ECN: those of TCP may have the ECN bit. */
  guestEcn: bool = false;
  hostEcn: bool = false;

  set(accepted: u64): void {
    this.guestCsum = features.has(accepted, features.GUEST_CSUM);
    this.csum = features.has(accepted, features.CSUM);
    this.guestGso = gsoTypes(
      features.has(accepted, features.GUEST_TSO4),
      features.has(accepted, features.GUEST_TSO6),
      features.has(accepted, features.GUEST_USO4) || features.has(accepted, features.GUEST_USO6),
    );
    this.hostGso = gsoTypes(
      features.has(accepted, features.HOST_TSO4),
      features.has(accepted, features.HOST_TSO6),
      features.has(accepted, features.HOST_USO),
    );
    this.guestEcn = features.has(accepted, features.GUEST_ECN);
    this.hostEcn = features.has(accepted, features.HOST_ECN);
  }

  /** Whether a packet with this gso_type, which is not GSO_NONE, may be received. */
  takes(gsoType: u32): bool {
    const gso = gsoType & ~GSO_ECN;
    if (gso > 31 || !(this.guestGso & (1 << gso))) return false;
    return !(gsoType & GSO_ECN) || (this.guestEcn && gso != GSO_UDP_L4);
  }
}

function gsoTypes(tcp4: bool, tcp6: bool, udp: bool): u32 {
  return (tcp4 ? 1 << GSO_TCPV4 : 0) | (tcp6 ? 1 << GSO_TCPV6 : 0) | (udp ? 1 << GSO_UDP_L4 : 0);
}

/** gso_type, with its ECN bit. */
function gsoTypeOf(header: u64): u32 {
  return <u32>(header >> 8) & 0xff;
}

function gsoOf(header: u64): u32 {
  return gsoTypeOf(header) & ~GSO_ECN;
}

/**
 * Takes over a received header: its first eight bytes and csum_offset, each read once. False if it
 * asks for something that was not negotiated or points outside the packet.
 */
export function accept(packet: Packet, offloads: Offloads, header: u64, csumOffset: u32): bool {
  packet.header = 0;
  packet.csumOffset = 0;
  // virtio 1.4 §5.1.9.4.2: without GUEST_CSUM the flags say nothing; unknown ones never do.
  const gsoType = gsoTypeOf(header);
  if (!offloads.guestCsum) return gsoType == GSO_NONE;
  if (gsoType != GSO_NONE && !offloads.takes(gsoType)) return false;
  // virtio 1.4 §5.1.9.4.2: csum_start and csum_offset count with NEEDS_CSUM and without RSC_INFO.
  const partial = (header & NEEDS_CSUM) != 0 && !(header & RSC_INFO);
  if (gsoType != GSO_NONE && !partial) return false;
  if (partial) {
    const start = <u32>(header >> 48);
    // hdr_len is not trusted; it is computed anew where the packet is sent again.
    if (start + csumOffset + 2 > packet.total) return false;
    packet.header = (header & 0xffff_ffff_0000_ff00) | NEEDS_CSUM;
    packet.csumOffset = <u16>csumOffset;
  } else {
    packet.header = header & DATA_VALID;
  }
  return true;
}

/**
 * Writes the header in front of a packet to send, where it is not there already: the cache line of
 * an unchanged header stays shared with the device's CPU. False if the device cannot do what the
 * packet needs. num_buffers is 0, and DATA_VALID is never set. virtio 1.4 §5.1.9.2.1
 */
export function write(packet: Packet, offloads: Offloads): bool {
  const buffer = packet.buffer;
  if (!(packet.header & NEEDS_CSUM)) {
    if ((load<u64>(buffer) | <u64>load<u32>(buffer, 8)) == 0) return true;
    clearHeader(buffer);
    return true;
  }
  return writeOffload(packet, offloads);
}

/** Makes it a header that asks for nothing. */
export function clearHeader(buffer: usize): void {
  store<u64>(buffer, 0);
  store<u32>(buffer, 0, 8);
}

function writeOffload(packet: Packet, offloads: Offloads): bool {
  if (!offloads.csum) return false;
  const header = packet.header;
  const gso = gsoOf(header);
  const ecn = (gsoTypeOf(header) & GSO_ECN) != 0;
  if (gso != GSO_NONE && !(offloads.hostGso & (1 << gso))) return false;
  if (ecn && !offloads.hostEcn) return false;
  // virtio 1.4 §5.1.9.2.1: exact with GUEST_HDRLEN, and so right without; also for what is not cut.
  const headers = headerBytes(packet, gso);
  store<u64>(packet.buffer, header | ((<u64>headers) << 16));
  store<u32>(packet.buffer, packet.csumOffset, 8);
  return true;
}

/** Bytes of all headers through the transport header: the checksum starts where that begins. */
function headerBytes(packet: Packet, gso: u32): u32 {
  const start = <u32>(packet.header >> 48);
  if (gso == GSO_UDP_L4) return start + UDP_BYTES;
  if (gso == GSO_NONE && packet.csumOffset != TCP_CSUM_OFFSET) {
    // Of UDP, or of something whose checksum is further back; never more than there is.
    return min(start + max<u32>(UDP_BYTES, packet.csumOffset + 2), packet.total);
  }
  if (start + 13 > packet.length) return start;
  return start + ((<u32>load<u8>(packet.data + start, 12) >> 4) << 2);
}

// ---- for the network stack ----------------------------------------------------------------------

/** Whether the packet stands for several, to be cut apart by whoever needs it cut. */
export function isSegmented(packet: Packet): bool {
  return gsoOf(packet.header) != GSO_NONE;
}

/** Whether the checksum at `start` + `offset` of the packet is yet to be completed. */
export function isPartial(packet: Packet, start: u32, offset: u32): bool {
  const partial = (packet.header & NEEDS_CSUM) != 0;
  return partial && <u32>(packet.header >> 48) == start && packet.csumOffset == offset;
}

/** Whether any checksum of the packet is yet to be completed, and where its range starts. */
export function needsChecksum(packet: Packet): bool {
  return (packet.header & NEEDS_CSUM) != 0;
}

export function csumStart(packet: Packet): u32 {
  return <u32>(packet.header >> 48);
}

/**
 * `bytes` bytes in front of the packet's transport header were taken out. A checksum that would
 * have begun among them is nobody's, and not asked for.
 */
export function dropFront(packet: Packet, bytes: u32): void {
  if (csumStart(packet) < bytes) packet.header = 0;
  else packet.header -= (<u64>bytes) << 48;
}

/** Whether the device has checked the packet's transport checksum. */
export function isChecked(packet: Packet): bool {
  return (packet.header & DATA_VALID) != 0;
}

/** Asks the device to complete a checksum and to cut, by the `gso` type, into `mss` bytes each. */
export function request(packet: Packet, start: u32, offset: u32, gso: u32, mss: u32): void {
  packet.header = NEEDS_CSUM | ((<u64>gso) << 8) | ((<u64>mss) << 32) | ((<u64>start) << 48);
  packet.csumOffset = <u16>offset;
}

/** The frame's length limit: an MTU of 1,500, say, does not bind one that is to be cut. */
export function frameLimit(packet: Packet, mtu: u32): u32 {
  return isSegmented(packet) ? GSO_FRAME_BYTES_MAX : mtu + ETHERNET_BYTES;
}
