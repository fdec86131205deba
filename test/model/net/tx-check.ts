// Whether the driver may send what it sends: the header in front of a transmitted frame against the
// features agreed upon, and the frame against its header. Called by net-sender.ts for every frame.
// virtio 1.4 §5.1.9.2.1

import { internetChecksum, onesSum, TYPE_IPV6 } from "qemu-test-harness";
import { DriverError } from "../errors";
import type { FeatureName } from "../virtio/features";
import { FLAG, GSO, GSO_TUNNEL, type NetHeader } from "./net-header";

const ETHERNET_BYTES = 14;
/** The longest frame that is to be cut: Ethernet header and IPv4's longest datagram. */
const GSO_FRAME_BYTES_MAX = 65_549;
const TCP = 6;
const UDP = 17;
const ICMPV6 = 58;
const TCP_CWR = 0x80;
const IPV6_START = 54;
/** Where each protocol has its checksum. */
const CHECKSUM_OFFSETS: Readonly<Record<number, number>> = { [TCP]: 16, [UDP]: 6, [ICMPV6]: 2 };

/** The feature that allows each segmentation. */
const GSO_FEATURES: ReadonlyMap<number, FeatureName> = new Map([
  [GSO.tcpv4, "host_tso4"],
  [GSO.tcpv6, "host_tso6"],
  [GSO.udpL4, "host_uso"],
]);

export interface Agreed {
  accepts(name: FeatureName): boolean;
  /** Without the Ethernet header. */
  readonly mtu: number;
}

function wrong(what: string): DriverError {
  return new DriverError(`§5.1.9.2.1: ${what}`);
}

/** Throws when a rule is broken. */
export function checkTransmitted(header: NetHeader, frame: Buffer, agreed: Agreed): void {
  checkFlags(header, agreed);
  checkGsoType(header, agreed);
  const isCut = header.gsoType !== GSO.none;
  const most = isCut ? GSO_FRAME_BYTES_MAX : agreed.mtu + ETHERNET_BYTES;
  if (frame.length < ETHERNET_BYTES || frame.length > most) {
    throw new DriverError(
      `§5.1.4.2: a frame of ${frame.length} bytes is sent, with an MTU of ${agreed.mtu}`,
    );
  }
  if ((header.flags & FLAG.needsCsum) !== 0) checkPartial(header, frame);
  else checkComplete(frame);
  if (isCut) checkCut(header, frame, agreed);
}

function checkFlags({ flags, numBuffers }: NetHeader, agreed: Agreed): void {
  if (numBuffers !== 0) throw wrong(`num_buffers is ${numBuffers}, not 0`);
  if ((flags & (FLAG.dataValid | FLAG.rscInfo)) !== 0) {
    throw wrong(`DATA_VALID or RSC_INFO in flags ${flags}`);
  }
  if (flags !== 0 && !agreed.accepts("csum")) throw wrong(`flags are ${flags} without CSUM`);
  if ((flags & ~FLAG.needsCsum) !== 0) throw wrong(`flags ${flags} were not negotiated`);
}

function checkGsoType({ flags, gsoType }: NetHeader, agreed: Agreed): void {
  if (gsoType === GSO.none) return;
  if ((gsoType & GSO_TUNNEL) !== 0) throw wrong(`tunnel bits in gso_type ${gsoType}`);
  const feature = GSO_FEATURES.get(gsoType & ~GSO.ecn);
  if (feature === undefined || !agreed.accepts(feature)) {
    throw wrong(`gso_type ${gsoType} was not negotiated`);
  }
  if ((gsoType & GSO.ecn) !== 0 && !agreed.accepts("host_ecn")) {
    throw wrong("gso_type with ECN, and HOST_ECN was not negotiated");
  }
  if ((flags & FLAG.needsCsum) === 0) throw wrong(`gso_type ${gsoType} without NEEDS_CSUM`);
}

interface Transport {
  readonly start: number;
  readonly protocol: number;
  readonly end: number;
}

/** The transport header's place and kind, if the frame is IPv6; the driver adds no headers. */
function transportOf6(frame: Buffer): Transport | undefined {
  if (frame.length < IPV6_START) throw new DriverError("an IPv6 frame that is cut is sent");
  const end = IPV6_START + frame.readUInt16BE(ETHERNET_BYTES + 4);
  if (frame.length < end) throw new DriverError("an IPv6 packet longer than its frame is sent");
  const protocol = frame.readUInt8(ETHERNET_BYTES + 6);
  return protocol in CHECKSUM_OFFSETS ? { start: IPV6_START, protocol, end } : undefined;
}

