/**
 * The benchmark's results as tables for the terminal: one a case while it runs, and summaries at
 * the end. The page is bench-html.ts's. Called by bench.ts.
 */
import type { BootRow } from "./bench-boot";
import { type Case, type Group, idOf, RING_FORMATS, titleOf } from "./bench-cases";
import type { LatencyRow } from "./bench-latency";
import type { Machine } from "./bench-machine";
import { type CaseResult, median, type Row } from "./bench-run";

export interface Results {
  readonly machine: Machine;
  readonly samples: number;
  readonly cases: readonly CaseResult[];
  readonly latency?: readonly LatencyRow[];
  readonly boot?: readonly BootRow[];
}

/** A contender by a column each; what was not measured is empty. */
export interface Summary {
  readonly title: string;
  readonly unit: string;
  readonly columns: readonly string[];
  readonly rows: readonly { readonly name: string; readonly values: (number | undefined)[] }[];
}

export const mpps = (rate: number) => (rate / 1e6).toFixed(2);
export const gigabits = (rate: number, { frameBytes }: Case) => (rate * frameBytes * 8) / 1e9;
export const firstLine = (text: string) => text.split("\n")[0] ?? "";

/** Columns as wide as their widest cell: the first to the left, the others to the right. */
export function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [at, cell] of row.entries()) widths[at] = Math.max(widths[at] ?? 0, cell.length);
  }
  return rows.map((row) =>
    row
      .map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
}

/**
 * How much faster one is than the other: the median of the rounds' ratios, for the two samples of a
 * round are seconds apart. Undefined where one of them is missing.
 */
export function ratio(result: CaseResult, id: string, other: string): number | undefined {
  const of = (contender: string) => {
    const row = result.rows.find((each) => each.contender === contender);
    return row?.skipped === undefined ? (row?.samples ?? []) : [];
  };
  const [ours, theirs] = [of(id), of(other)];
  const pairs = ours.flatMap((rate, round) => {
    const against = theirs[round] ?? 0;
    return against > 0 ? [rate / against] : [];
  });
  return pairs.length > 0 ? median(pairs) : undefined;
}

/** Which ratios are of interest: ours to the limit of the hardware and to other drivers. */
export const RATIOS: readonly (readonly [string, string])[] = [
  ["vireo-tcg", "bare-tcg"],
  ["vireo-kvm", "bare-kvm"],
  ["vireo-process", "virtio-user"],
  ["vireo-process", "virtio-user-vector"],
  ["vireo-tcg", "linux-tcg"],
  ["vireo-tcg", "linux-dpdk-tcg"],
];

export function ratioWords(result: CaseResult): string[] {
  return RATIOS.flatMap(([id, other]) => {
    const value = ratio(result, id, other);
    return value === undefined ? [] : [`${id} / ${other} = ${value.toFixed(2)}`];
  });
}

/** What our own driver counted, in words; empty for the others. */
export function ownWords({ own }: Row): string {
  if (own === undefined) return "";
  const { kicksPerFrame, interrupts, cyclesPerFrame } = own;
  return (
    `${kicksPerFrame.toFixed(6)} doorbells and ${cyclesPerFrame.toFixed(0)} cycles a frame, ` +
    `${interrupts} interrupts`
  );
}

/** Under which conditions a case was measured. */
export function conditionWords({ distances, hugepages }: CaseResult): string {
  if (distances.length === 0) return "nothing was measured";
  const apart = `CPUs ${Math.min(...distances)} to ${Math.max(...distances)} cycles apart`;
  return hugepages ? apart : `${apart}, all on small pages for want of large ones`;
}

const byDescent = (a: Row, b: Row) => b.median - a.median;

export function caseTable(result: CaseResult): string {
  const { case: what } = result;
  const measured = result.rows.filter(({ skipped }) => skipped === undefined);
  const figures = [...measured].sort(byDescent).map((row) => [
    `  ${row.name}`,
    `${mpps(row.median)} Mpps`,
    `± ${row.spreadPercent.toFixed(0)} %`,
    `${gigabits(row.median, what).toFixed(1)} Gbit/s`,
    // The last column is text.
    ownWords(row),
  ]);
  const widest = Math.max(0, ...figures.map((row) => row[4]?.length ?? 0));
  const rows = aligned(figures.map((row) => [...row.slice(0, 4), (row[4] ?? "").padEnd(widest)]));
  const skipped = result.rows.flatMap(({ name, skipped: reason }) =>
    reason === undefined ? [] : [`  ${name} skipped: ${firstLine(reason)}`],
  );
  const ratios = ratioWords(result);
  return [
    `${titleOf(what)}  (${conditionWords(result)})`,
    ...[...rows, ...skipped, ...(ratios.length > 0 ? [`  ${ratios.join(", ")}`] : [])],
  ].join("\n");
}

// ---- summaries ----------------------------------------------------------------------------------

function summaryOf(
  title: string,
  unit: string,
  cases: readonly CaseResult[],
  columnOf: (what: Case) => string,
  figureOf: (row: Row, what: Case) => number,
): Summary {
  const names = new Map(cases.flatMap(({ rows }) => rows.map((row) => [row.contender, row.name])));
  const rows = [...names].map(([contender, name]) => ({
    name,
    values: cases.map(({ case: what, rows: measured }) => {
      const row = measured.find((each) => each.contender === contender);
      return row === undefined || row.skipped !== undefined ? undefined : figureOf(row, what);
    }),
  }));
  const some = rows.filter(({ values }) => values.some((value) => value !== undefined));
  return { title, unit, columns: cases.map(({ case: what }) => columnOf(what)), rows: some };
}

