// The matrix as a page of Markdown (docs/matrix.md): totals, DPDK's ten paths, a table for each
// backend, and the reason for everything that is not proved. Pure; used by command.ts.

import { runDirectoryOf } from "../run-scope";
import type { CellResult } from "./boot";
import {
  BACKENDS,
  type BackendName,
  type Cell,
  cellsOf,
  FEATURES,
  type Features,
  FRAME_SIZES,
  idOf,
  PATHS,
  QUEUES,
} from "./cells";
import type { MatrixState } from "./state";

/** See `scratchDirectory`. */
const FOLDERS_OF_A_RUN = new RegExp(`${runDirectoryOf("")}[^/\\s]+/\\d+/`, "g");

const MARKS = { PROVED: "P", SKIPPED: "s", FAILED: "**F**" } as const;

const INTRODUCTION = `# The matrix

Every combination of ring format, in-order use, mergeable buffers, event index, indirect descriptors
and 1, 2 or 4 queue pairs, on every kind of backend. \`make matrix\` boots the image for each (six
cards with six combinations at a time) and writes this page.

A cell is **P**roved when the guest has negotiated just these features on that many queue pairs; when
datagrams in frames of ${FRAME_SIZES.join(", ")} bytes (with FCS), in 8 to 64 flows, have
gone to its echo service and every one has come back unchanged; when every queue has carried frames in
both directions (Open vSwitch in userspace: at least one, for it uses a queue for each of its polling
threads); when the backend's own counters (QEMU's user network has none) differ from the guest's by
nothing; and when nothing was dropped or reset and no packet has leaked. It is **s**kipped when the
backend lacks what it needs. All else is **F**ailed.

Behind vhost-user and the userspace datapath it is DPDK that reads and writes the rings; behind
vhost-net and the kernel datapath the kernel's vhost threads.
`;

interface Count {
  proved: number;
  skipped: number;
  failed: number;
}

function countOf(results: readonly (CellResult | undefined)[]): Count {
  const count = { proved: 0, skipped: 0, failed: 0 };
  for (const result of results) {
    if (result?.verdict === "PROVED") count.proved++;
    if (result?.verdict === "SKIPPED") count.skipped++;
    if (result?.verdict === "FAILED") count.failed++;
  }
  return count;
}

function row(cells: readonly (string | number)[]): string {
  return `| ${cells.join(" | ")} |`;
}

function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const rule = head.map((_, i) => (i === 0 ? "---" : ":-:"));
  return [row(head), row(rule), ...rows.map(row)].join("\n");
}

function totals(state: MatrixState): string {
  const rows = BACKENDS.map((name) => {
    const results = cellsOf(name).map((cell) => state.result(idOf(cell)));
    const { proved, skipped, failed } = countOf(results);
    const frames = results.reduce(
      (sum, result) => sum + (result?.received ?? 0) + (result?.sent ?? 0),
      0,
    );
    const backend = state.backend(name);
    const where = backend === undefined ? "" : backend.lab ? "the lab" : "the machine";
    return [name, proved, skipped, failed, frames, where];
  });
  return table(["backend", "proved", "skipped", "failed", "frames", "ran on"], rows);
}

/** The paths of DPDK's own tests, each with the cells that go the same way. */
function paths(state: MatrixState): string {
  const rows = PATHS.map(({ name, matches }) => [
    name,
    ...BACKENDS.map((backend) => {
      const cells = cellsOf(backend).filter(({ features }) => matches(features));
      const { proved, failed } = countOf(cells.map((cell) => state.result(idOf(cell))));
      if (failed > 0) return `${failed} failed`;
      return proved === 0 ? "-" : `${proved}`;
    }),
  ]);
  return table(["path", ...BACKENDS], rows);
}

function switches(on: readonly string[], off: readonly string[]): string {
  return [...on.map((name) => `+${name}`), ...off.map((name) => `-${name}`)].join(" ");
}

