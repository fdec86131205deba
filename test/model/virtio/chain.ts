// A buffer that the driver has made available: a head and its pieces in memory, whatever ring
// format it came from. Reads and writes go across the pieces. Made by split-ring.ts.

import { DriverError } from "../errors";
import type { Arena, Ram } from "../machine/ram";

export interface Segment {
  readonly address: number;
  readonly bytes: number;
  /** The device writes it; else it reads it. */
  readonly writable: boolean;
}

export class Chain {
  /** Of all pieces, and of those that the device may write. */
  readonly bytes: number;
  readonly writableBytes: number;

  constructor(
    private readonly ram: Ram,
    /** What the device gives back: the id of the first descriptor. */
    readonly head: number,
    /** Descriptors of the ring that it takes; an indirect table takes one. */
    readonly descriptors: readonly number[],
    readonly segments: readonly Segment[],
  ) {
    this.bytes = sumBytes(segments);
    this.writableBytes = sumBytes(segments.filter(({ writable }) => writable));
  }

  /** The content of what the device may read. */
  read(): Buffer {
    const content = Buffer.allocUnsafe(this.bytes - this.writableBytes);
    let at = 0;
    for (const segment of this.segments) {
      if (segment.writable) continue;
      const arena = this.arenaOf(segment);
      const start = segment.address - arena.base;
      content.set(arena.array.subarray(start, start + segment.bytes), at);
      at += segment.bytes;
    }
    return content;
  }

  /** Writes `content` from the start; answers how much of it there was room for. */
  write(content: Uint8Array): number {
    let at = 0;
    for (const segment of this.segments) {
      if (!segment.writable) continue;
      if (at === content.length) break;
      const piece = content.subarray(at, at + segment.bytes);
      const arena = this.arenaOf(segment);
      arena.array.set(piece, segment.address - arena.base);
      at += piece.length;
    }
    return at;
  }

  private arenaOf({ address, bytes }: Segment): Arena {
    if (bytes === 0) throw new DriverError(`a descriptor of 0 bytes in buffer ${this.head}`);
    return this.ram.find(address, bytes, `buffer ${this.head}`);
  }
}

function sumBytes(segments: readonly Segment[]): number {
  return segments.reduce((sum, { bytes }) => sum + bytes, 0);
}
