// Cases kept in files: a file a case, in the text form of cases.ts. Used by the fuzzer and by
// regressions.test.ts.

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Case, formatCase, parseCase } from "./cases";

/** Those that reach something that no other one reaches, or that have found something once. */
export const CORPUS = "test/hostile/corpus";
const SUFFIX = ".case";

export interface NamedCase {
  readonly path: string;
  readonly case: Case;
}

/** All cases of a folder. Throws an error that names the file which is damaged. */
export function readCorpus(folder: string): NamedCase[] {
  const names = readdirSync(folder).filter((name) => name.endsWith(SUFFIX));
  return names.sort().map((name) => {
    const path = join(folder, name);
    return { path, case: parseCase(path, readFileSync(path, "utf8")) };
  });
}

/** Writes a case to a file that is named after its content; answers the path. */
export function writeCase(folder: string, one: Case): string {
  const text = formatCase(one);
  const hash = createHash("sha256").update(text).digest("hex").slice(0, 12);
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${one.setup}-${hash}${SUFFIX}`);
  writeFileSync(path, text);
  return path;
}
