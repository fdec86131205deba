// `suite()`, with which authors write tests. It runs in the test file's own process: uvu calls the
// tests, and this file counts them itself, gives each a deadline, and reports to the runner.

import { suite as uvuSuite } from "uvu";
import { DeadlineError, SkipTest } from "../errors";
import { exitOnSignals } from "../run-scope";
import { TestContext } from "./context";
import { type Outcome, report, testKey, VARIABLES } from "./protocol";
import { type Requirement, whatIsMissing } from "./requirements";

export interface SuiteOptions {
  /** Deadline of each test in milliseconds; 10,000 unless given. */
  readonly timeoutMs?: number;
  /** What the machine must have; where it lacks it and the lab has it, the test runs there. */
  readonly requires?: readonly Requirement[];
}

export type Handler = (t: TestContext) => Promise<void> | void;
type Hook = () => Promise<void> | void;

export interface Suite {
  (name: string, handler: Handler, options?: SuiteOptions): void;
  /** For work at the desk: the runner fails a file that has one left in. */
  only(name: string, handler: Handler, options?: SuiteOptions): void;
  before: { (hook: Hook): void; each(hook: Hook): void };
  after: { (hook: Hook): void; each(hook: Hook): void };
  run(): void;
}

const DEFAULT_TIMEOUT_MS = 10_000;
const pending = new Set<string>();
let registered = 0;
let filtered = 0;

exitOnSignals();
process.on("exit", () => {
  report({ type: "done", registered, filtered, notRun: [...pending] });
});

/** A new suite; its tests start after its `run()`. */
export function suite(name: string, suiteOptions: SuiteOptions = {}): Suite {
  const inner = uvuSuite(name);
  const tests: string[] = [];
  const pattern = process.env[VARIABLES.grep];
  const grep = pattern === undefined ? undefined : new RegExp(pattern, "i");
  const chosen = process.env[VARIABLES.only];
  const keys = chosen === undefined ? undefined : new Set(JSON.parse(chosen) as string[]);
  let only = false;
  pending.add(name);

  const wanted = (test: string): boolean => {
    registered++;
    const unwanted = grep !== undefined && !grep.test(`${name} ${test}`);
    if (unwanted || keys?.has(testKey(name, test)) === false) {
      filtered++;
      return false;
    }
    tests.push(test);
    return true;
  };
  const settled = (options: SuiteOptions = {}): Required<SuiteOptions> => ({
    timeoutMs: options.timeoutMs ?? suiteOptions.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    requires: options.requires ?? suiteOptions.requires ?? [],
  });

  const add = (test: string, handler: Handler, options?: SuiteOptions) => {
    if (wanted(test)) inner(test, () => runTest(name, test, handler, settled(options)));
  };
  const addOnly = (test: string, handler: Handler, options?: SuiteOptions) => {
    only = true;
    if (wanted(test)) inner.only(test, () => runTest(name, test, handler, settled(options)));
  };
  const run = () => {
    pending.delete(name);
    report({ type: "suite", suite: name, tests, only });
    if (process.env[VARIABLES.list] === undefined && tests.length > 0) inner.run();
  };
  const hooks = (when: "before" | "after") =>
    Object.assign((hook: Hook) => inner[when](guarded(name, when, hook)), {
      each: (hook: Hook) => inner[when].each(guarded(name, `${when}.each`, hook)),
    });
  return Object.assign(add, { only: addOnly, before: hooks("before"), after: hooks("after"), run });
}

/** uvu may end with status 0 although a hook has thrown, so hooks report by themselves. */
function guarded(suiteName: string, hook: string, handler: Hook): Hook {
  return async () => {
    try {
      await handler();
    } catch (error) {
      report({ type: "hook", suite: suiteName, hook, detail: describe(error) });
      throw error;
    }
  };
}

async function runTest(
  suiteName: string,
  test: string,
  handler: Handler,
  { timeoutMs, requires }: Required<SuiteOptions>,
): Promise<void> {
  const t = new TestContext(suiteName, test);
  report({ type: "start", suite: suiteName, test, timeoutMs });
  const begin = performance.now();
  const end = (outcome: Outcome, detail?: string, artifacts: readonly string[] = []) => {
    const durationMs = Math.round(performance.now() - begin);
    const more = detail === undefined ? {} : { detail };
    report({ type: "end", suite: suiteName, test, outcome, durationMs, artifacts, ...more });
  };
  const missing = whatIsMissing(requires);
  if (missing !== undefined) {
    const mayDefer = missing.labHasIt && process.env[VARIABLES.mayDefer] !== undefined;
    return end(mayDefer ? "deferred" : "skipped", missing.reason);
  }
  const timer = setTimeout(() => {
    // The test's code cannot be stopped and would disturb the tests after it: the process ends
    // here, and its exit handlers end what it has started. The runner counts the tests that did not
    // run.
    const error = new DeadlineError(`the test exceeds its deadline of ${timeoutMs} ms`);
    end("failed", error.message, keepArtifacts(t));
    process.exit(1);
  }, timeoutMs);
  let failure: unknown;
  try {
    await handler(t);
  } catch (error) {
    failure = error;
  }
  clearTimeout(timer);
  try {
    await t.finish();
  } catch (error) {
    failure ??= error;
  }
  if (failure === undefined) return end("passed");
  if (failure instanceof SkipTest) return end("skipped", failure.message);
  end("failed", describe(failure), keepArtifacts(t));
  throw failure;
}

function keepArtifacts(t: TestContext): string[] {
  const root = process.env[VARIABLES.artifacts];
  return root === undefined ? [] : t.writeArtifacts(root);
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { details } = error as { details?: unknown };
  const difference = typeof details === "string" ? `\n${details}` : "";
  return `${error.stack ?? error.message}${difference}`;
}
