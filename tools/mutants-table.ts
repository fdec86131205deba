/**
 * The table of faults to put into a copy of the driver, one a line, and how they are put in. Used by
 * mutants.ts and test/hostile/mutants.test.ts.
 *
 *   test/mutants/mutants.jsonl   {"id", "file", "find", "replace", "tests"?}
 *
 * `id` is the clause that the fault breaks, perhaps with a word behind it, and then the clause's tests
 * must fail; or it says what is broken, and `tests` names the tests. `find` stands in the file once.
 */
import type { Link } from "./conformance-catalogue";

export interface Mutant {
  readonly id: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  /** Tests that must fail, as `suite › test` with `*` for anything. */
  readonly tests: readonly string[];
}

const FIELDS = ["id", "file", "find", "replace"] as const;

/** Reads the table; what is wrong with it goes to `problems`, with file and line. */
export function parseMutants(
  path: string,
  text: string,
  links: readonly Link[],
  problems: string[],
): Mutant[] {
  const linked = new Map(links.map(({ id, tests }) => [id, tests]));
  const mutants = new Map<string, Mutant>();
  text.split("\n").forEach((line, index) => {
    if (line === "") return;
    const problem = (what: string) => problems.push(`${path}:${index + 1}: ${what}`);
    let value: Record<string, unknown>;
    try {
      value = JSON.parse(line) as Record<string, unknown>;
    } catch (error) {
      problem(error instanceof Error ? error.message : "damaged");
      return;
    }
    const missing = FIELDS.filter((field) => typeof value[field] !== "string");
    if (missing.length > 0) {
      problem(`a mutant without ${missing.join()}`);
      return;
    }
    const { id, file, find, replace } = value as unknown as Mutant;
    const own = Array.isArray(value.tests) ? value.tests.map(String) : undefined;
    const tests = own ?? linked.get(id) ?? [];
    if (mutants.has(id)) problem(`${id} is there already`);
    else if (tests.length === 0) problem(`${id}: no such clause with tests, and no tests named`);
    else mutants.set(id, { id, file, find, replace, tests });
  });
  return [...mutants.values()];
}

/** The patched text. Throws an error that names the mutant when the patch does not apply. */
export function applyMutant({ file, find, id, replace }: Mutant, text: string): string {
  const parts = text.split(find);
  if (parts.length !== 2) {
    const times = parts.length - 1;
    throw new Error(`${id}: '${find}' stands ${times} times in ${file}: mend the patch`);
  }
  if (find === replace) throw new Error(`${id}: the patch changes nothing`);
  return parts.join(replace);
}

/** Every patch that does not apply to the file that it names, each as a problem. */
export function findMisfits(
  mutants: readonly Mutant[],
  readSource: (path: string) => string | undefined,
): string[] {
  return mutants.flatMap((mutant) => {
    const text = readSource(mutant.file);
    if (text === undefined) return [`${mutant.id}: there is no ${mutant.file}`];
    try {
      applyMutant(mutant, text);
      return [];
    } catch (error) {
      return [error instanceof Error ? error.message : String(error)];
    }
  });
}
