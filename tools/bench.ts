/**
 * `make bench`: drivers side by side on one backend, in one run. Prints a table, writes
 * build/bench.json and build/bench.html. Exit status: 0 measured, 1 nothing could be measured or
 * our own driver failed, 2 wrong usage, 3 the machine lacks something.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { EnvironmentError, messageOf } from "../test/harness/src/errors";
import { exitOnSignals } from "../test/harness/src/run-scope";
import { BOOT_CASES, measureBoot } from "./bench-boot";
import { type Case, casesFor, idOf, RING_FORMATS, type RingFormat, titleOf } from "./bench-cases";
import { CONTENDERS, type Contender } from "./bench-contenders";
import { page } from "./bench-html";
import { LATENCY_GUESTS, measureLatency } from "./bench-latency";
import { describeMachine, measurementUnavailable } from "./bench-machine";
import {
  BOOT_COLUMNS,
  BOOT_TITLE,
  bootCells,
  caseTable,
  LATENCY_COLUMNS,
  LATENCY_TITLE,
  latencyCells,
  machineLines,
  type Results,
  summariesOf,
  summaryTable,
  timesTable,
  withEarlier,
} from "./bench-report";
import { type CaseResult, runCase } from "./bench-run";

const STATUS_FAILED = 1;
const STATUS_USAGE = 2;
const STATUS_ENVIRONMENT = 3;
const SAMPLES = 5;
const OUTPUT = "build";
const JSON_NAME = "bench.json";
const PAGE_NAME = "bench.html";

const USAGE = `usage: make bench [BENCH='options']

  --quick            split and packed, frames of 64 bytes, forward one way; no
                     latency and no boot
  --only PATTERN     only what matches the expression, of the lines that --list prints
  --formats LIST     of ${RING_FORMATS.join(",")} (default: all)
  --add              keeps the cases of ${JSON_NAME} that this run leaves out, so that a long
                     run can be made in pieces; they have to be of the same machine and commit
  --samples N        seconds a contender and case, 5 at least (default: 5)
  --backend-cpu N    CPU of testpmd (default: 1)
  --driver-cpu N     CPU of the driver (default: 0)
  --no-hugepages     small pages for all; otherwise only where there are no large ones
  --output FOLDER    where ${JSON_NAME} and ${PAGE_NAME} go (default: ${OUTPUT})
  --json             the results as JSON on standard output, the table on standard error
  --list             names what would be measured, case and contender, without running it

The figures are those of the backend, DPDK's testpmd.
Wants root (hugepages, namespaces), two idle CPUs, and some minutes.`;

class UsageError extends Error {}

function wholeNumber(name: string, text: string, least: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least) return value;
  throw new UsageError(`--${name} wants a whole number from ${least} on, not '${text}'`);
}

function formatsIn(text: string): RingFormat[] {
  return text.split(",").map((name) => {
    const format = RING_FORMATS.find((known) => known === name);
    if (format === undefined) {
      throw new UsageError(`--formats: '${name}' is not one of ${RING_FORMATS.join(", ")}`);
    }
    return format;
  });
}

function readOptions(args: readonly string[]) {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: "boolean", default: false },
      only: { type: "string", default: "" },
      formats: { type: "string", default: RING_FORMATS.join(",") },
      samples: { type: "string", default: String(SAMPLES) },
      "backend-cpu": { type: "string", default: "1" },
      "driver-cpu": { type: "string", default: "0" },
      add: { type: "boolean", default: false },
      "no-hugepages": { type: "boolean", default: false },
      output: { type: "string", default: OUTPUT },
      json: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  let only: RegExp;
  try {
    only = new RegExp(values.only);
  } catch (error) {
    throw new UsageError(`--only: ${messageOf(error)}`);
  }
  return {
    ...values,
    only,
    formats: formatsIn(values.formats),
    samples: wholeNumber("samples", values.samples, SAMPLES),
    backendCpu: wholeNumber("backend-cpu", values["backend-cpu"], 0),
    driverCpu: wholeNumber("driver-cpu", values["driver-cpu"], 0),
    hugepages: !values["no-hugepages"],
  };
}

type Options = ReturnType<typeof readOptions>;

function contendersOf(what: Case, { only }: Options): Contender[] {
  return CONTENDERS.filter(({ id }) => only.test(`${idOf(what)} ${id}`));
}

/** Finds out who can run here at all, and builds what they need. */
async function findUnavailable(
  contenders: readonly Contender[],
  say: (text: string) => void,
): Promise<Map<string, string>> {
  const reasons = new Map<string, string>();
  for (const contender of contenders) {
    say(`preparing ${contender.name}`);
    try {
      const reason = await contender.unavailable();
      if (reason === undefined) await contender.prepare();
      else reasons.set(contender.id, reason);
    } catch (error) {
      reasons.set(contender.id, `cannot be set up: ${messageOf(error)}`);
    }
  }
  return reasons;
}

