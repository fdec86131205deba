/**
 * Packs bytes into what boot/unpack.c unpacks; the format is described there. Called by
 * packed-image.ts.
 *
 * The cheapest sequence of blocks is searched by dynamic programming: for every position the least
 * number of bits with which it can be reached, once behind literals and once behind a copy, because
 * the same bit means something else behind them. Of several ways to a position only the cheapest is
 * kept, with its last distance; another distance might have been better later, which makes this
 * nearly, not wholly, optimal.
 */

/** The two streams of packed data. */
export interface Packed {
  /** Bits of kinds and numbers, the highest bit of a byte first, and 8 zero bytes. */
  readonly numbers: Buffer;
  /** Literals, and the low 8 bits of distances. */
  readonly bytes: Buffer;
}

const ZEROS_BEHIND = 8;
/** Limits of the search, not of the format. */
const LITERALS_MAX = 256;
const COPY_MAX = 1024;
const CANDIDATES_MAX = 2000;
/** Blocks cost a bit for their kind; a distance's low part costs a byte. */
const KIND_BITS = 1;
const BYTE_BITS = 8;

const BEHIND_COPY = 0;
const BEHIND_LITERALS = 1;
/** In the place of a distance: a block that has none of its own. */
const NO_DISTANCE = 0;

/** A state is 2 * position + what it is behind. How each state is reached at the least cost. */
interface Search {
  readonly cost: Float64Array;
  /** The distance that would be used again from here. */
  readonly distance: Uint32Array;
  readonly before: Int32Array;
  /** Of the last block, if that is a copy from a new distance. */
  readonly own: Uint32Array;
}

const bitsOfNumber = (value: number) => 2 * (31 - Math.clz32(value)) + 1;
const bitsOfDistance = (distance: number) =>
  bitsOfNumber(Math.floor((distance - 1) / 256) + 1) + BYTE_BITS;

export function pack(data: Uint8Array): Packed {
  return write(data, search(data));
}

function search(data: Uint8Array): Search {
  const states = 2 * (data.length + 1);
  const found: Search = {
    cost: new Float64Array(states).fill(Number.POSITIVE_INFINITY),
    distance: new Uint32Array(states),
    before: new Int32Array(states).fill(-1),
    own: new Uint32Array(states),
  };
  found.cost[BEHIND_COPY] = 0;
  const matches = new Matches(data);
  for (let at = 0; at < data.length; at++) {
    tryLiterals(found, data.length, at);
    tryAgain(found, data, at);
    const copy = 2 * at + BEHIND_COPY;
    const literals = 2 * at + BEHIND_LITERALS;
    const from = costOf(found, literals) < costOf(found, copy) ? literals : copy;
    matches.forEach(at, (distance, shortest, longest) => {
      const cost = costOf(found, from) + KIND_BITS + bitsOfDistance(distance);
      for (let length = shortest; length <= longest; length++) {
        const to = 2 * (at + length) + BEHIND_COPY;
        reach(found, to, from, cost + bitsOfNumber(length - 1), distance, distance);
      }
    });
  }
  return found;
}

const costOf = (found: Search, state: number) => found.cost[state] ?? 0;
const distanceOf = (found: Search, state: number) => found.distance[state] ?? 0;

function reach(
  found: Search,
  state: number,
  before: number,
  cost: number,
  distance: number,
  own: number,
): void {
  if (cost >= costOf(found, state)) return;
  found.cost[state] = cost;
  found.before[state] = before;
  found.distance[state] = distance;
  found.own[state] = own;
}

function tryLiterals(found: Search, end: number, at: number): void {
  const from = 2 * at + BEHIND_COPY;
  const distance = distanceOf(found, from);
  for (let count = 1; count <= LITERALS_MAX && at + count <= end; count++) {
    const cost = costOf(found, from) + KIND_BITS + bitsOfNumber(count) + BYTE_BITS * count;
    reach(found, 2 * (at + count) + BEHIND_LITERALS, from, cost, distance, NO_DISTANCE);
  }
}

