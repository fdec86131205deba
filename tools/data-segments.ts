// Makes the module's data small. The optimiser splits it at every run of zeros, so that each string
// becomes two segments, and what copies a segment at boot is more code than the zeros that were
// saved. And strings are UTF-16, in which every other byte is zero. So segments are joined and
// stored without their zeros, eight bytes at a time:
//
//   mask 1 (bit i: byte i is not zero) | the bytes that are not zero, 0 to 8
//
// Called by build-image.ts on wasm2c's output.

const DEFINITION = /^static const u8 data_segment_data_w2c_vireo_d(\d+)\[\] = \{([^}]*)\};\n/gm;
const COPY =
  /^ {2}LOAD_DATA\(instance->w2c_memory, (\d+)u, data_segment_data_w2c_vireo_d(\d+), (\d+)\);\n/gm;

/** Zeros that cost less than the code that unpacks another segment. */
const GAP_BYTES_MAX = 256;
const GROUP_BYTES = 8;

const UNPACK = `static void unpack_data(u8* to, const u8* from, u32 groups) {
  for (; groups > 0; groups--) {
    u32 mask = *from++;
    for (u32 i = 0; i < ${GROUP_BYTES}; i++) *to++ = (mask >> i) & 1 ? *from++ : 0;
  }
}
`;

interface Segment {
  readonly offset: number;
  readonly bytes: number[];
}

/** The same source with its data packed; fails when it does not look as expected. */
export function packData(source: string): string {
  const contents = new Map<string, number[]>();
  for (const [, id = "", body = ""] of source.matchAll(DEFINITION)) {
    contents.set(id, (body.match(/0x[0-9a-f]{2}/g) ?? []).map(Number));
  }
  const joined: Segment[] = [];
  let copies = 0;
  for (const [, offset = "", id = "", bytes = ""] of source.matchAll(COPY)) {
    const content = contents.get(id);
    if (content?.length !== Number(bytes)) {
      throw new Error(`data segment ${id} is not as its copy says: check tools/data-segments.ts`);
    }
    append(joined, Number(offset), content);
    copies++;
  }
  if (copies === 0 || copies !== contents.size) {
    throw new Error(`${contents.size} data segments, ${copies} copies: check data-segments.ts`);
  }
  const definitions = joined.map(
    ({ bytes }, i) => `static const u8 packed_data_${i}[] = {${pack(bytes)}};\n`,
  );
  const calls = joined.map(({ offset, bytes }, i) => {
    const groups = Math.ceil(bytes.length / GROUP_BYTES);
    const to = `MEM_ADDR(&instance->w2c_memory, ${offset}u, ${groups * GROUP_BYTES})`;
    return `  unpack_data(${to}, packed_data_${i}, ${groups});\n`;
  });
  const packed = replaceAll(source, DEFINITION, [UNPACK, ...definitions].join(""));
  return replaceAll(packed, COPY, calls.join(""));
}

/** Segments come in ascending order and do not overlap, not even rounded up to whole groups. */
function append(joined: Segment[], offset: number, content: readonly number[]): void {
  const last = joined.at(-1);
  const gap = last === undefined ? Number.NaN : offset - last.offset - last.bytes.length;
  if (gap < 0) throw new Error("data segments are not in order: check tools/data-segments.ts");
  if (last === undefined || gap > GAP_BYTES_MAX) joined.push({ offset, bytes: [...content] });
  else last.bytes.push(...new Array<number>(gap).fill(0), ...content);
}

export function pack(bytes: readonly number[]): number[] {
  const packed: number[] = [];
  for (let at = 0; at < bytes.length; at += GROUP_BYTES) {
    const group = bytes.slice(at, at + GROUP_BYTES);
    packed.push(
      group.reduce((mask, byte, i) => mask | (byte === 0 ? 0 : 1 << i), 0),
      ...group.filter((byte) => byte !== 0),
    );
  }
  return packed;
}

/** Puts `text` where the first match is, and nothing where the others are. */
function replaceAll(source: string, pattern: RegExp, text: string): string {
  let rest = text;
  return source.replace(pattern, () => {
    const here = rest;
    rest = "";
    return here;
  });
}
