// The reference for what tools/pack.ts packs: boot/unpack.c's format in TypeScript, written for
// reading. Used by tests of the packer and of the image.

import type { Packed } from "../../tools/pack";

/** Bits, the highest of a byte first. */
class BitReader {
  private at = 0;

  constructor(private readonly bytes: Uint8Array) {}

  bit(): number {
    const byte = this.bytes[this.at >> 3];
    if (byte === undefined) throw new Error("the numbers have ended");
    return (byte >> (7 - (this.at++ & 7))) & 1;
  }

  /** Elias' gamma code. */
  number(): number {
    let zeros = 0;
    while (this.bit() === 0) zeros++;
    let value = 1;
    for (let i = 0; i < zeros; i++) value = 2 * value + this.bit();
    return value;
  }

  /** Whole bytes that have not been touched. */
  get left(): number {
    return this.bytes.length - Math.ceil(this.at / 8);
  }
}

/** `size` bytes out of the two streams, which must end where they end. */
export function unpack({ numbers, bytes }: Packed, size: number): Buffer {
  const reader = new BitReader(numbers);
  const unpacked: number[] = [];
  let read = 0;
  let distance = 0;
  let behindLiterals = false;
  while (unpacked.length < size) {
    const isNew = reader.bit() === 1;
    if (isNew) distance = (reader.number() - 1) * 256 + (bytes[read++] ?? Number.NaN) + 1;
    const length = reader.number() + (isNew ? 1 : 0);
    const isCopy: boolean = isNew || behindLiterals;
    for (let i = 0; i < length; i++) {
      const byte = isCopy ? unpacked[unpacked.length - distance] : bytes[read++];
      if (byte === undefined) throw new Error(`nothing to copy for byte ${unpacked.length}`);
      unpacked.push(byte);
    }
    behindLiterals = !isCopy;
  }
  if (unpacked.length !== size) throw new Error(`${unpacked.length} bytes instead of ${size}`);
  if (reader.left !== 8) throw new Error(`${reader.left} bytes behind the numbers, not 8`);
  if (read !== bytes.length) throw new Error(`${bytes.length - read} bytes are left over`);
  return Buffer.from(unpacked);
}
