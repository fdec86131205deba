// Hostile cases at random: as values of fast-check, which shrinks them, and from a seeded source,
// which is fast, for the long run. Numbers are mostly near what matters. Used by hostile.test.ts and
// fuzzer.ts.

import fc from "fast-check";
import type { Random } from "../model/random";
import { ATTACKS_MAX, type Attack, type Case, MOMENT_MAX, type Setup } from "./cases";
import { kindsOf } from "./kinds";
import type { Workbench } from "./workbench";

/** Values at which a comparison may be off by one, or a sum may wrap. */
const EDGES: readonly number[] = [
  0, 1, 2, 3, 4, 7, 8, 11, 12, 13, 14, 15, 16, 17, 31, 32, 33, 60, 63, 64, 65, 127, 128, 255, 256,
  257, 1514, 1526, 4095, 4096, 4108, 0x7fff, 0x8000, 0xfffe, 0xffff, 0x1_0000, 0x7fff_ffff,
  0x8000_0000, 0xffff_ff00, 0xffff_fffe, 0xffff_ffff,
];

// ---- fast-check --------------------------------------------------------------------------------

const COMMANDS_MAX = 6;
const word = fc.oneof(
  fc.nat({ max: 300 }),
  fc.constantFrom(...EDGES),
  fc.integer({ min: 0, max: 0xffff_ffff }),
);
const moment = fc.oneof(fc.constant(0), fc.nat({ max: MOMENT_MAX - 1 }));

/** What a command needs to know of the guest: whether it is still there. */
export interface Life {
  alive: boolean;
}

/** An attack as a command of fast-check's model-based testing. */
class AttackCommand implements fc.Command<Life, Workbench> {
  constructor(private readonly attack: Attack) {}

  check({ alive }: Life): boolean {
    return alive;
  }

  run(life: Life, bench: Workbench): void {
    life.alive = bench.attack(this.attack);
  }

  toString(): string {
    const { a, b, c, kind, moment } = this.attack;
    return `${kind} ${moment} ${a} ${b} ${c}`;
  }
}

/** Attacks one after the other on a running guest. */
export function commandsOf(setup: Setup): fc.Arbitrary<Iterable<fc.Command<Life, Workbench>>> {
  const commands = attacksOf(setup).map((attack) => new AttackCommand(attack));
  return fc.commands([commands], { maxCommands: COMMANDS_MAX });
}

export function attacksOf(setup: Setup): fc.Arbitrary<Attack> {
  return fc.record({
    kind: fc.constantFrom(...kindsOf(setup)),
    moment,
    a: word,
    b: word,
    c: word,
  });
}

// ---- for the long run --------------------------------------------------------------------------

function anyWord(random: Random): number {
  const kind = random.below(8);
  if (kind < 4) return random.below(20);
  if (kind < 6) return EDGES[random.below(EDGES.length)] ?? 0;
  return kind === 6 ? random.below(65_536) : random.next();
}

function anyAttack(random: Random, setup: Setup): Attack {
  const kinds = kindsOf(setup);
  return {
    kind: kinds[random.below(kinds.length)] ?? "frames",
    moment: random.below(3) === 0 ? random.below(MOMENT_MAX) : 0,
    a: anyWord(random),
    b: anyWord(random),
    c: anyWord(random),
  };
}

/** Short ones mostly: what is found with few attacks is found soonest. */
export function anyCase(random: Random, setup: Setup): Case {
  const count = 1 + Math.min(random.below(6), random.below(6));
  return { setup, attacks: Array.from({ length: count }, () => anyAttack(random, setup)) };
}

function changed(random: Random, one: Attack, setup: Setup): Attack {
  const small = random.below(2) === 0 ? 1 : -1;
  switch (random.below(6)) {
    case 0:
      return { ...one, moment: random.below(MOMENT_MAX) };
    case 1:
      return { ...one, a: anyWord(random) };
    case 2:
      return { ...one, b: anyWord(random) };
    case 3:
      return { ...one, c: anyWord(random) };
    case 4:
      return { ...one, b: (one.b + small) >>> 0, c: (one.c ^ (1 << random.below(16))) >>> 0 };
    default:
      return anyAttack(random, setup);
  }
}

/** A case like this one: something changed, added, taken out, or crossed with another's. */
export function likeCase(random: Random, parent: Case, other: Case): Case {
  const { setup } = parent;
  const attacks = [...parent.attacks];
  const at = random.below(attacks.length + 1);
  const one = attacks[at];
  const choice = random.below(10);
  if (choice === 0 && attacks.length > 1) attacks.splice(at, 1);
  else if (choice === 1) attacks.splice(at, 0, anyAttack(random, setup));
  else if (choice === 2) attacks.splice(at, attacks.length, ...other.attacks.slice(at));
  else if (one !== undefined) attacks[at] = changed(random, one, setup);
  else attacks.push(anyAttack(random, setup));
  return { setup, attacks: attacks.slice(0, ATTACKS_MAX) };
}
