// What a test file's process tells the runner: one JSON object a line on file descriptor 3. Results
// do not travel on the standard output, where tests and QEMU may write what they like.

import { writeSync } from "node:fs";

/** `deferred`: this machine lacks something that the lab has; only while the runner may use it. */
export type Outcome = "passed" | "failed" | "skipped" | "deferred";

/** A suite's `run()` was called: these tests are going to run. */
export interface SuiteMessage {
  readonly type: "suite";
  readonly suite: string;
  readonly tests: readonly string[];
  readonly only: boolean;
}

export interface StartMessage {
  readonly type: "start";
  readonly suite: string;
  readonly test: string;
  readonly timeoutMs: number;
}

export interface EndMessage {
  readonly type: "end";
  readonly suite: string;
  readonly test: string;
  readonly outcome: Outcome;
  readonly durationMs: number;
  /** Of a failed test: the error with its stack. Of a skipped one: the reason. */
  readonly detail?: string;
  readonly artifacts?: readonly string[];
}

export interface HookMessage {
  readonly type: "hook";
  readonly suite: string;
  readonly hook: string;
  readonly detail: string;
}

export interface LogMessage {
  readonly type: "log";
  readonly text: string;
}

/** The process ends: what it had registered, and the suites whose `run()` was forgotten. */
export interface DoneMessage {
  readonly type: "done";
  readonly registered: number;
  readonly filtered: number;
  readonly notRun: readonly string[];
}

export type Message =
  | SuiteMessage
  | StartMessage
  | EndMessage
  | HookMessage
  | LogMessage
  | DoneMessage;

/** Set by the runner in a test file's environment. */
export const VARIABLES = {
  results: "QEMU_TEST_HARNESS_RESULTS",
  grep: "QEMU_TEST_HARNESS_GREP",
  list: "QEMU_TEST_HARNESS_LIST",
  artifacts: "QEMU_TEST_HARNESS_ARTIFACTS",
  /** The runner takes tests that this machine cannot run to the lab. */
  mayDefer: "QEMU_TEST_HARNESS_MAY_DEFER",
  /** A JSON array of the only tests to run, each as testKey() writes it. */
  only: "QEMU_TEST_HARNESS_ONLY",
} as const;

/** Names one test of a file. */
export function testKey(suite: string, test: string): string {
  return `${suite} › ${test}`;
}

const RESULTS_DESCRIPTOR = 3;

/** Tells the runner; synchronous, so that nothing is lost when the process exits right after. */
export function report(message: Message): void {
  if (process.env[VARIABLES.results] === undefined) return;
  writeSync(RESULTS_DESCRIPTOR, `${JSON.stringify(message)}\n`);
}
