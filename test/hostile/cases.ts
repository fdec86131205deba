// What a hostile case is: a setup, and attacks one after the other, each a kind, a moment and three
// numbers. Whatever the numbers are, they mean something, so that cases can be made at random, be
// changed and cut in pieces. Used by generators.ts, fuzzer.ts and corpus.ts.
//
//   setup merging              text form: one line for the setup, then one an attack
//   use 0 5 17 60              kind, moment, a, b, c

import { ModelError } from "../model/errors";

/** What each kind does with a, b and c is in attacks.ts and ring-attacks.ts. */
export const ATTACK_KINDS = [
  "frames",
  "garbage",
  "offload",
  "header",
  "use",
  "jump",
  "again",
  "mark",
  "scribble",
  "touch",
  "event",
  "config",
  "churn",
  "status",
  "register",
  "storm",
  "silence",
  "answer",
  "command",
  "pause",
  "time",
  "space",
  "capability",
  "plug",
  "word",
  "function",
] as const;

export type AttackKind = (typeof ATTACK_KINDS)[number];

export interface Attack {
  readonly kind: AttackKind;
  /** 0: at once; else in the midst of what the guest does next, at its n-th machine call. */
  readonly moment: number;
  /** 32 bits each, unsigned. */
  readonly a: number;
  readonly b: number;
  readonly c: number;
}

export const SETUPS = [
  "plain",
  "merging",
  "offloads",
  "large",
  "control",
  "pairs",
  "ordered",
  "packed",
  "packed_ordered",
  "packed_pairs",
  "boot",
  "bare",
  "ports",
  "forward",
  "slots",
  "source",
  "sink",
  "ordered_sink",
  "six",
  "uneven",
  "relay",
  "mixed",
] as const;

export type Setup = (typeof SETUPS)[number];

/** Guests that each case boots for itself, and that then live for a while (life-bench.ts). */
const LIVES: readonly Setup[] = [
  ...(["bare", "ports", "forward", "slots", "source"] as const),
  ...(["sink", "ordered_sink", "six", "uneven", "relay", "mixed"] as const),
];

export const isLife = (setup: Setup): boolean => LIVES.includes(setup);

export interface Case {
  readonly setup: Setup;
  readonly attacks: readonly Attack[];
}

/** An attack's numbers are cut to these; more than so many attacks a case are not carried out. */
export const MOMENT_MAX = 400;
export const ATTACKS_MAX = 16;
const WORDS = 5;
const NUMBER_MAX = 0xffff_ffff;

export function formatCase({ setup, attacks }: Case): string {
  const lines = attacks.map(({ kind, moment, a, b, c }) => `${kind} ${moment} ${a} ${b} ${c}`);
  return `setup ${setup}\n${lines.map((line) => `${line}\n`).join("")}`;
}

function isOneOf<Name extends string>(names: readonly Name[], word: string): word is Name {
  return (names as readonly string[]).includes(word);
}

function parseNumber(word: string, max: number): number {
  const value = Number(word);
  if (!/^\d+$/.test(word) || value > max) throw new ModelError(`'${word}' is not 0 to ${max}`);
  return value;
}

function parseAttack(line: string): Attack {
  const [kind = "", moment = "", a = "", b = "", c = "", ...rest] = line.split(" ");
  if (!isOneOf(ATTACK_KINDS, kind)) throw new ModelError(`there is no attack '${kind}'`);
  if (c === "" || rest.length > 0) throw new ModelError(`an attack has ${WORDS} words`);
  return {
    kind,
    moment: parseNumber(moment, MOMENT_MAX),
    a: parseNumber(a, NUMBER_MAX),
    b: parseNumber(b, NUMBER_MAX),
    c: parseNumber(c, NUMBER_MAX),
  };
}

/** Reads the text form. Throws a ModelError that names the file and the line. */
export function parseCase(path: string, text: string): Case {
  const [first = "", ...lines] = text.replace(/\n$/, "").split("\n");
  const at = (index: number, error: unknown) =>
    new ModelError(`${path}:${index}: ${error instanceof Error ? error.message : String(error)}`);
  const setup = /^setup (\w+)$/.exec(first)?.[1] ?? "";
  if (!isOneOf(SETUPS, setup)) throw at(1, `the first line is no setup: '${first}'`);
  if (!text.endsWith("\n")) throw at(lines.length + 1, "the last line is cut");
  if (lines.length > ATTACKS_MAX) throw at(lines.length + 1, `more than ${ATTACKS_MAX} attacks`);
  const attacks = lines.map((line, index) => {
    try {
      return parseAttack(line);
    } catch (error) {
      throw at(index + 2, error);
    }
  });
  return { setup, attacks };
}