/** The features that rows are made of, and those that columns are made of. */
const ROW = FEATURES.filter(({ name }) => !["event_idx", "indirect_desc"].includes(name));
const COLUMN = FEATURES.filter((feature) => !ROW.includes(feature));

function titleOf(features: Features, parts: typeof FEATURES): string {
  const named = parts.filter(({ name }) => name !== "ring_packed");
  const on = named.filter(({ name }) => features[name]).map(({ short }) => short);
  const off = named.filter(({ name }) => !features[name]).map(({ short }) => short);
  const ring = parts === ROW ? `${features.ring_packed ? "packed" : "split"} ` : "";
  return ring + switches(on, off);
}

function grid(name: BackendName, state: MatrixState): string {
  const rows = new Map<string, Map<string, Cell>>();
  for (const cell of cellsOf(name)) {
    const title = titleOf(cell.features, ROW);
    const column = `${titleOf(cell.features, COLUMN)}, ${cell.queues}`;
    const cells = rows.get(title) ?? new Map<string, Cell>();
    rows.set(title, cells.set(column, cell));
  }
  const columns = [...(rows.values().next().value?.keys() ?? [])];
  const mark = (cell: Cell | undefined) => {
    const result = cell === undefined ? undefined : state.result(idOf(cell));
    return result === undefined ? "?" : MARKS[result.verdict];
  };
  const body = [...rows].map(([title, cells]) => [
    title,
    ...columns.map((column) => mark(cells.get(column))),
  ]);
  return table(["", ...columns], body);
}

/** The folders of a run are of no use to who reads the page, and differ from run to run. */
function withoutPlaces(reason: string): string {
  return reason.replaceAll(FOLDERS_OF_A_RUN, "");
}

function reasons(name: BackendName, state: MatrixState): string[] {
  const by = new Map<string, string[]>();
  for (const cell of cellsOf(name)) {
    const result = state.result(idOf(cell));
    if (result?.reason === undefined) continue;
    const key = `${result.verdict.toLowerCase()}: ${withoutPlaces(result.reason.split("\n")[0] ?? "")}`;
    by.set(key, [...(by.get(key) ?? []), result.id]);
  }
  return [...by].map(([reason, ids]) => {
    const which = reason.startsWith("failed") ? ` (${ids.join(", ")})` : "";
    return `- ${ids.length} ${reason}${which}`;
  });
}

/** How many cells have no result yet. */
export function openCells(state: MatrixState): number {
  const all = BACKENDS.flatMap(cellsOf);
  return all.filter((cell) => state.result(idOf(cell)) === undefined).length;
}

/** The page. A cell without a result is `?`, and how many there are is said. */
export function renderMatrix(state: MatrixState): string {
  const kernels = BACKENDS.flatMap((name) => {
    const backend = state.backend(name);
    return backend === undefined ? [] : [`${backend.kernel}${backend.lab ? " (lab)" : ""}`];
  });
  const ran = `Ran with QEMU ${state.qemu} and Linux ${[...new Set(kernels)].join(", ")}.`;
  const open = openCells(state);
  const missing = open === 0 ? [] : [`**${open} cells have not been run yet**; they are ? below.`];
  const sections = BACKENDS.flatMap((name) => [
    `## ${name}`,
    grid(name, state),
    ...(reasons(name, state).length === 0 ? [] : [reasons(name, state).join("\n")]),
  ]);
  return `${[
    INTRODUCTION.trimEnd(),
    ran,
    ...missing,
    totals(state),
    "## DPDK's ten paths",
    `The ways that DPDK's tests of virtio take through its driver, and how many cells that go the same
way through the rings are proved. A path for vectors has the plainest ring: neither mergeable buffers
nor event index nor indirect descriptors.`,
    paths(state),
    ...sections,
    `Columns are +on or -off for event index and indirect descriptors, then queue pairs (${QUEUES.join(
      ", ",
    )}); "order" is in-order use, "mrg" mergeable buffers.`,
  ].join("\n\n")}\n`;
}
