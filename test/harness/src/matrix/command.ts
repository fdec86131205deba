// `qemu-test-harness matrix`: chooses backends and cells, runs here what this machine can and the
// rest in the lab, and writes the page. Called by cli.ts.

import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { EnvironmentError, messageOf, UsageError } from "../errors";
import { describeLab, prepareLab, runInLab } from "../lab/lab";
import { lineSplitter } from "../lines";
import { findQemu } from "../qemu";
import { atExit, uniqueName } from "../run-scope";
import { bundleRunner } from "../runner/lab-run";
import { defaultImage } from "../vm-options";
import { BACKENDS, type BackendName, cellsOf, idOf } from "./cells";
import { openCells, renderMatrix } from "./report";
import { type BackendRun, benchOf, runBackend, skipBackend } from "./run";
import { MatrixState } from "./state";

const STATUS_FAILED = 1;
const LAB_MS = 900_000;
const DEFAULT_MINUTES = 60;
/** Below the build directory, which the lab shares. */
const ARTIFACTS = "build/matrix-artifacts";

export const MATRIX_USAGE = `usage: qemu-test-harness matrix [options]

  Every combination of ring features and queue pairs on every backend, six cells a boot.

  --backend NAMES  only these, with commas: ${BACKENDS.join(", ")}
  --quick          of each backend only enough cells to have every two values together in one
  --cell NAME      only this cell (again for more), such as tap/packed+mrg/2
  --list           name the cells without running them
  --minutes N      begin no boot after so long (default: ${DEFAULT_MINUTES}); go on with --resume
  --resume         keep what has been found of the same image
  --state PATH     where that is kept (default: build/matrix.json)
  --docs PATH      write the page there, if every cell has a result
  --partial        write it although cells have no result; they are ? in it
  --image PATH     the image (default: build/vireo.elf)
  --no-lab         skip what this machine cannot run, instead of running it in the lab`;

interface Choice {
  readonly backends: readonly BackendName[];
  readonly only: ReadonlySet<string> | undefined;
  readonly quick: boolean;
  readonly resume: boolean;
  readonly list: boolean;
  readonly lab: boolean;
  readonly minutes: number;
  readonly statePath: string;
  readonly docs: string | undefined;
  readonly partial: boolean;
  readonly image: string | undefined;
}

function parse(args: readonly string[]): Choice {
  const { values } = parseArgs({
    args: [...args],
    options: {
      backend: { type: "string" },
      cell: { type: "string", multiple: true },
      quick: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      resume: { type: "boolean", default: false },
      minutes: { type: "string", default: String(DEFAULT_MINUTES) },
      state: { type: "string", default: "build/matrix.json" },
      docs: { type: "string" },
      partial: { type: "boolean", default: false },
      image: { type: "string" },
      "no-lab": { type: "boolean", default: false },
    },
  });
  const minutes = Number(values.minutes);
  if (!(minutes > 0)) throw new UsageError(`--minutes wants a number, not '${values.minutes}'`);
  const { cell: ids } = values;
  return {
    backends: chosenBackends(values.backend, ids),
    only: ids === undefined ? undefined : new Set(ids),
    quick: values.quick,
    resume: values.resume,
    list: values.list,
    lab: !values["no-lab"],
    minutes,
    statePath: values.state,
    docs: values.docs,
    partial: values.partial,
    image: values.image,
  };
}

function chosenBackends(names: string | undefined, ids: readonly string[] | undefined) {
  const known = new Set(BACKENDS.flatMap(cellsOf).map(idOf));
  const unknown = ids?.find((id) => !known.has(id));
  if (unknown !== undefined) throw new UsageError(`--cell: there is no cell '${unknown}'`);
  const wanted = names?.split(",") ?? ids?.map((id) => id.split("/")[0] ?? "");
  if (wanted === undefined) return BACKENDS;
  for (const name of wanted) {
    if (!BACKENDS.some((backend) => backend === name)) {
      throw new UsageError(`--backend: '${name}' is not one of ${BACKENDS.join(", ")}`);
    }
  }
  return BACKENDS.filter((backend) => wanted.includes(backend));
}

