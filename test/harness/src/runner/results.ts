// The results of test files as the runner keeps them. Made by run-file.ts, read by the reports.

import type { Outcome } from "./protocol";

export interface TestResult {
  readonly file: string;
  readonly suite: string;
  readonly test: string;
  readonly outcome: Outcome;
  readonly durationMs: number;
  readonly detail?: string;
  readonly artifacts?: readonly string[];
  /** The lab's kernel, for a test that ran there. */
  readonly lab?: string;
}

export interface FileResult {
  readonly file: string;
  readonly durationMs: number;
  readonly tests: readonly TestResult[];
  /** What the file wrote on its standard output and error. */
  readonly output: string;
}

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** How many tests ended in which way. */
export function countResults(tests: readonly TestResult[]): Counts {
  const of = (outcome: Outcome) => tests.filter((test) => test.outcome === outcome).length;
  return { passed: of("passed"), failed: of("failed"), skipped: of("skipped") };
}

/** The line that ends a run. */
export function closingLine({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}
