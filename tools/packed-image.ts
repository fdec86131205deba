/**
 * Makes the image that ships out of the linked one: ring 3's code and constants are taken out of
 * their segments, packed (pack.ts), and put behind `packed` (boot/packed.h, boot/image.ld). Every
 * segment keeps its place in memory. There are no section headers, and nothing is aligned in the
 * file, because a loader copies these segments, it does not map them. Called by build-image.ts.
 *
 *   ELF header 64 | program headers 56 each | bytes of the segments, one behind the other
 */
import { pack } from "./pack";

const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const TYPE_LOAD = 1;

/** Places in an ELF64 header and in a program header. */
const E_PHOFF = 0x20;
const E_SHOFF = 0x28;
const E_PHNUM = 0x38;
const E_SECTIONS = 0x3a;
const P_OFFSET = 0x08;
const P_VADDR = 0x10;
const P_FILESZ = 0x20;
const P_MEMSZ = 0x28;
const P_ALIGN = 0x30;

interface Segment {
  /** A copy of the program header, as it was linked. */
  readonly header: Buffer;
  readonly isLoad: boolean;
  readonly address: number;
  /** What the file has of it; in memory it may be longer. */
  readonly bytes: Buffer;
}

/** What is packed, from where on, and how far the packed form may reach. */
interface Places {
  readonly start: number;
  readonly end: number;
  readonly head: number;
  readonly streams: number;
  readonly limit: number;
}

/** `linked` is the linked ELF, `symbols` what `nm` says of it. */
export function packedImage(linked: Buffer, symbols: string): Buffer {
  const places: Places = {
    start: addressOf(symbols, "unpacked_start"),
    end: addressOf(symbols, "unpacked_end"),
    head: addressOf(symbols, "packed"),
    streams: addressOf(symbols, "packed_streams"),
    limit: addressOf(symbols, "packed_limit"),
  };
  const segments = segmentsOf(linked);
  const packed = packedForm(unpackedBytes(segments, places), places);
  const shipped = segments.map((segment): Segment => {
    if (!segment.isLoad) return segment;
    if (isPacked(segment, places)) return { ...segment, bytes: Buffer.alloc(0) };
    if (segment.address !== places.head) return segment;
    if (segment.address + segment.bytes.length !== places.streams) {
      throw new Error("packed_streams is not the end of its segment: check boot/image.ld");
    }
    packed.copy(segment.bytes, 0, 0, PACKED_HEAD_BYTES);
    const bytes = Buffer.concat([segment.bytes, packed.subarray(PACKED_HEAD_BYTES)]);
    segment.header.writeBigUInt64LE(BigInt(bytes.length), P_MEMSZ);
    return { ...segment, bytes };
  });
  return layOut(linked.subarray(0, HEADER_BYTES), shipped);
}

/** The address of a symbol in `nm`'s output. */
export function addressOf(symbols: string, name: string): number {
  const line = symbols.split("\n").find((text) => text.endsWith(` ${name}`));
  if (line === undefined) throw new Error(`nm shows no ${name}: check boot/image.ld`);
  return Number.parseInt(line, 16);
}

function segmentsOf(elf: Buffer): Segment[] {
  const first = Number(elf.readBigUInt64LE(E_PHOFF));
  return Array.from({ length: elf.readUInt16LE(E_PHNUM) }, (_, i) => {
    const at = first + i * PROGRAM_HEADER_BYTES;
    const header = Buffer.from(elf.subarray(at, at + PROGRAM_HEADER_BYTES));
    const offset = Number(header.readBigUInt64LE(P_OFFSET));
    const length = Number(header.readBigUInt64LE(P_FILESZ));
    return {
      header,
      isLoad: header.readUInt32LE(0) === TYPE_LOAD,
      address: Number(header.readBigUInt64LE(P_VADDR)),
      bytes: Buffer.from(elf.subarray(offset, offset + length)),
    };
  });
}

function isPacked({ isLoad, address }: Segment, { start, end }: Places): boolean {
  return isLoad && address >= start && address < end;
}

/** What lies from unpacked_start to unpacked_end once everything is in its place. */
function unpackedBytes(segments: readonly Segment[], places: Places): Buffer {
  const bytes = Buffer.alloc(places.end - places.start);
  for (const segment of segments.filter((one) => isPacked(one, places))) {
    if (segment.address + segment.bytes.length > places.end) {
      throw new Error("there are bytes behind unpacked_end: check boot/image.ld");
    }
    segment.bytes.copy(bytes, segment.address - places.start);
  }
  return bytes;
}

const PACKED_HEAD_BYTES = 16;

/** The head of boot/packed.h and the streams behind it, without what is linked between them. */
function packedForm(unpacked: Buffer, { streams, limit }: Places): Buffer {
  const { numbers, bytes } = pack(unpacked);
  if (streams + numbers.length + bytes.length > limit) {
    throw new Error("the packed image does not fit below ARENA_BASE: check boot/layout.h");
  }
  const head = Buffer.alloc(PACKED_HEAD_BYTES);
  head.writeUInt32LE(unpacked.length, 0);
  head.writeUInt32LE(numbers.length, 4);
  head.writeUInt32LE(bytes.length, 8);
  return Buffer.concat([head, numbers, bytes]);
}

/** The file. A note lies within the segment that loads it, and has no bytes of its own here. */
function layOut(elfHeader: Buffer, segments: readonly Segment[]): Buffer {
  const header = Buffer.from(elfHeader);
  header.writeBigUInt64LE(BigInt(HEADER_BYTES), E_PHOFF);
  header.writeBigUInt64LE(0n, E_SHOFF);
  header.fill(0, E_SECTIONS);
  const loads = segments.filter(({ isLoad }) => isLoad);
  const offsets = new Map<Segment, number>();
  let end = HEADER_BYTES + segments.length * PROGRAM_HEADER_BYTES;
  for (const segment of loads) {
    offsets.set(segment, end);
    end += segment.bytes.length;
  }
  for (const segment of segments) {
    const around = loads.find(
      ({ address, bytes }) =>
        segment.address >= address &&
        segment.address + segment.bytes.length <= address + bytes.length,
    );
    const offset = around === undefined ? undefined : offsets.get(around);
    if (around === undefined || offset === undefined) {
      throw new Error("a note is in no loaded segment: check boot/image.ld");
    }
    segment.header.writeBigUInt64LE(BigInt(offset + segment.address - around.address), P_OFFSET);
    segment.header.writeBigUInt64LE(BigInt(segment.bytes.length), P_FILESZ);
    if (segment.isLoad) segment.header.writeBigUInt64LE(1n, P_ALIGN);
  }
  return Buffer.concat([
    header,
    ...segments.map((segment) => segment.header),
    ...loads.map(({ bytes }) => bytes),
  ]);
}
