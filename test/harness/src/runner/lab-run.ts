// Runs in the lab the tests that this machine could not run, all in one boot, and puts their
// results where the deferred ones were: each test is counted once. Called by run.ts.
//
// The runner in the lab is this one. It is told the tests by name in a file (`--only`), finds the
// files already bundled, and leaves its results in a file below the build directory.

import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { build } from "esbuild";
import { EnvironmentError, messageOf } from "../errors";
import { describeLab, packageDirectory, prepareLab, runInLab } from "../lab/lab";
import { lineSplitter } from "../lines";
import { atExit, uniqueName } from "../run-scope";
import { testKey } from "./protocol";
import type { Progress } from "./report";
import type { FileResult, TestResult } from "./results";

/** The only tests to run, by file. */
export type Only = Readonly<Record<string, readonly string[]>>;

const LAB_RUN_TIMEOUT_MS = 900_000;
const DIRECTORY = "build/lab";

/** Reads the file of `--only`. */
export function readOnly(path: string): Only {
  if (!existsSync(path)) throw new EnvironmentError(`${path} does not exist: check --only`);
  return JSON.parse(readFileSync(path, "utf8")) as Only;
}

function deferredOf(results: readonly FileResult[]): Only {
  const only: Record<string, string[]> = {};
  for (const { file, suite, test, outcome } of results.flatMap((result) => result.tests)) {
    if (outcome !== "deferred") continue;
    const keys = only[file] ?? [];
    keys.push(testKey(suite, test));
    only[file] = keys;
  }
  return only;
}

/**
 * `results` with the deferred tests run in the lab; skipped, with the reason, where there can be no
 * lab; failed where the lab does not answer.
 */
export async function runDeferred(
  results: readonly FileResult[],
  artifacts: string,
  image: string | undefined,
  progress: Progress,
): Promise<FileResult[]> {
  const only = deferredOf(results);
  const count = Object.values(only).flat().length;
  if (count === 0) return [...results];
  try {
    await prepareLab();
  } catch (error) {
    if (!(error instanceof EnvironmentError)) throw error;
    const reason = (test: TestResult) => `${test.detail}; and no lab: ${error.message}`;
    return replace(results, (test) => ({ ...test, outcome: "skipped", detail: reason(test) }));
  }
  progress.print(`lab: ${count} tests need what this machine lacks and run in the lab`);
  const answer = await runThere(only, artifacts, image, progress);
  const merged = replace(results, (test) => answerTo(test, answer));
  for (const { file, suite, test, detail, artifacts: kept } of answer.others) {
    const failed: TestResult = {
      file: `${file} (lab)`,
      suite,
      test,
      outcome: "failed",
      durationMs: 0,
      detail: detail ?? "",
      artifacts: kept ?? [],
      lab: answer.release,
    };
    merged.push({ file: failed.file, durationMs: 0, tests: [failed], output: "" });
  }
  for (const file of Object.keys(only)) progress.file(labPart(merged, file, only[file] ?? []));
  return merged;
}

/** The tests of `file` that were for the lab, to be shown as a file of their own. */
function labPart(
  results: readonly FileResult[],
  file: string,
  keys: readonly string[],
): FileResult {
  const tests = results
    .filter((result) => result.file === file)
    .flatMap((result) => result.tests)
    .filter(({ suite, test }) => keys.includes(testKey(suite, test)));
  const durationMs = tests.reduce((sum, test) => sum + test.durationMs, 0);
  return { file: `${file} (lab)`, durationMs, tests, output: "" };
}

interface Answer {
  readonly release: string;
  readonly found: ReadonlyMap<string, TestResult>;
  /** Failures that belong to no test: a file that hangs, something left behind. */
  readonly others: readonly TestResult[];
  /** Why there may be less than was asked for. */
  readonly trouble: string;
}

function keyOf({ file, suite, test }: TestResult): string {
  return `${file}: ${testKey(suite, test)}`;
}

function answerTo(test: TestResult, answer: Answer): TestResult {
  const found = answer.found.get(keyOf(test));
  if (found !== undefined) return { ...found, lab: answer.release };
  const detail = `no result from the lab${answer.trouble}`;
  return { ...test, outcome: "failed", detail };
}

function replace(
  results: readonly FileResult[],
  by: (test: TestResult) => TestResult,
): FileResult[] {
  return results.map((result) => ({
    ...result,
    tests: result.tests.map((test) => (test.outcome === "deferred" ? by(test) : test)),
  }));
}

async function runThere(
  only: Only,
  artifacts: string,
  image: string | undefined,
  progress: Progress,
): Promise<Answer> {
  const directory = join(resolve(DIRECTORY), `run-${uniqueName()}`);
  mkdirSync(directory, { recursive: true });
  const remove = () => rmSync(directory, { recursive: true, force: true });
  const forget = atExit(remove);
  const path = (name: string) => join(directory, name);
  writeFileSync(path("only.json"), JSON.stringify(only));
  await bundleRunner(path("run.mjs"));
  const options = ["--only", path("only.json"), "--json", path("results.json")];
  const files = ["--junit", path("results.xml"), "--artifacts", path("artifacts")];
  const argv = ["node", path("run.mjs"), "run", ...options, ...files];
  if (image !== undefined) argv.push("--image", image);
  let release = "";
  let trouble = "";
  const splitter = lineSplitter((line) => progress.print(`  lab | ${line}`));
  try {
    const result = await runInLab([...argv, ...Object.keys(only)], {
      onOutput: splitter,
      timeoutMs: LAB_RUN_TIMEOUT_MS,
    });
    release = result.release;
    progress.print(describeLab(result));
    trouble = `; its runner ended with status ${result.status}`;
  } catch (error) {
    trouble = `: ${messageOf(error)}`;
    progress.print(`lab${trouble}`);
  }
  splitter.end();
  const kept = join(artifacts, "lab");
  if (existsSync(path("artifacts"))) cpSync(path("artifacts"), kept, { recursive: true });
  const read = existsSync(path("results.json")) ? readResults(path("results.json")) : [];
  const tests = read.map((test) => movedArtifacts(test, path("artifacts"), kept));
  remove();
  forget();
  return { release, trouble, ...sorted(tests, only) };
}

/** The lab writes below the build directory only; what it kept is copied to where it is wanted. */
function movedArtifacts(test: TestResult, from: string, to: string): TestResult {
  if (test.artifacts === undefined) return test;
  return { ...test, artifacts: test.artifacts.map((path) => join(to, relative(from, path))) };
}

function sorted(tests: readonly TestResult[], only: Only) {
  const found = new Map<string, TestResult>();
  const others: TestResult[] = [];
  for (const test of tests) {
    const asked = only[test.file]?.includes(testKey(test.suite, test.test)) === true;
    if (asked) found.set(keyOf(test), test);
    else if (test.outcome === "failed") others.push(test);
  }
  return { found, others };
}

function readResults(path: string): TestResult[] {
  const { files } = JSON.parse(readFileSync(path, "utf8")) as { files: FileResult[] };
  return files.flatMap((file) => file.tests);
}

/** The command line as one module that the lab's node can run. */
export async function bundleRunner(outfile: string): Promise<void> {
  const source = join(packageDirectory(), "src/cli.ts");
  await build({
    stdin: {
      contents: `import { start } from ${JSON.stringify(source)};\nawait start();\n`,
      resolveDir: packageDirectory(),
    },
    outfile,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "esm",
    logLevel: "error",
    external: ["esbuild"],
  });
}
