// `make bench` itself, with one contender: a whole run, and runs in which something is missing or
// dies. Whatever happens, there is a sentence and a status, and nothing stays behind.

import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, suite, type TestContext } from "qemu-test-harness";
import { Program, until } from "../../tools/bench-backend";
import { measurementUnavailable } from "../../tools/bench-machine";
import type { Results } from "../../tools/bench-report";
import { RUN_VARIABLE } from "../harness/src/run-scope";

const BENCH = "build/tools/bench.mjs";
const CASE = "^tx-split-60 vireo-process$";
const RUN_TIMEOUT_MS = 60_000;
const GONE_TIMEOUT_MS = 5000;
const STATUS_FAILED = 1;
const STATUS_ENVIRONMENT = 3;
const STATUS_TERMINATED = 128 + 15;

const test = suite("bench run", { timeoutMs: 90_000 });

interface Run {
  readonly program: Program;
  readonly output: string;
  /** Its temporary directory: what is in there afterwards was left behind. */
  readonly scratch: string;
}

function needBench(t: TestContext): void {
  const reason = measurementUnavailable();
  if (reason !== undefined) t.skip(reason);
}

/** Starts the benchmark with one case and one contender, on small pages. */
function startBench(t: TestContext, path = process.env.PATH ?? ""): Run {
  const folder = mkdtempSync(join(tmpdir(), "vireo-bench-"));
  t.cleanup(async () => rmSync(folder, { recursive: true, force: true }));
  const [output, scratch] = [join(folder, "output"), join(folder, "scratch")];
  mkdirSync(scratch);
  const words = ["--no-hugepages", "--only", CASE, "--output", output];
  // A run of its own, not a part of this test's.
  const environment = ["-u", RUN_VARIABLE, `PATH=${path}`, `TMPDIR=${scratch}`];
  const command = ["env", ...environment, process.execPath, BENCH, ...words];
  const program = new Program("bench", command);
  t.cleanup(() => program.stop());
  return { program, output, scratch };
}

async function ended({ program }: Run): Promise<number | null> {
  const { lines } = program;
  await until(
    () => program.ended,
    RUN_TIMEOUT_MS,
    () => `bench does not end:\n${lines.join("\n")}`,
  );
  return program.process.child.exitCode;
}

/** Processes that the benchmark has started, by what stands in their command lines. */
function children({ program }: Run, word: string): number[] {
  const pid = program.process.child.pid ?? 0;
  const path = `/proc/${pid}/task/${pid}/children`;
  const listed = existsSync(path) ? readFileSync(path, "utf8").trim().split(" ") : [];
  return listed
    .filter((child) => child !== "" && existsSync(`/proc/${child}/cmdline`))
    .filter((child) => readFileSync(`/proc/${child}/cmdline`, "utf8").includes(word))
    .map(Number);
}

/** Has not ended, even if nobody has asked for its status yet. */
function isThere(pid: number): boolean {
  const path = `/proc/${pid}/status`;
  return existsSync(path) && !/State:\s*Z/.test(readFileSync(path, "utf8"));
}

/** Waits until samples are taken; answers the pids of backend and driver. */
async function untilMeasuring(run: Run): Promise<number[]> {
  const { program } = run;
  const said = (text: string) => program.lines.some((line) => line.includes(text));
  const seen = () => program.ended || said("(1/5");
  await until(seen, RUN_TIMEOUT_MS, () => `no sample:\n${program.tail()}`);
  program.check();
  const pids = [...children(run, "testpmd"), ...children(run, "--socket")];
  assert.is(pids.length, 2, `bench has started ${pids}`);
  return pids;
}

/** What is ended by force is gone soon, not at once. */
async function assertNothingLeft({ scratch }: Run, pids: readonly number[]): Promise<void> {
  const left = () => pids.filter(isThere);
  await until(
    () => left().length === 0,
    GONE_TIMEOUT_MS,
    () => `processes left: ${left()}`,
  );
  assert.equal(readdirSync(scratch), [], "sockets left");
}

test("a run has five samples a contender, on small pages too, and leaves nothing", async (t) => {
  needBench(t);
  const run = startBench(t);
  const pids = await untilMeasuring(run);
  const status = await ended(run);
  const text = run.program.lines.join("\n");
  assert.is(status, 0, text);
  assert.match(text, /TX, split, 64 bytes .*all on small pages/);
  assert.match(text, /vireo process +\d+\.\d\d Mpps/);
  const results = JSON.parse(readFileSync(join(run.output, "bench.json"), "utf8")) as Results;
  const [row, ...others] = results.cases[0]?.rows ?? [];
  assert.is(others.length, 0);
  assert.is(row?.samples.length, 5);
  assert.ok(row?.samples.every((rate) => rate > 0));
  assert.is(row?.own?.interrupts, 0);
  assert.match(readFileSync(join(run.output, "bench.html"), "utf8"), /<svg /);
  await assertNothingLeft(run, pids);
});

test("a backend that dies in the middle is a row's reason and status 1", async (t) => {
  needBench(t);
  const run = startBench(t);
  const pids = await untilMeasuring(run);
  for (const pid of children(run, "testpmd")) process.kill(pid, "SIGKILL");
  const status = await ended(run);
  const text = run.program.lines.join("\n");
  assert.is(status, STATUS_FAILED, text);
  // The driver may be the one that is asked first; it says why it has ended.
  const reasons =
    /skipped: failed: (testpmd has ended|vireo process has ended[\s\S]*backend has closed)/;
  assert.match(text, reasons);
  await assertNothingLeft(run, pids);
});

test("a backend that makes no socket is a row's reason and status 1", async (t) => {
  needBench(t);
  const folder = mkdtempSync(join(tmpdir(), "vireo-path-"));
  t.cleanup(async () => rmSync(folder, { recursive: true, force: true }));
  const broken = join(folder, "dpdk-testpmd");
  writeFileSync(broken, "#!/bin/sh\necho EAL: no memory here\nexit 1\n");
  chmodSync(broken, 0o755);
  const run = startBench(t, `${folder}:${process.env.PATH}`);
  const status = await ended(run);
  const text = run.program.lines.join("\n");
  assert.is(status, STATUS_FAILED, text);
  assert.match(text, /vireo process skipped: failed: testpmd has ended/);
  assert.match(text, /EAL: no memory here/);
  await assertNothingLeft(run, []);
});

test("a machine without the programs is a sentence and status 3", async (t) => {
  const run = startBench(t, "/nonexistent");
  const status = await ended(run);
  assert.is(status, STATUS_ENVIRONMENT, run.program.tail());
  assert.match(run.program.tail(), /not installed: dpdk-testpmd/);
});

test("asked to end, it ends all that it has started", async (t) => {
  needBench(t);
  const run = startBench(t);
  const pids = await untilMeasuring(run);
  run.program.process.kill("SIGTERM");
  assert.is(await ended(run), STATUS_TERMINATED, run.program.tail());
  await assertNothingLeft(run, pids);
});

test.run();
