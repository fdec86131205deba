/**
 * `make fuzz`: hostile cases by the million, guided by what they reach of drivers/. Each worker is a
 * thread with guests of its own (test/hostile/fuzzer.ts); what one finds the others learn. Prints a
 * line now and then, the coverage at the end, and each case that finds something, cut down; these
 * go to build/fuzz/. Exit status 1 if there is one.
 */
import { mkdirSync, rmSync } from "node:fs";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { exitOnSignals } from "../test/harness/src/run-scope";
import type { Case } from "../test/hostile/cases";
import { formatCase } from "../test/hostile/cases";
import { CORPUS, readCorpus, writeCase } from "../test/hostile/corpus";
import { type Failure, type Found, Fuzzer, type Tally } from "../test/hostile/fuzzer";
import {
  buildCoverageModule,
  formatCoverage,
  percentages,
  reportCoverage,
} from "./coverage-module";
import { FIRST_POINT } from "./instrument";

const USAGE = `usage: make fuzz [FUZZ='options']

  --cases N       how many cases in all (default: 1000000)
  --seconds N     ends sooner, after so many seconds
  --workers N     threads (default: 2)
  --seed N        another seed is another run (default: 1)
  --missed        name the places that no case has reached
  --save          add to ${CORPUS} what reaches something new`;

const FAILURES = "build/fuzz";
const FAILURES_MAX = 20;
const REPORT_MS = 10_000;
/** Cases that a worker carries out before it looks for messages. */
const BATCH = 500;

interface Plan {
  readonly module: string;
  readonly points: number;
  readonly seed: number;
  readonly cases: number;
  readonly corpus: readonly Case[];
}

type Message =
  | { readonly type: "found"; readonly found: Found }
  | { readonly type: "failure"; readonly failure: Failure }
  | { readonly type: "progress"; readonly cases: number }
  | {
      readonly type: "done";
      readonly cases: number;
      readonly lapses: number;
      readonly tally: Tally;
    };

// ---- a worker ----------------------------------------------------------------------------------

