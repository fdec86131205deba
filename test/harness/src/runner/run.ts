// Runs test files: finds them, runs unit files two at a time, then integration files one at a time
// except those that say that they share the machine, reports, and checks that nothing of the run is
// left. Called by the command line and by `make test`.

import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { EnvironmentError } from "../errors";
import { inLab } from "../lab/lab";
import { atExit, currentRun } from "../run-scope";
import { readOnly, runDeferred } from "./lab-run";
import { findLeftovers, sweep } from "./leftovers";
import { Progress, skipLines, writeJson, writeJunit } from "./report";
import { closingLine, countResults, type FileResult, type TestResult } from "./results";
import { type FileOptions, runFile } from "./run-file";

export interface RunOptions {
  /** Files and directories; directories are searched for *.test.ts. */
  readonly paths: readonly string[];
  readonly grep?: string;
  readonly jobs?: number;
  readonly list?: boolean;
  /** A JSON file that names the only tests to run: {"file": ["suite › test", …], …}. */
  readonly only?: string;
  /** Leaves out what would have to run in the lab. */
  readonly noLab?: boolean;
  readonly image?: string;
  readonly json?: string;
  readonly junit?: string;
  readonly noOutputMs?: number;
  /** Where the files of failed tests go. */
  readonly artifacts?: string;
}

const DEFAULT_NO_OUTPUT_MS = 120_000;
const DEFAULT_ARTIFACTS = "build/test-artifacts";
const SHARED_JOBS = 2;
const INTEGRATION = /(^|\/)(integration|bench)\//;
/** What an integration file says in a comment when its tests need no machine to themselves. */
const SHARES = /^\/\/ Shares the machine: /m;

/**
 * Runs everything and prints it; the result is the exit status: 0, or 1 for a failure or for no
 * test at all.
 */
export async function run(options: RunOptions): Promise<number> {
  const files = options.paths.flatMap(findTests);
  if (files.length === 0) {
    throw new EnvironmentError(`no *.test.ts in ${options.paths.join(", ")}: check the paths`);
  }
  const { image } = options;
  if (image !== undefined && !existsSync(image)) {
    throw new EnvironmentError(`image ${image} not found: build it with 'make image'`);
  }
  const begin = performance.now();
  const id = currentRun();
  const forget = atExit(() => sweep(id));
  if (!options.list) rmSync(artifactsOf(options), { recursive: true, force: true });
  const progress = new Progress(files.length);
  const here = await runAll(files, options, progress);
  if (options.list) return printList(here);
  const results = await runDeferred(here, artifactsOf(options), options.image, progress);
  const left = findLeftovers(id);
  if (left.length > 0) {
    const leftResult = leftoverFailure(left);
    progress.file(leftResult);
    results.push(leftResult);
  }
  sweep(id);
  forget();
  const seconds = (performance.now() - begin) / 1000;
  return conclude(results, options, progress, seconds);
}

function artifactsOf(options: RunOptions): string {
  return options.artifacts ?? DEFAULT_ARTIFACTS;
}

function findTests(path: string): string[] {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) throw new EnvironmentError(`${path} does not exist: check the path`);
  if (found.isFile()) return [path];
  const entries = readdirSync(path, { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(".test.ts"))
    .map((entry) => join(entry.parentPath ?? path, entry.name))
    .sort();
}

async function runAll(
  files: readonly string[],
  options: RunOptions,
  progress: Progress,
): Promise<FileResult[]> {
  const unit = files.filter((file) => !INTEGRATION.test(file));
  const integration = files.filter((file) => INTEGRATION.test(file));
  const sharing = integration.filter((file) => SHARES.test(readFileSync(file, "utf8")));
  const alone = integration.filter((file) => !sharing.includes(file));
  const groups = [
    { files: unit, jobs: options.jobs ?? SHARED_JOBS },
    { files: sharing, jobs: options.jobs ?? SHARED_JOBS },
    { files: alone, jobs: options.jobs ?? 1 },
  ];
  const results: FileResult[] = [];
  const only = options.only === undefined ? undefined : readOnly(options.only);
  let serial = 0;
  for (const group of groups) {
    const queue = [...group.files];
    const worker = async () => {
      for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
        const current = file;
        const chosen = only?.[current];
        const result = await runFile(current, {
          ...fileOptions(options, serial++, current, progress),
          ...(chosen === undefined ? {} : { only: chosen }),
        });
        if (!options.list) progress.file(result);
        results.push(result);
      }
    };
    await Promise.all(Array.from({ length: group.jobs }, worker));
  }
  return results;
}

function fileOptions(
  options: RunOptions,
  serial: number,
  file: string,
  progress: Progress,
): FileOptions {
  return {
    run: `${currentRun()}-${serial}`,
    artifacts: artifactsOf(options),
    noOutputMs: options.noOutputMs ?? DEFAULT_NO_OUTPUT_MS,
    mayDefer: !options.noLab && !inLab(),
    onLog: (text) => progress.log(text),
    onStart: (test) => progress.show(`${file}: ${test}`),
    ...(options.grep === undefined ? {} : { grep: options.grep }),
    ...(options.list === undefined ? {} : { list: options.list }),
    ...(options.image === undefined ? {} : { image: options.image }),
  };
}

function leftoverFailure(left: readonly string[]): FileResult {
  const test: TestResult = {
    file: "(run)",
    suite: "(run)",
    test: "nothing is left at the end",
    outcome: "failed",
    durationMs: 0,
    detail: left.join("\n"),
  };
  return { file: "(run)", durationMs: 0, tests: [test], output: "" };
}

function printList(results: readonly FileResult[]): number {
  let failed = 0;
  for (const { file, suite, test, outcome, detail } of results.flatMap((r) => r.tests)) {
    if (outcome === "failed") failed++;
    console.log(`${file}: ${suite} › ${test}${outcome === "failed" ? `: ${detail}` : ""}`);
  }
  return failed > 0 ? 1 : 0;
}

/** Prints what a reader wants last, writes the reports, and returns the exit status. */
function conclude(
  results: readonly FileResult[],
  options: RunOptions,
  progress: Progress,
  seconds: number,
): number {
  const tests = results.flatMap((result) => result.tests);
  for (const line of skipLines(tests)) progress.print(line);
  if (options.json !== undefined) writeJson(options.json, results);
  if (options.junit !== undefined) writeJunit(options.junit, results);
  const counts = countResults(tests);
  progress.print(`${results.length} test files in ${seconds.toFixed(1)} s`);
  progress.print(closingLine(counts));
  return counts.failed > 0 || counts.passed === 0 ? 1 : 0;
}
