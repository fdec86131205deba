// One worker's part of the long run: makes cases, mostly out of such as reached something new, and
// carries them out on a module with counters. Used by tools/fuzz.ts, in a thread of its own.

import { Random } from "../model/random";
import { Benches } from "./benches";
import { type Attack, type Case, isLife, type Setup } from "./cases";
import { anyCase, likeCase } from "./generators";
import { openModule } from "./open-module";

/** A running guest's turns for one of a guest that boots or lives for a case, which costs more. */
const RUNNING_TURNS = 3;

/** How often each setup has its turn; those of running guests RUNNING_TURNS times as often. */
const TURNS: readonly (readonly [Setup, number])[] = [
  ["plain", 16],
  ["merging", 18],
  ["offloads", 18],
  ["ordered", 14],
  ["packed", 18],
  ["packed_ordered", 18],
  ["control", 12],
  ["pairs", 6],
  ["packed_pairs", 10],
  ["large", 2],
  ["boot", 1],
  ["bare", 1],
  ["ports", 1],
  ["forward", 1],
  ["slots", 1],
  ["source", 1],
  ["sink", 1],
  ["ordered_sink", 1],
  ["six", 1],
  ["uneven", 1],
  ["relay", 1],
  ["mixed", 1],
];

/** Cases of one setup in a row: its guest's memory is in the caches then. */
const RUN_CASES = 16;

export interface Counters {
  /** The first counter's address, and how many there are. */
  readonly first: number;
  readonly count: number;
}

export type Tally = readonly {
  readonly setup: Setup;
  readonly cases: number;
  readonly boots: number;
}[];

export interface Found {
  readonly case: Case;
  /** Points that this worker had not seen with this setup. */
  readonly points: readonly number[];
}

export interface Failure {
  readonly case: Case;
  readonly faults: readonly string[];
}

export class Fuzzer {
  cases = 0;
  private setup: Setup = "merging";
  private readonly benches: Benches;
  private readonly random: Random;
  private readonly turns: readonly Setup[];
  private readonly seen = new Map<Setup, Uint8Array>();
  private readonly corpus = new Map<Setup, Case[]>();
  private readonly ran = new Map<Setup, number>();

  constructor(
    module: string,
    private readonly counters: Counters,
    seed: number,
  ) {
    this.benches = new Benches(openModule(module));
    this.random = new Random(seed);
    this.turns = TURNS.flatMap(([setup, turns]) => {
      const isDear = setup === "boot" || isLife(setup);
      return Array.from({ length: turns * (isDear ? 1 : RUNNING_TURNS) }, () => setup);
    });
  }

  /** Objects of the model that were found changed though they had not been known to change. */
  get lapses(): number {
    return [...this.seen.keys()].reduce((sum, setup) => sum + this.benches.of(setup).lapses, 0);
  }

  /** How many cases of each setup were carried out, and how many guests were booted for them. */
  get tally(): Tally {
    return [...this.ran].map(([setup, cases]) => {
      return { setup, cases, boots: this.benches.of(setup).boots };
    });
  }

  /** A case that somebody else found. */
  learn(one: Case): void {
    const known = this.corpus.get(one.setup);
    if (known === undefined) this.corpus.set(one.setup, [one]);
    else known.push(one);
  }

  /** Carries out one case of its own making. */
  next(): Found | Failure | undefined {
    if (this.cases % RUN_CASES === 0) {
      this.setup = this.turns[this.random.below(this.turns.length)] ?? "merging";
    }
    return this.try(this.make(this.setup));
  }

  private make(setup: Setup): Case {
    const known = this.corpus.get(setup) ?? [];
    const parent = known[this.random.below(Math.max(1, known.length))];
    const other = known[this.random.below(Math.max(1, known.length))];
    if (parent === undefined || other === undefined || this.random.below(4) === 0) {
      return anyCase(this.random, setup);
    }
    return likeCase(this.random, parent, other);
  }

  /** Carries out a case; says what it reached first, or what it found. */
  try(one: Case): Found | Failure | undefined {
    this.cases++;
    this.ran.set(one.setup, (this.ran.get(one.setup) ?? 0) + 1);
    const { faults } = this.benches.run(one);
    if (faults.length > 0) return this.shrink(one, faults);
    const points = this.newPoints(one.setup);
    if (points.length === 0) return undefined;
    this.learn(one);
    return { case: one, points };
  }

  private newPoints(setup: Setup): number[] {
    const { count, first } = this.counters;
    const seen = this.seen.get(setup) ?? new Uint8Array(count);
    this.seen.set(setup, seen);
    const points: number[] = [];
    for (const memory of this.benches.of(setup).memories()) {
      for (let point = 0; point < count; point++) {
        if (memory[first + point] === 0 || seen[point] !== 0) continue;
        seen[point] = 1;
        points.push(point);
      }
    }
    return points;
  }

  /** Leaves out attacks, then makes numbers 0, as long as anything is found. */
  private shrink(one: Case, faults: readonly string[]): Failure {
    let best: Failure = { case: one, faults };
    const better = (attacks: readonly Attack[]): boolean => {
      const smaller = { setup: one.setup, attacks };
      const found = this.benches.run(smaller).faults;
      if (found.length > 0) best = { case: smaller, faults: found };
      return found.length > 0;
    };
    for (let at = one.attacks.length - 1; at >= 0; at--) {
      better(best.case.attacks.filter((_, index) => index !== at));
    }
    for (let at = 0; at < best.case.attacks.length; at++) {
      for (const field of ["moment", "a", "b", "c"] as const) {
        better(best.case.attacks.map((old, i) => (i === at ? { ...old, [field]: 0 } : old)));
      }
    }
    return best;
  }
}