/** On a terminal the line is written over, in a file every line stays. */
function progress(text: string): void {
  const seconds = (performance.now() / 1000).toFixed(0).padStart(4);
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${seconds} s  ${text}`);
  else process.stderr.write(`${seconds} s  ${text}\n`);
}

function endProgress(): void {
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
}

/** Whose round trips and boots are asked for; a quick run has none. */
function timesOf({ quick, only }: Options) {
  const asked = (kind: string) => (what: { readonly id: string }) =>
    !quick && only.test(`${kind} ${what.id}`);
  return {
    latency: LATENCY_GUESTS.filter(asked("latency")),
    boot: BOOT_CASES.filter(asked("boot")),
  };
}

async function measureCases(
  options: Options,
  show: (text: string) => void,
  keep: (cases: readonly CaseResult[]) => void,
) {
  const cases = casesFor(options.formats, options.quick);
  const taking = cases.filter((what) => contendersOf(what, options).length > 0);
  const everybody = CONTENDERS.filter((contender) =>
    taking.some((what) => contendersOf(what, options).includes(contender)),
  );
  const unavailable = await findUnavailable(everybody, progress);
  const results: CaseResult[] = [];
  for (const what of taking) {
    const { samples, backendCpu, driverCpu, hugepages } = options;
    const run = { samples, backendCpu, driverCpu, hugepages, progress };
    const result = await runCase(what, contendersOf(what, options), unavailable, run);
    results.push(result);
    keep(results);
    endProgress();
    show(`\n${caseTable(result)}`);
  }
  return results;
}

/** `keep` gets what there is after each case, so that an interrupted run is not for nothing. */
async function measure(
  options: Options,
  show: (text: string) => void,
  keep: (results: Results) => void,
): Promise<Results> {
  const machine = await describeMachine();
  const { samples } = options;
  show(machineLines(machine));
  mkdirSync("build/bench", { recursive: true });
  const cases = await measureCases(options, show, (soFar) =>
    keep({ machine, samples, cases: soFar }),
  );
  const times = timesOf(options);
  const cpus = { driver: options.driverCpu, backend: options.backendCpu };
  const latency = await measureLatency(times.latency, cpus, progress);
  const boot = await measureBoot(times.boot, progress);
  endProgress();
  return {
    ...{ machine, samples, cases },
    ...(latency.length > 0 ? { latency } : {}),
    ...(boot.length > 0 ? { boot } : {}),
  };
}

/** What was measured, a contender a line, as far as there is more than one case. */
function showSummaries(results: Results, show: (text: string) => void): void {
  const { cases, latency, boot } = results;
  const summaries = cases.length > 1 ? summariesOf(results) : [];
  for (const summary of summaries) show(`\n${summaryTable(summary)}`);
  if (latency !== undefined) {
    show(`\n${timesTable(LATENCY_TITLE, LATENCY_COLUMNS, latency, latencyCells)}`);
  }
  if (boot !== undefined) show(`\n${timesTable(BOOT_TITLE, BOOT_COLUMNS, boot, bootCells)}`);
}

/** The results of the run before, for --add; they have to be of this machine and commit. */
async function earlierResults(path: string): Promise<Results | undefined> {
  if (!existsSync(path)) return undefined;
  const earlier = JSON.parse(readFileSync(path, "utf8")) as Results;
  if (JSON.stringify(earlier.machine) === JSON.stringify(await describeMachine())) return earlier;
  throw new UsageError(
    `--add: ${path} is of another machine or commit; leave --add out to begin anew`,
  );
}

/** Our own driver must not be missing from a table that is about it. */
function ownFailures({ cases, latency = [], boot = [] }: Results): string[] {
  const isOurs = (id: string) => id.startsWith("vireo");
  const rates = cases.flatMap(({ case: what, rows }) =>
    rows
      .filter(({ contender, failed }) => failed === true && isOurs(contender))
      .map(({ name, skipped }) => `${titleOf(what)}: ${name}: ${skipped}`),
  );
  const times = [...latency, ...boot]
    .filter(({ id, skipped }) => skipped !== undefined && isOurs(id))
    .map(({ name, skipped }) => `${name}: ${skipped}`);
  return [...rates, ...times];
}

async function main(args: readonly string[]): Promise<number> {
  const options = readOptions(args);
  if (options.help) {
    console.log(USAGE);
    return 0;
  }
  if (options.list) {
    for (const what of casesFor(options.formats, options.quick)) {
      for (const { id } of contendersOf(what, options)) console.log(`${idOf(what)} ${id}`);
    }
    const { latency, boot } = timesOf(options);
    for (const { id } of latency) console.log(`latency ${id}`);
    for (const { id } of boot) console.log(`boot ${id}`);
    return 0;
  }
  const reason = measurementUnavailable();
  if (reason !== undefined) throw new EnvironmentError(`bench: ${reason}`);
  const jsonFile = join(options.output, JSON_NAME);
  const pageFile = join(options.output, PAGE_NAME);
  const earlier = options.add ? await earlierResults(jsonFile) : undefined;
  mkdirSync(options.output, { recursive: true });
  const show = options.json ? console.error : console.log;
  const all = casesFor(RING_FORMATS, false);
  const whole = (part: Results) => (earlier === undefined ? part : withEarlier(part, earlier, all));
  const keep = (results: Results) => {
    const text = `${JSON.stringify(results, null, 2)}\n`;
    writeFileSync(jsonFile, text);
    writeFileSync(pageFile, page(results));
    return text;
  };
  const measured = await measure(options, show, (part) => keep(whole(part)));
  const results = whole(measured);
  showSummaries(results, show);
  const text = keep(results);
  if (options.json) process.stdout.write(text);
  else console.log(`\nwritten: ${jsonFile}, ${pageFile}`);
  const failures = ownFailures(measured);
  for (const failure of failures) console.error(failure);
  return failures.length > 0 || !hasFigures(measured) ? STATUS_FAILED : 0;
}

function hasFigures({ cases, latency = [], boot = [] }: Results): boolean {
  const rates = cases.some(({ rows }) => rows.some(({ samples }) => samples.length > 0));
  return rates || [...latency, ...boot].some(({ skipped }) => skipped === undefined);
}

exitOnSignals();
try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  console.error(messageOf(error));
  const code = (error as { code?: string }).code ?? "";
  if (error instanceof UsageError || code.startsWith("ERR_PARSE_ARGS")) process.exit(STATUS_USAGE);
  process.exit(error instanceof EnvironmentError ? STATUS_ENVIRONMENT : STATUS_FAILED);
}
