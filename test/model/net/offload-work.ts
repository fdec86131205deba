// The work that a driver leaves to its device: completing a checksum, and cutting a long frame into
// ones that fit the wire. Called by net-sender.ts for frames that were found right, and by tests
// to make partial checksums. virtio 1.4 §5.1.9.2

import { internetChecksum } from "qemu-test-harness";
import { FLAG, GSO, type NetHeader } from "./net-header";
import { headerBytes } from "./tx-check";

const ETHERNET_BYTES = 14;
const IPV4 = 4;
const TCP_FIN_PSH = 0x09;
const TCP_CWR = 0x80;

/** The frames that go out on the wire for one that the driver handed over. */
export function finish(header: NetHeader, frame: Buffer): Buffer[] {
  if ((header.flags & FLAG.needsCsum) === 0) return [frame];
  if (header.gsoType === GSO.none) return [complete(frame, header)];
  return cut(header, frame);
}

/** Sums from csum_start to the end, and puts the result where it belongs. */
export function complete(
  frame: Buffer,
  { csumStart, csumOffset }: Pick<NetHeader, "csumStart" | "csumOffset">,
): Buffer {
  const whole = Buffer.from(frame);
  // Zero means "no checksum" in UDP, and is as good as its other representation in all others.
  const checksum = internetChecksum(whole.subarray(csumStart)) || 0xffff;
  whole.writeUInt16BE(checksum, csumStart + csumOffset);
  return whole;
}

function cut(header: NetHeader, frame: Buffer): Buffer[] {
  const headers = headerBytes(header, frame);
  const data = frame.subarray(headers);
  const pieces: Buffer[] = [];
  for (let at = 0; at < data.length || at === 0; at += header.gsoSize) {
    const part = data.subarray(at, at + header.gsoSize);
    const piece = Buffer.concat([frame.subarray(0, headers), part]);
    const isLast = at + part.length >= data.length;
    fixNetwork(piece, pieces.length);
    if (header.gsoType === GSO.udpL4) piece.writeUInt16BE(8 + part.length, header.csumStart + 4);
    else fixTcp(piece, header.csumStart, at, isLast);
    fixPseudo(piece, frame, header);
    pieces.push(complete(piece, header));
  }
  return pieces;
}

function fixNetwork(piece: Buffer, index: number): void {
  const ip = piece.subarray(ETHERNET_BYTES);
  if (ip.readUInt8(0) >> 4 !== IPV4) {
    ip.writeUInt16BE(ip.length - 40, 4);
    return;
  }
  ip.writeUInt16BE(ip.length, 2);
  ip.writeUInt16BE((ip.readUInt16BE(4) + index) & 0xffff, 4);
  ip.writeUInt16BE(0, 10);
  ip.writeUInt16BE(internetChecksum(ip.subarray(0, 4 * (ip.readUInt8(0) & 15))), 10);
}

function fixTcp(piece: Buffer, start: number, offset: number, isLast: boolean): void {
  piece.writeUInt32BE((piece.readUInt32BE(start + 4) + offset) >>> 0, start + 4);
  let flags = piece.readUInt8(start + 13);
  if (!isLast) flags &= ~TCP_FIN_PSH;
  if (offset > 0) flags &= ~TCP_CWR;
  piece.writeUInt8(flags, start + 13);
}

/** The pseudo header's sum counted the whole frame's length; a piece is shorter. RFC 1624 */
function fixPseudo(piece: Buffer, frame: Buffer, { csumStart, csumOffset }: NetHeader): void {
  const at = csumStart + csumOffset;
  const shorter = frame.length - piece.length;
  piece.writeUInt16BE((piece.readUInt16BE(at) + 0xffff - shorter) % 0xffff, at);
}