/** Runs what `args` ask for; the status is 1 when a cell failed or none was proved. */
export async function matrix(args: readonly string[]): Promise<number> {
  const choice = parse(args);
  const cells = choice.backends.flatMap(cellsOf).map(idOf);
  const asked = cells.filter((id) => choice.only === undefined || choice.only.has(id));
  if (choice.list) {
    console.log(asked.join("\n"));
    return 0;
  }
  const image = choice.image ?? defaultImage();
  if (!existsSync(image)) {
    throw new EnvironmentError(`image ${image} not found: build it with 'make image'`);
  }
  const { version } = findQemu();
  const state = MatrixState.open(choice.statePath, image, version, choice.resume);
  const run: BackendRun = {
    state,
    ...(choice.image === undefined ? {} : { image: choice.image }),
    ...(choice.only === undefined ? {} : { only: choice.only }),
    quick: choice.quick,
    artifacts: ARTIFACTS,
    until: performance.now() + choice.minutes * 60_000,
    progress: (text) => console.log(text),
  };
  const well = await runAll(choice, run);
  if (choice.docs !== undefined) writePage(choice.docs, state, choice.partial);
  return Math.max(closing(state, asked), well ? 0 : STATUS_FAILED);
}

/** Runs one backend; false when its bench, not a cell, has failed. Its other cells stay open. */
async function attempt(name: BackendName, run: BackendRun): Promise<boolean> {
  try {
    await runBackend(benchOf(name), run);
    return true;
  } catch (error) {
    run.progress(`${name}: stopped: ${messageOf(error)}`);
    return false;
  }
}

/** False when something but a cell has failed. */
async function runAll(choice: Choice, run: BackendRun): Promise<boolean> {
  let troubled = false;
  const forLab: BackendName[] = [];
  const open = (name: BackendName) =>
    cellsOf(name).some((cell) => run.state.result(idOf(cell)) === undefined);
  // Nothing is booted, least of all the lab, for a backend that has all its results.
  for (const name of choice.backends.filter(open)) {
    const bench = benchOf(name);
    const missing = await bench.unavailable();
    if (missing === undefined) {
      const well = await attempt(name, run);
      troubled ||= !well;
    } else if (missing.labHasIt && choice.lab) forLab.push(name);
    else skipBackend(name, missing.reason, run);
  }
  if (forLab.length === 0) return !troubled;
  try {
    await prepareLab();
  } catch (error) {
    if (!(error instanceof EnvironmentError)) throw error;
    for (const name of forLab) skipBackend(name, `no lab: ${messageOf(error)}`, run);
    return !troubled;
  }
  const well = await runThere(forLab, choice, run);
  return well && !troubled;
}

/** The same command in the lab, with a state of its own below the build directory. */
async function runThere(
  backends: readonly BackendName[],
  choice: Choice,
  { state, until, progress }: BackendRun,
): Promise<boolean> {
  const directory = join(resolve("build/lab"), `matrix-${uniqueName()}`);
  mkdirSync(directory, { recursive: true });
  const remove = () => rmSync(directory, { recursive: true, force: true });
  const forget = atExit(remove);
  const path = (name: string) => join(directory, name);
  try {
    await bundleRunner(path("matrix.mjs"));
    const theirs = MatrixState.open(
      path("state.json"),
      choice.image ?? defaultImage(),
      state.qemu,
      false,
    );
    const found = backends.flatMap(cellsOf).flatMap((cell) => state.result(idOf(cell)) ?? []);
    theirs.note(found);
    const minutes = Math.max(0.1, (until - performance.now()) / 60_000);
    const own = ["--backend", backends.join(","), "--state", path("state.json"), "--resume"];
    const words = ["matrix", "--no-lab", ...own, "--minutes", minutes.toFixed(1)];
    if (choice.quick) words.push("--quick");
    if (choice.image !== undefined) words.push("--image", choice.image);
    for (const id of choice.only ?? []) words.push("--cell", id);
    const onOutput = lineSplitter((line) => progress(`  lab | ${line}`));
    const argv = ["node", path("matrix.mjs"), ...words];
    const result = await runInLab(argv, { onOutput, timeoutMs: LAB_MS });
    onOutput.end();
    progress(describeLab(result));
    state.merge(path("state.json"));
    return result.status === 0;
  } finally {
    remove();
    forget();
  }
}

function writePage(path: string, state: MatrixState, partial: boolean): void {
  const open = openCells(state);
  if (open > 0 && !partial) {
    console.log(`${path} is not written: ${open} cells have no result yet (--resume goes on)`);
    return;
  }
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, renderMatrix(state));
  console.log(`${path} is written`);
}

function closing(state: MatrixState, asked: readonly string[]): number {
  const count = { PROVED: 0, SKIPPED: 0, FAILED: 0, open: 0 };
  for (const id of asked) count[state.result(id)?.verdict ?? "open"]++;
  const open = count.open === 0 ? "" : `, ${count.open} not run`;
  console.log(`${count.PROVED} proved, ${count.FAILED} failed, ${count.SKIPPED} skipped${open}`);
  return count.FAILED === 0 && count.PROVED > 0 ? 0 : STATUS_FAILED;
}
