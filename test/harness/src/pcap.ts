// Capture files in the classic pcap format (readable by tcpdump and Wireshark), and a bounded
// recording in memory. The frame backends record; the runner writes the recording of a failed test.
//
//   file:   magic u32 | major, minor u16 | zone i32 | accuracy u32 | snap length u32 | link u32
//   frame:  seconds u32 | nanoseconds u32 | captured length u32 | original length u32 | bytes

import { HarnessError } from "./errors";

const MAGIC_NANOSECONDS = 0xa1b23c4d;
const LINK_TYPE_ETHERNET = 1;
const FILE_HEADER_BYTES = 24;
const FRAME_HEADER_BYTES = 16;
const SNAP_LENGTH = 262_144;

export interface CapturedFrame {
  /** Nanoseconds since 1970. */
  readonly timeNs: bigint;
  readonly frame: Uint8Array;
}

/** The bytes of a capture file. */
export function writePcap(frames: readonly CapturedFrame[]): Buffer {
  const header = Buffer.alloc(FILE_HEADER_BYTES);
  header.writeUInt32LE(MAGIC_NANOSECONDS, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(SNAP_LENGTH, 16);
  header.writeUInt32LE(LINK_TYPE_ETHERNET, 20);
  const parts: Uint8Array[] = [header];
  for (const { timeNs, frame } of frames) {
    const head = Buffer.alloc(FRAME_HEADER_BYTES);
    head.writeUInt32LE(Number(timeNs / 1_000_000_000n), 0);
    head.writeUInt32LE(Number(timeNs % 1_000_000_000n), 4);
    head.writeUInt32LE(frame.length, 8);
    head.writeUInt32LE(frame.length, 12);
    parts.push(head, frame);
  }
  return Buffer.concat(parts);
}

/**
 * The frames of a capture file with nanosecond or microsecond times. Throws on anything else and on
 * a cut file.
 */
export function readPcap(file: Buffer): CapturedFrame[] {
  const magic = file.length >= FILE_HEADER_BYTES ? file.readUInt32LE(0) : 0;
  if (magic !== MAGIC_NANOSECONDS && magic !== 0xa1b2c3d4) {
    throw new HarnessError("pcap: not a little-endian capture file");
  }
  const unit = magic === MAGIC_NANOSECONDS ? 1n : 1000n;
  const frames: CapturedFrame[] = [];
  for (let at = FILE_HEADER_BYTES; at < file.length; ) {
    const start = at + FRAME_HEADER_BYTES;
    const length = start <= file.length ? file.readUInt32LE(at + 8) : Infinity;
    if (start + length > file.length) throw new HarnessError(`pcap: cut at byte ${at}`);
    const seconds = BigInt(file.readUInt32LE(at));
    const timeNs = seconds * 1_000_000_000n + BigInt(file.readUInt32LE(at + 4)) * unit;
    frames.push({ timeNs, frame: file.subarray(start, start + length) });
    at = start + length;
  }
  return frames;
}

/** The last frames of both directions. */
export class Recording {
  private readonly ring: CapturedFrame[] = [];
  private next = 0;

  constructor(private readonly limit = 4096) {}

  /** Records a frame with the time of now; the oldest goes when the ring is full. */
  add(frame: Uint8Array): void {
    const timeNs = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e6));
    this.ring[this.next] = { timeNs, frame };
    this.next = (this.next + 1) % this.limit;
  }

  /** Oldest first. */
  frames(): CapturedFrame[] {
    if (this.ring.length < this.limit) return [...this.ring];
    return [...this.ring.slice(this.next), ...this.ring.slice(0, this.next)];
  }
}
