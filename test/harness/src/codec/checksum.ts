// The Internet checksum (RFC 1071). Used by IPv4, ICMP and UDP.

/**
 * The ones' complement sum of 16-bit big-endian words, folded; an odd last byte counts as the high
 * half of a word.
 */
export function onesSum(bytes: Uint8Array, start = 0): number {
  let sum = start;
  const even = bytes.length & ~1;
  for (let i = 0; i < even; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  if (even < bytes.length) sum += (bytes[even] ?? 0) << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}

/**
 * The checksum of `bytes` with their checksum field zero; over bytes that hold their right checksum
 * it is 0.
 */
export function internetChecksum(bytes: Uint8Array, start = 0): number {
  return ~onesSum(bytes, start) & 0xffff;
}