/** The last distance again; it needs a copy before the literals. */
function tryAgain(found: Search, data: Uint8Array, at: number): void {
  const from = 2 * at + BEHIND_LITERALS;
  const distance = distanceOf(found, from);
  if (distance === NO_DISTANCE) return;
  const longest = matchLength(data, at, distance);
  for (let count = 1; count <= longest; count++) {
    const cost = costOf(found, from) + KIND_BITS + bitsOfNumber(count);
    reach(found, 2 * (at + count) + BEHIND_COPY, from, cost, distance, NO_DISTANCE);
  }
}

/** For how many bytes the data is what it was `distance` bytes before. */
function matchLength(data: Uint8Array, at: number, distance: number): number {
  const end = Math.min(data.length, at + COPY_MAX);
  let to = at;
  while (to < end && data[to] === data[to - distance]) to++;
  return to - at;
}

/** Earlier positions with the same two bytes, chained from the nearest on. */
class Matches {
  private readonly nearest = new Int32Array(65536).fill(-1);
  private readonly next: Int32Array;

  constructor(private readonly data: Uint8Array) {
    this.next = new Int32Array(data.length);
  }

  /** Calls with each distance the lengths that no shorter distance has; positions ascend by one. */
  forEach(at: number, call: (distance: number, shortest: number, longest: number) => void): void {
    if (at + 1 >= this.data.length) return;
    const key = (this.data[at] ?? 0) | ((this.data[at + 1] ?? 0) << 8);
    let longest = 1;
    let candidate = this.nearest[key] ?? -1;
    for (let i = 0; i < CANDIDATES_MAX && candidate >= 0 && longest < COPY_MAX; i++) {
      // Only one that goes on where the longest so far ended can be longer.
      if (this.data[candidate + longest] === this.data[at + longest]) {
        const length = matchLength(this.data, at, at - candidate);
        if (length > longest) call(at - candidate, longest + 1, length);
        longest = Math.max(longest, length);
      }
      candidate = this.next[candidate] ?? -1;
    }
    this.next[at] = this.nearest[key] ?? -1;
    this.nearest[key] = at;
  }
}

/** The blocks on the cheapest way to the end, in their order, as streams. */
function write(data: Uint8Array, found: Search): Packed {
  const copy = 2 * data.length + BEHIND_COPY;
  const literals = 2 * data.length + BEHIND_LITERALS;
  const states: number[] = [];
  let state = costOf(found, literals) < costOf(found, copy) ? literals : copy;
  for (; state > 0; state = found.before[state] ?? 0) states.push(state);
  const bits = new Bits();
  const bytes: number[] = [];
  let at = 0;
  for (const to of states.reverse()) {
    const length = (to >> 1) - at;
    const own = found.own[to] ?? NO_DISTANCE;
    bits.put(own === NO_DISTANCE ? 0 : 1, 1);
    if (own === NO_DISTANCE) {
      bits.putNumber(length);
    } else {
      bits.putNumber(((own - 1) >> 8) + 1);
      bits.putNumber(length - 1);
      bytes.push((own - 1) & 255);
    }
    if (to % 2 === BEHIND_LITERALS) bytes.push(...data.subarray(at, at + length));
    at += length;
  }
  return { numbers: bits.bytes(), bytes: Buffer.from(bytes) };
}

class Bits {
  private readonly bits: number[] = [];

  put(value: number, count: number): void {
    for (let i = count - 1; i >= 0; i--) this.bits.push((value >> i) & 1);
  }

  /** Elias' gamma code. */
  putNumber(value: number): void {
    this.put(value, bitsOfNumber(value));
  }

  bytes(): Buffer {
    const bytes = Buffer.alloc(Math.ceil(this.bits.length / 8) + ZEROS_BEHIND);
    this.bits.forEach((bit, i) => {
      bytes[i >> 3] = (bytes[i >> 3] ?? 0) | (bit << (7 - (i & 7)));
    });
    return bytes;
  }
}
