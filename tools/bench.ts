/**
 * `make bench`: drivers side by side on one backend, in one run. Prints a table, writes
 * build/bench.json and build/bench.html. Exit status: 0 measured, 1 nothing could be measured or
 * our own driver failed, 2 wrong usage, 3 the machine lacks something.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { EnvironmentError, messageOf } from "../test/harness/src/errors";
import { exitOnSignals } from "../test/harness/src/run-scope";
import { type Case, casesFor, idOf, RING_FORMATS, type RingFormat, titleOf } from "./bench-cases";
import { CONTENDERS, type Contender } from "./bench-contenders";
import { page } from "./bench-html";
import { describeMachine, measurementUnavailable } from "./bench-machine";
import { caseTable, machineLines, type Results } from "./bench-report";
import { type CaseResult, runCase } from "./bench-run";
import { measureTimes, timesTable } from "./bench-times";

const STATUS_FAILED = 1;
const STATUS_USAGE = 2;
const STATUS_ENVIRONMENT = 3;
const SAMPLES = 5;
const JSON_FILE = "build/bench.json";
const PAGE_FILE = "build/bench.html";

const USAGE = `usage: make bench [BENCH='options']

  --quick            split and packed, frames of 64 bytes, forward one way; no times
  --only PATTERN     only cases and contenders whose 'case contender' matches the expression;
                     'times' stands for latency, boot, size and memory
  --formats LIST     of ${RING_FORMATS.join(",")} (default: all)
  --add              keeps the cases of ${JSON_FILE} that this run leaves out, so that a long
                     run can be made in pieces; they have to be of the same machine and commit
  --samples N        seconds a contender and case, 5 at least (default: 5)
  --backend-cpu N    CPU of testpmd (default: 1)
  --driver-cpu N     CPU of the driver (default: 0)
  --json             the results as JSON on standard output, the table on standard error
  --list             names cases and contenders without running them

Writes ${JSON_FILE} and ${PAGE_FILE}. The figures are those of the backend, DPDK's testpmd.
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

async function measure(options: Options, show: (text: string) => void): Promise<Results> {
  const machine = await describeMachine();
  show(machineLines(machine));
  const cases = casesFor(options.formats, options.quick);
  const taking = cases.filter((what) => contendersOf(what, options).length > 0);
  const everybody = CONTENDERS.filter((contender) =>
    taking.some((what) => contendersOf(what, options).includes(contender)),
  );
  mkdirSync("build/bench", { recursive: true });
  const unavailable = await findUnavailable(everybody, progress);
  const results: CaseResult[] = [];
  for (const what of taking) {
    const { samples, backendCpu, driverCpu } = options;
    const run = { samples, backendCpu, driverCpu, progress };
    const result = await runCase(what, contendersOf(what, options), unavailable, run);
    results.push(result);
    if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
    show(`\n${caseTable(result)}`);
  }
  const common = { machine, samples: options.samples, cases: results };
  if (options.quick || !options.only.test("times")) return common;
  const times = await measureTimes(options.driverCpu, progress);
  show(`\n${timesTable(times)}`);
  return { ...common, times };
}

/** Our own driver must not be missing from a table that is about it. */
function ownFailures({ cases }: Results): string[] {
  return cases.flatMap(({ case: what, rows }) =>
    rows
      .filter(({ skipped }) => skipped?.startsWith("did not run") === true)
      .filter((row) => CONTENDERS.find(({ id }) => id === row.contender)?.ours === true)
      .map(({ name, skipped }) => `${titleOf(what)}: ${name} ${skipped}`),
  );
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
    return 0;
  }
  const reason = measurementUnavailable();
  if (reason !== undefined) throw new EnvironmentError(`bench: ${reason}`);
  const results = await measure(options, options.json ? console.error : console.log);
  const text = `${JSON.stringify(results, null, 2)}\n`;
  writeFileSync(JSON_FILE, text);
  writeFileSync(PAGE_FILE, page(results));
  if (options.json) process.stdout.write(text);
  else console.log(`\nwritten: ${JSON_FILE}, ${PAGE_FILE}`);
  const failures = ownFailures(results);
  for (const failure of failures) console.error(failure);
  const measured = results.cases.some(({ rows }) => rows.some(({ samples }) => samples.length > 0));
  return failures.length > 0 || !(measured || results.times) ? STATUS_FAILED : 0;
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
