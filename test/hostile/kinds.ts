// Which attacks make sense where. Used by generators.ts and life-bench.ts.

import { ATTACK_KINDS, type AttackKind, isLife, type Setup } from "./cases";

/** Lies of a device before it runs. */
export const BOOT_KINDS: readonly AttackKind[] = [
  "space",
  "capability",
  "register",
  "config",
  "churn",
  "function",
];

/** What is decided before a guest of life-bench.ts boots, unless it has a moment. */
export const EARLY_KINDS: readonly AttackKind[] = [...BOOT_KINDS, "answer", "word"];

const LIFE_KINDS: readonly AttackKind[] = ["plug", "word"];

/** Those of a device that is running, and stays where it is. */
const RUNNING_KINDS: readonly AttackKind[] = ATTACK_KINDS.filter(
  (kind) => !["space", "capability", "function"].includes(kind) && !LIFE_KINDS.includes(kind),
);

export function kindsOf(setup: Setup): readonly AttackKind[] {
  if (setup === "boot") return BOOT_KINDS;
  return isLife(setup) ? ATTACK_KINDS : RUNNING_KINDS;
}
