// Makes a failing episode small: takes steps away, and then brings parts of the configuration back to
// what is plain, as long as it still fails. Also the command line that repeats it. Called by soak.ts.

import type { Config, Episode } from "./soak-plan";
import { PLAIN, PLAIN_KEYS, plainer } from "./soak-plan";
import type { Outcome } from "./soak-run";

/** What is left of an episode: which of its steps, and which parts of its configuration are plain. */
export interface Choice {
  readonly steps: readonly number[];
  readonly plain: readonly string[];
}

export interface Shrunk {
  readonly choice: Choice;
  readonly outcome: Outcome;
  readonly runs: number;
}

/** A failure that depends on time does not show every time. */
const ATTEMPTS = 2;

export function applied({ config, steps }: Episode, { steps: kept, plain }: Choice): Episode {
  const chosen = kept.flatMap((index) => steps[index] ?? []);
  return { config: plainer(config, plain), steps: chosen };
}

/** Parts of the configuration that are not plain and may be. */
function notPlain(config: Config): string[] {
  return PLAIN_KEYS.filter((key) => {
    const name = key as keyof Config;
    return JSON.stringify(config[name]) !== JSON.stringify(PLAIN[name]);
  });
}

/**
 * Shrinks an episode that has failed with `outcome`. `run` runs an episode; `goOn` says whether
 * there is time for another run.
 */
export async function shrink(
  episode: Episode,
  outcome: Outcome,
  run: (episode: Episode) => Promise<Outcome>,
  goOn: () => boolean,
): Promise<Shrunk> {
  let runs = 0;
  const last = Math.min(outcome.survived + 1, episode.steps.length);
  let best: Choice = { steps: Array.from({ length: last }, (_, i) => i), plain: [] };
  let found = outcome;
  const fails = async (choice: Choice): Promise<boolean> => {
    for (let attempt = 0; attempt < ATTEMPTS && goOn(); attempt++) {
      runs++;
      const result = await run(applied(episode, choice));
      if (result.failure === undefined) continue;
      [best, found] = [choice, result];
      return true;
    }
    return false;
  };
  // Halves first, then less and less, down to single steps.
  for (let size = Math.ceil(last / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < best.steps.length && goOn(); ) {
      const steps = [...best.steps.slice(0, at), ...best.steps.slice(at + size)];
      if (!(await fails({ ...best, steps }))) at += size;
    }
  }
  for (const key of notPlain(episode.config)) {
    if (goOn()) await fails({ ...best, plain: [...best.plain, key] });
  }
  return { choice: best, outcome: found, runs };
}

/** What to type to see it again. */
export function reproduction(
  seed: number,
  number: number,
  { steps, plain }: Choice,
  planted: boolean,
): string {
  const words = [`--seed ${seed} --episode ${number} --steps ${steps.map((i) => i + 1).join(",")}`];
  if (plain.length > 0) words.push(`--plain ${plain.join(",")}`);
  if (planted) words.push("--planted");
  return `make soak SOAK="${words.join(" ")}"`;
}