const formatOrder = ({ case: { ring } }: CaseResult) => RING_FORMATS.indexOf(ring);
const sizeOrder = ({ case: { frameBytes } }: CaseResult) => frameBytes;

/** Rates by ring format, by size, and of forwarding; those of which something was measured. */
export function summariesOf({ cases }: Results): Summary[] {
  const of = (group: Group, direction?: string) =>
    cases.filter(
      ({ case: what }) =>
        what.group === group && (direction === undefined || what.direction === direction),
    );
  const inMpps = (row: Row) => row.median / 1e6;
  const inGigabits = (row: Row, what: Case) => gigabits(row.median, what);
  const byFormat = (direction: "tx" | "rx") =>
    summaryOf(
      `${direction.toUpperCase()} by ring format, 64 bytes`,
      "Mpps",
      of("formats", direction).sort((a, b) => formatOrder(a) - formatOrder(b)),
      ({ ring }) => ring,
      inMpps,
    );
  const bySize = (direction: "tx" | "rx") =>
    summaryOf(
      `${direction.toUpperCase()} by size in bytes, split ring, merged buffers`,
      "Gbit/s",
      of("sizes", direction).sort((a, b) => sizeOrder(a) - sizeOrder(b)),
      ({ frameBytes, large }) => (large ? "64 KiB" : String(frameBytes + 4)),
      inGigabits,
    );
  const forward = summaryOf(
    "Forwarding between two NICs, 64 bytes, rate of each direction",
    "Mpps",
    of("forward").sort((a, b) => formatOrder(a) - formatOrder(b)),
    ({ direction, ring }) => `${ring}${direction === "forward" ? "" : ", both ways"}`,
    inMpps,
  );
  const all = [byFormat("tx"), byFormat("rx"), forward, bySize("tx"), bySize("rx")];
  return all.filter(({ rows }) => rows.length > 0);
}

export function summaryTable({ title, unit, columns, rows }: Summary): string {
  const cell = (value: number | undefined) => (value === undefined ? "-" : value.toFixed(2));
  const lines = rows.map(({ name, values }) => [`  ${name}`, ...values.map(cell)]);
  return [`${title}, ${unit}`, ...aligned([["", ...columns], ...lines])].join("\n");
}

export const LATENCY_COLUMNS = ["p50 us", "p99 us", "p99.9 us", "answered", "lost"];
export const latencyCells = (row: LatencyRow): string[] => [
  ...[row.p50Us, row.p99Us, row.p999Us].map((us) => us.toFixed(1)),
  ...[String(row.answered), String(row.lost)],
];

export const BOOT_COLUMNS = ["ms", "range", "loaded KiB", "given MiB", "QEMU MiB", "least MiB"];
export const bootCells = (row: BootRow): string[] => [
  row.medianMs.toFixed(0),
  `${Math.min(...row.samplesMs).toFixed(0)} to ${Math.max(...row.samplesMs).toFixed(0)}`,
  (row.imageBytes / 1024).toFixed(0),
  String(row.guestMemoryMib),
  row.residentMib.toFixed(0),
  String(row.leastMemoryMib),
];

export const LATENCY_TITLE = "UDP echo through a tap, round trips, q35, TCG";
export const BOOT_TITLE = "From QEMU's start to the first ARP answer, TCG; image; memory";

interface TimesRow {
  readonly name: string;
  readonly skipped?: string;
}

/** A table of rows that each were measured, or have a reason. */
export function timesTable<R extends TimesRow>(
  title: string,
  columns: readonly string[],
  rows: readonly R[],
  cellsOf: (row: R) => string[],
): string {
  const measured = rows.filter(({ skipped }) => skipped === undefined);
  const lines = measured.map((row) => [`  ${row.name}`, ...cellsOf(row)]);
  const skipped = rows.flatMap(({ name, skipped: reason }) =>
    reason === undefined ? [] : [`  ${name} skipped: ${firstLine(reason)}`],
  );
  return [title, ...aligned([["", ...columns], ...lines]), ...skipped].join("\n");
}

export function machineLines(machine: Machine): string {
  const { cpu, cpus, memoryGib, kernel, qemu, dpdk, gcc, node, commit } = machine;
  return (
    `${cpu}, ${cpus} CPUs, ${memoryGib} GiB, Linux ${kernel}\n` +
    `QEMU ${qemu}, DPDK ${dpdk}, gcc ${gcc}, Node.js ${node}, vireo ${commit}`
  );
}

/** Rows of an earlier run that the later one has not, and the later ones. */
function joined<R extends { readonly id: string }>(earlier: readonly R[], later: readonly R[]) {
  const kept = earlier.filter(({ id }) => !later.some((row) => row.id === id));
  return [...kept, ...later];
}

/** What an earlier run has measured and a later one has not, and the later one, in order. */
export function withEarlier(results: Results, earlier: Results, order: readonly Case[]): Results {
  const measured = new Set(results.cases.map(({ case: what }) => idOf(what)));
  const kept = earlier.cases.filter(({ case: what }) => !measured.has(idOf(what)));
  const place = ({ case: what }: CaseResult) =>
    order.findIndex((each) => idOf(each) === idOf(what));
  const latency = joined(earlier.latency ?? [], results.latency ?? []);
  const boot = joined(earlier.boot ?? [], results.boot ?? []);
  return {
    ...{ machine: results.machine, samples: results.samples },
    cases: [...kept, ...results.cases].sort((a, b) => place(a) - place(b)),
    ...(latency.length === 0 ? {} : { latency }),
    ...(boot.length === 0 ? {} : { boot }),
  };
}
