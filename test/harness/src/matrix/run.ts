// Runs the matrix's cells of one backend: asks what it offers, skips what cannot be, and boots the
// rest six cells at a time. Called by command.ts, and by the test that runs a few cells of each.

import { release } from "node:os";
import { HarnessError, messageOf } from "../errors";
import { inLab } from "../lab/lab";
import type { Bench } from "./bench";
import { type CellResult, offeredBy, runBoot } from "./boot";
import { type BackendName, type Cell, cellsOf, FEATURES, idOf, pairwise } from "./cells";
import { tapBench, vhostNetBench, vhostUserBench } from "./kernel-benches";
import { ovsKernelBench, ovsUserspaceBench } from "./ovs-bench";
import { streamBench, userBench } from "./socket-benches";
import type { MatrixState } from "./state";

/** As many virtio-net devices as a guest takes. */
const CELLS_A_BOOT = 6;

const BENCHES: Record<BackendName, () => Bench> = {
  user: userBench,
  stream: streamBench,
  tap: tapBench,
  "vhost-user": vhostUserBench,
  "vhost-net": vhostNetBench,
  "ovs-userspace": ovsUserspaceBench,
  "ovs-kernel": ovsKernelBench,
};

export const benchOf = (name: BackendName): Bench => BENCHES[name]();

export interface BackendRun {
  readonly state: MatrixState;
  readonly image?: string;
  /** Only enough cells to have every two values together in one. */
  readonly quick: boolean;
  /** The files of failed cells go there. */
  readonly artifacts: string;
  /** Only these, by name; all unless given. */
  readonly only?: ReadonlySet<string>;
  /** No boot begins after this moment (of `performance.now`). */
  readonly until: number;
  readonly progress: (text: string) => void;
}

function skipped(cell: Cell, reason: string): CellResult {
  return { id: idOf(cell), verdict: "SKIPPED", reason };
}

/** Why the backend cannot have this cell, or undefined when it can. */
function obstacle(bench: Bench, offered: readonly string[], cell: Cell): string | undefined {
  if (cell.queues > bench.mostQueues) {
    const pairs = bench.mostQueues === 1 ? "one queue pair" : `${bench.mostQueues} queue pairs`;
    return `${bench.name} has ${pairs}`;
  }
  const lacks = FEATURES.find(({ name }) => cell.features[name] && !offered.includes(name));
  return lacks === undefined ? undefined : `${bench.name} does not offer ${lacks.name}`;
}

/** Six cells a boot, with the same number of queues where the backend wants it. */
function bootsOf(cells: readonly Cell[], uniform: boolean): Cell[][] {
  const boots: Cell[][] = [];
  for (const cell of [...cells].sort((a, b) => a.queues - b.queues)) {
    const last = boots.at(-1);
    const fits = !uniform || last?.[0]?.queues === cell.queues;
    if (last !== undefined && last.length < CELLS_A_BOOT && fits) last.push(cell);
    else boots.push([cell]);
  }
  return boots;
}

/** Skips all cells of a backend that cannot run here. */
export function skipBackend(name: BackendName, reason: string, run: BackendRun): void {
  const cells = wanted(cellsOf(name), run);
  run.state.note(cells.map((cell) => skipped(cell, reason)));
  run.progress(`${name}: skipped, ${reason}`);
}

/** The cells that are asked for and that have no result yet. */
function wanted(cells: readonly Cell[], { only, state }: BackendRun): Cell[] {
  const asked = only === undefined ? cells : cells.filter((cell) => only.has(idOf(cell)));
  return asked.filter((cell) => state.result(idOf(cell)) === undefined);
}

/** Runs the cells of one backend; the results are in the state. */
export async function runBackend(bench: Bench, run: BackendRun): Promise<void> {
  const { state, image, progress } = run;
  const all = cellsOf(bench.name);
  if (wanted(all, run).length === 0) return;
  await bench.open();
  try {
    const offered = state.backend(bench.name)?.offered ?? (await ask(bench, run));
    const reasons = new Map(all.map((cell) => [cell, obstacle(bench, offered, cell)]));
    const possible = all.filter((cell) => reasons.get(cell) === undefined);
    const cells = wanted(run.quick ? pairwise(possible) : possible, run);
    const impossible = wanted(all, run).filter((cell) => reasons.get(cell) !== undefined);
    state.note(impossible.map((cell) => skipped(cell, reasons.get(cell) ?? "")));
    const boots = bootsOf(cells, bench.uniform);
    for (const [number, boot] of boots.entries()) {
      if (performance.now() > run.until) {
        progress(`${bench.name}: the time is over, ${boots.length - number} boots are left`);
        return;
      }
      const begin = performance.now();
      const results = await runBoot(bench, boot, { image, artifacts: run.artifacts });
      state.note(results);
      const seconds = ((performance.now() - begin) / 1000).toFixed(1);
      progress(`${bench.name} ${number + 1}/${boots.length}: ${tally(results)} (${seconds} s)`);
      for (const { id, verdict, reason = "" } of results) {
        if (verdict === "FAILED") progress(`  FAILED ${id}: ${reason}`);
      }
      const kept = results.find((result) => result.kept !== undefined)?.kept;
      if (kept !== undefined) progress(`  kept: ${kept}`);
    }
  } finally {
    await bench.close();
  }
}

async function ask(bench: Bench, { state, image, progress }: BackendRun): Promise<string[]> {
  try {
    const offered = await offeredBy(bench, image);
    state.noteBackend(bench.name, { kernel: release(), lab: inLab(), offered });
    const lacks = FEATURES.filter(({ name }) => !offered.includes(name)).map(({ name }) => name);
    progress(`${bench.name}: ${lacks.length === 0 ? "offers all" : `lacks ${lacks.join(", ")}`}`);
    return offered;
  } catch (error) {
    throw new HarnessError(`${bench.name}: cannot be asked what it offers: ${messageOf(error)}`);
  }
}

function tally(results: readonly CellResult[]): string {
  const proved = results.filter(({ verdict }) => verdict === "PROVED").length;
  return `${proved} of ${results.length} proved`;
}