/** The transport header's place and kind, if the frame is IP with TCP or UDP in it, or ICMPv6. */
function transportOf(frame: Buffer): Transport | undefined {
  if (frame.length >= ETHERNET_BYTES && isIpv6(frame)) return transportOf6(frame);
  if (frame.length < ETHERNET_BYTES + 20 || frame.readUInt16BE(12) !== 0x0800) return undefined;
  const ip = frame.subarray(ETHERNET_BYTES);
  const headerBytes = 4 * (ip.readUInt8(0) & 15);
  const total = ip.readUInt16BE(2);
  const isFragment = (ip.readUInt16BE(6) & 0x3fff) !== 0;
  const isWhole = headerBytes >= 20 && total >= headerBytes && ip.length >= total;
  const protocol = ip.readUInt8(9);
  if (isFragment || !isWhole || (protocol !== TCP && protocol !== UDP)) return undefined;
  if (internetChecksum(ip.subarray(0, headerBytes)) !== 0) {
    throw wrong("a checksum before the one left to the device is wrong: IPv4's");
  }
  return { start: ETHERNET_BYTES + headerBytes, protocol, end: ETHERNET_BYTES + total };
}

function isIpv6(frame: Buffer): boolean {
  return frame.readUInt16BE(12) === TYPE_IPV6;
}

/** The sum over the pseudo header of what is in IPv4 or IPv6. */
export function pseudoSum(frame: Buffer, protocol: number, bytes: number): number {
  const rest = Buffer.alloc(4);
  rest.writeUInt16BE(protocol, 0);
  rest.writeUInt16BE(bytes, 2);
  const addresses = isIpv6(frame) ? frame.subarray(22, 54) : frame.subarray(26, 34);
  return onesSum(Buffer.concat([addresses, rest]));
}

function checkPartial({ csumStart, csumOffset, hdrLen }: NetHeader, frame: Buffer): void {
  if (csumStart + csumOffset + 2 > frame.length) {
    throw wrong(`csum_start ${csumStart} and csum_offset ${csumOffset} point beyond the frame`);
  }
  const transport = transportOf(frame);
  if (transport === undefined) return;
  const { start, protocol, end } = transport;
  const offset = CHECKSUM_OFFSETS[protocol] ?? 0;
  if (csumStart !== start || csumOffset !== offset) {
    throw wrong(`csum_start ${csumStart}, csum_offset ${csumOffset}: not ${start} and ${offset}`);
  }
  const transportBytes = protocol === TCP ? 4 * (frame.readUInt8(start + 12) >> 4) : 8;
  if (hdrLen < start + transportBytes || hdrLen > frame.length) {
    throw wrong(`hdr_len is ${hdrLen}: the headers have ${start + transportBytes} bytes`);
  }
  const field = frame.readUInt16BE(start + offset);
  const sum = pseudoSum(frame, protocol, end - start);
  if (field % 0xffff !== sum % 0xffff) {
    throw wrong(`the checksum field holds ${field}, not the pseudo header's sum ${sum}`);
  }
}

/** What is not left to the device must be right. */
function checkComplete(frame: Buffer): void {
  const transport = transportOf(frame);
  if (transport === undefined) return;
  const { start, protocol, end } = transport;
  const segment = frame.subarray(start, end);
  const isLeftOut =
    protocol === UDP && !isIpv6(frame) && segment.length >= 8 && segment.readUInt16BE(6) === 0;
  if (isLeftOut) return;
  if (internetChecksum(segment, pseudoSum(frame, protocol, segment.length)) !== 0) {
    throw wrong("a checksum that is not left to the device is wrong");
  }
}

function checkCut(header: NetHeader, frame: Buffer, agreed: Agreed): void {
  const { csumStart, gsoSize, gsoType, hdrLen } = header;
  if (gsoSize === 0) throw wrong("gso_size is 0");
  const bytes = headerBytes(header, frame);
  if (agreed.accepts("guest_hdrlen") && hdrLen !== bytes) {
    throw wrong(`hdr_len is ${hdrLen}, not ${bytes}, with GUEST_HDRLEN`);
  }
  if (hdrLen < bytes) throw wrong(`hdr_len is ${hdrLen}: the headers have ${bytes} bytes`);
  if (gsoType === GSO.udpL4) return;
  const hasCwr = (frame.readUInt8(csumStart + 13) & TCP_CWR) !== 0;
  if (hasCwr !== ((gsoType & GSO.ecn) !== 0)) {
    throw wrong(`gso_type is ${gsoType}, and CWR in the TCP header is ${Number(hasCwr)}`);
  }
}

/** All headers through the transport header of a frame that is to be cut. */
export function headerBytes({ csumStart, gsoType }: NetHeader, frame: Buffer): number {
  if (gsoType === GSO.udpL4) return csumStart + 8;
  if (csumStart + 20 > frame.length) throw wrong("the TCP header is cut");
  return csumStart + 4 * (frame.readUInt8(csumStart + 12) >> 4);
}
