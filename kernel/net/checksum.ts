/**
 * The Internet checksum, RFC 1071. Called by ipv4.ts, icmp.ts and udp.ts, over all bytes of every
 * packet that is answered, so it takes eight at a time.
 *
 * A ones' complement sum comes out right in the byte order of the machine as long as the result is
 * stored in that order too (RFC 1071, 2.B). Sums and checksums here are therefore in memory order,
 * and nothing is swapped.
 */
import { csumStart, isSegmented, needsChecksum } from "../../drivers/net/header";
import { Packet } from "../../drivers/net/packet";

/** The sum of data with a right checksum in it. */
export const VALID: u32 = 0xffff;

/** A partial sum down to 16 bits. */
export function fold(sum: u64): u32 {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return <u32>((sum & 0xffff) + (sum >> 16));
}

/** The partial sum of `length` bytes; fold() it, after adding others at even offsets. */
export function sumBytes(pointer: usize, length: u32): u64 {
  let sum: u64 = 0;
  const end = pointer + (length & ~7);
  for (; pointer < end; pointer += 8) {
    const word = load<u64>(pointer);
    sum += (word & 0xffffffff) + (word >> 32);
  }
  if ((length & 4) != 0) {
    sum += load<u32>(pointer);
    pointer += 4;
  }
  if ((length & 2) != 0) {
    sum += load<u16>(pointer);
    pointer += 2;
  }
  if ((length & 1) != 0) sum += load<u8>(pointer);
  return sum;
}

/**
 * The folded sum of `length` bytes of a packet from `offset` on, which is in its first segment.
 * Bytes that the segments do not have are not read, and count as zero.
 */
export function sumPacket(packet: Packet, offset: u32, length: u32): u32 {
  let sum: u64 = 0;
  let odd: u32 = 0;
  let segment: Packet | null = packet;
  while (segment != null && length > 0) {
    const here = min(length, segment.length - min(offset, segment.length));
    const part = sumBytes(segment.data + offset, here);
    // What starts at an odd offset has its bytes the other way round (RFC 1071, 2.B).
    sum += odd == 0 ? part : <u64>bswap<u16>(<u16>fold(part));
    odd ^= here & 1;
    length -= here;
    offset = 0;
    segment = segment.next;
  }
  return fold(sum);
}

/** The checksum after a 16-bit word changed from `before` to `after`. RFC 1624, equation 3. */
export function update(checksum: u32, before: u32, after: u32): u32 {
  return ~fold(<u64>(~checksum & 0xffff) + (~before & 0xffff) + after) & 0xffff;
}

/**
 * Does in software what a packet's header leaves to the device: from csum_start to the end, into
 * the field behind it, which holds the pseudo header's sum. False if the field is not in the first
 * segment, or the packet is one that stands for several. virtio 1.4 §5.1.9.2.1
 */
export function completeChecksum(packet: Packet): bool {
  if (!needsChecksum(packet)) return true;
  const start = csumStart(packet);
  const field = start + packet.csumOffset;
  if (isSegmented(packet) || field + 2 > packet.length) return false;
  const checksum = ~sumPacket(packet, start, packet.total - start) & 0xffff;
  store<u16>(packet.data + field, <u16>(checksum == 0 ? 0xffff : checksum));
  packet.header = 0;
  return true;
}
