// A line that does to frames what bad networks do, with chances and a seed, so that a run can be
// repeated. Pure: frames go in one by one, and what comes out of it then is returned. Used by the
// `faultyStream` backend.

import { Random } from "./random";

/** Chances from 0 to 1, for each frame; none unless given. */
export interface FaultRates {
  readonly drop?: number;
  readonly duplicate?: number;
  /** Flips one bit. */
  readonly corrupt?: number;
  /** Holds a frame back until up to `REORDER_FRAMES` later ones have gone by. */
  readonly reorder?: number;
  /** Stops the line for `delayMs`; what the pure line does is to mark the frame. */
  readonly delay?: number;
  readonly delayMs?: number;
  /** The first byte that may be corrupted; 14 (behind the Ethernet header) unless given. */
  readonly corruptFrom?: number;
}

export interface LineFrame {
  readonly frame: Buffer;
  readonly corrupted: boolean;
  /** Milliseconds to wait before it and everything behind it. */
  readonly delayMs: number;
}

export interface FaultCounts {
  passed: number;
  dropped: number;
  duplicated: number;
  corrupted: number;
  reordered: number;
  delayed: number;
}

export const REORDER_FRAMES = 8;
const DEFAULT_DELAY_MS = 5;
const ETHERNET_BYTES = 14;

interface Held {
  readonly item: LineFrame;
  /** Frames that still have to go by. */
  left: number;
}

export class FaultLine {
  readonly counts: FaultCounts = {
    passed: 0,
    dropped: 0,
    duplicated: 0,
    corrupted: 0,
    reordered: 0,
    delayed: 0,
  };
  private readonly random: Random;
  private held: Held[] = [];

  constructor(
    seed: number,
    private readonly rates: FaultRates,
  ) {
    this.random = new Random(seed);
  }

  private happens(chance: number | undefined): boolean {
    // Always drawn, so that one chance's value does not shift the others' luck.
    return this.random.below(1_000_000) < (chance ?? 0) * 1_000_000;
  }

  /** Puts a frame in; returns what comes out because of it, in order. */
  push(frame: Uint8Array): LineFrame[] {
    const dropped = this.happens(this.rates.drop);
    const duplicated = this.happens(this.rates.duplicate);
    const corrupted = this.happens(this.rates.corrupt);
    const reordered = this.happens(this.rates.reorder);
    const delayed = this.happens(this.rates.delay);
    if (dropped) {
      this.counts.dropped++;
      return [];
    }
    const item = this.make(frame, corrupted, delayed);
    const copies = duplicated ? [item, { ...item, delayMs: 0 }] : [item];
    if (duplicated) this.counts.duplicated++;
    if (!reordered) return this.out(copies);
    this.counts.reordered++;
    const left = 1 + this.random.below(REORDER_FRAMES);
    this.held.push(...copies.map((copy) => ({ item: copy, left })));
    return [];
  }

  private make(frame: Uint8Array, corrupted: boolean, delayed: boolean): LineFrame {
    const copy = Buffer.from(frame);
    const from = this.rates.corruptFrom ?? ETHERNET_BYTES;
    const possible = corrupted && copy.length > from;
    if (possible) {
      const at = from + this.random.below(copy.length - from);
      copy.writeUInt8(copy.readUInt8(at) ^ (1 << this.random.below(8)), at);
      this.counts.corrupted++;
    }
    if (delayed) this.counts.delayed++;
    const delayMs = delayed ? (this.rates.delayMs ?? DEFAULT_DELAY_MS) : 0;
    return { frame: copy, corrupted: possible, delayMs };
  }

  private out(items: readonly LineFrame[]): LineFrame[] {
    const due: LineFrame[] = [];
    this.held = this.held.filter((held) => {
      held.left--;
      if (held.left <= 0) due.push(held.item);
      return held.left > 0;
    });
    const all = [...items, ...due];
    this.counts.passed += all.length;
    return all;
  }

  /** Everything that is still held back. */
  flush(): LineFrame[] {
    const rest = this.held.map(({ item }) => item);
    this.held = [];
    this.counts.passed += rest.length;
    return rest;
  }
}