async function work(plan: Plan): Promise<void> {
  const port = parentPort;
  if (port === null) throw new Error("a worker without a parent");
  const counters = { first: FIRST_POINT, count: plan.points };
  const fuzzer = new Fuzzer(plan.module, counters, plan.seed);
  let stopped = false;
  port.on("message", (message: Case | "stop") => {
    if (message === "stop") stopped = true;
    else fuzzer.learn(message);
  });
  const tell = (result: Found | Failure | undefined) => {
    if (result === undefined) return;
    if ("faults" in result)
      port.postMessage({ type: "failure", failure: result } satisfies Message);
    else port.postMessage({ type: "found", found: result } satisfies Message);
  };
  for (const one of plan.corpus) tell(fuzzer.try(one));
  while (!stopped && fuzzer.cases < plan.cases) {
    const end = Math.min(plan.cases, fuzzer.cases + BATCH);
    while (fuzzer.cases < end) tell(fuzzer.next());
    port.postMessage({ type: "progress", cases: fuzzer.cases } satisfies Message);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { cases, lapses, tally } = fuzzer;
  port.postMessage({ type: "done", cases, lapses, tally } satisfies Message);
  port.close();
}

// ---- the main thread ---------------------------------------------------------------------------

class Campaign {
  private readonly seen: Uint8Array;
  private readonly cases: number[];
  private readonly workers: Worker[] = [];
  private readonly kept: Case[] = [];
  private readonly failures: Failure[] = [];
  private readonly begin = performance.now();
  private lapses = 0;
  private readonly tally = new Map<string, { readonly cases: number; readonly boots: number }>();
  private lastReport = 0;

  constructor(
    private readonly points: number,
    private readonly saves: boolean,
    workers: number,
  ) {
    this.seen = new Uint8Array(points);
    this.cases = Array.from({ length: workers }, () => 0);
  }

  get total(): number {
    return this.cases.reduce((sum, cases) => sum + cases, 0);
  }

  async run(plan: Plan, seconds: number): Promise<void> {
    const timer = setTimeout(() => this.stop(), seconds * 1000);
    const share = Math.ceil(plan.cases / this.cases.length);
    const ends = this.cases.map((_, index) => {
      const workerPlan = { ...plan, cases: share, seed: plan.seed + index * 0x9e37 };
      const worker = new Worker(new URL(import.meta.url), { workerData: workerPlan });
      this.workers.push(worker);
      worker.on("message", (message: Message) => this.receive(index, message));
      return new Promise<void>((resolve, reject) => {
        worker.on("error", reject);
        worker.on("exit", () => resolve());
      });
    });
    await Promise.all(ends);
    clearTimeout(timer);
    this.report();
  }

  private stop(): void {
    for (const worker of this.workers) worker.postMessage("stop");
  }

  private receive(index: number, message: Message): void {
    if (message.type === "found") this.find(index, message.found);
    else if (message.type === "failure") this.fail(message.failure);
    else {
      this.cases[index] = message.cases;
      if (message.type === "done") this.end(message.lapses, message.tally);
      else if (performance.now() - this.lastReport > REPORT_MS) this.report();
    }
  }

  private end(lapses: number, tally: Tally): void {
    this.lapses += lapses;
    for (const { boots, cases, setup } of tally) {
      const known = this.tally.get(setup) ?? { cases: 0, boots: 0 };
      this.tally.set(setup, { cases: known.cases + cases, boots: known.boots + boots });
    }
  }

  private find(index: number, found: Found): void {
    const isNew = found.points.some((point) => this.seen[point] === 0);
    for (const point of found.points) this.seen[point] = 1;
    this.workers.forEach((worker, other) => {
      if (other !== index) worker.postMessage(found.case);
    });
    if (!isNew) return;
    this.kept.push(found.case);
    if (this.saves) writeCase(CORPUS, found.case);
  }

  private fail(failure: Failure): void {
    if (this.failures.length >= FAILURES_MAX) return;
    this.failures.push(failure);
    const path = writeCase(FAILURES, failure.case);
    console.log(`${path}: ${failure.faults.join("; ")}\n${formatCase(failure.case)}`);
    if (this.failures.length === FAILURES_MAX) this.stop();
  }

  private report(): void {
    this.lastReport = performance.now();
    const seconds = (this.lastReport - this.begin) / 1000;
    const rate = Math.round(this.total / Math.max(0.001, seconds));
    const reached = this.seen.reduce((sum, hit) => sum + hit, 0);
    const state = `${reached} of ${this.points} places, ${this.failures.length} failures`;
    console.log(`${this.total} cases, ${seconds.toFixed(0)} s, ${rate}/s, ${state}`);
  }

  /** The last lines; the exit status. */
  finish(points: Parameters<typeof reportCoverage>[0], showsMissed: boolean): number {
    const report = reportCoverage(points, this.seen);
    console.log(formatCoverage(report));
    if (showsMissed) console.log(report.missed.join("\n"));
    console.log(`lapses: ${this.lapses}; cases that reached something new: ${this.kept.length}`);
    const { branches, lines } = percentages(report);
    const share = `${lines.toFixed(1)} % of lines, ${branches.toFixed(1)} % of branches`;
    console.log(`drivers/ by ${this.total} hostile cases alone: ${share}`);
    const all = [...this.tally];
    const cases = all.map(([setup, ran]) => `${setup} ${ran.cases}`);
    const boots = all.reduce((sum, [, ran]) => sum + ran.boots, 0);
    console.log(`cases of each setup: ${cases.join(", ")}; guests booted for them: ${boots}`);
    console.log(`fuzz: ${this.total} cases, ${this.failures.length} failures`);
    return this.failures.length > 0 ? 1 : 0;
  }
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new Error(`--${name} wants a number, not ${text}`);
  return value;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      cases: { type: "string", default: "1000000" },
      seconds: { type: "string", default: "86400" },
      workers: { type: "string", default: "2" },
      seed: { type: "string", default: "1" },
      missed: { type: "boolean", default: false },
      save: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const corpus = readCorpus(CORPUS).map((named) => named.case);
  console.log(`fuzz: ${corpus.length} cases in the corpus; building the module with counters`);
  const { path, points } = buildCoverageModule();
  rmSync(FAILURES, { recursive: true, force: true });
  mkdirSync(FAILURES, { recursive: true });
  const campaign = new Campaign(points.length, values.save, positive("workers", values.workers));
  const [seed, cases] = [positive("seed", values.seed), positive("cases", values.cases)];
  const plan = { module: path, points: points.length, seed, cases, corpus };
  await campaign.run(plan, positive("seconds", values.seconds));
  return campaign.finish(points, values.missed);
}

if (isMainThread) {
  exitOnSignals();
  try {
    process.exitCode = await main();
  } catch (error) {
    console.error(`fuzz: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
} else {
  await work(workerData as Plan);
}
