/**
 * The benchmark's results as a table for the terminal. The page is bench-html.ts's. Called by
 * bench.ts.
 */
import { titleOf } from "./bench-cases";
import type { Machine } from "./bench-machine";
import { type CaseResult, median, type Row } from "./bench-run";
import type { TimesResult } from "./bench-times";

export interface Results {
  readonly machine: Machine;
  readonly samples: number;
  readonly cases: readonly CaseResult[];
  readonly times?: TimesResult;
}

const mpps = (rate: number) => (rate / 1e6).toFixed(2);

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

function lineOf(row: Row): string {
  const name = `  ${row.name.padEnd(42)}`;
  if (row.skipped !== undefined) return `${name} skipped: ${row.skipped.split("\n")[0]}`;
  const { own } = row;
  const counters =
    own === undefined
      ? ""
      : `  ${own.kicksPerFrame.toFixed(6)} kicks/frame, ${own.interrupts} interrupts, ` +
        `${own.cyclesPerFrame.toFixed(0)} cycles/frame`;
  const spread = `± ${row.spreadPercent.toFixed(0)} %`;
  return `${name}${mpps(row.median).padStart(7)} Mpps ${spread.padStart(7)}${counters}`;
}

export function caseTable(result: CaseResult): string {
  const near = Math.min(...result.distances);
  const far = Math.max(...result.distances);
  const head = `${titleOf(result.case)}  (CPUs ${near} to ${far} cycles apart)`;
  const ratios = RATIOS.flatMap(([id, other]) => {
    const value = ratio(result, id, other);
    return value === undefined ? [] : [`${id} / ${other} = ${value.toFixed(2)}`];
  });
  const rows = result.rows.map(lineOf);
  return [head, ...rows, ...(ratios.length > 0 ? [`  ${ratios.join(", ")}`] : [])].join("\n");
}

export function machineLines(machine: Machine): string {
  const { cpu, cpus, memoryGib, kernel, qemu, dpdk, gcc, node, commit } = machine;
  return (
    `${cpu}, ${cpus} CPUs, ${memoryGib} GiB, Linux ${kernel}\n` +
    `QEMU ${qemu}, DPDK ${dpdk}, gcc ${gcc}, Node.js ${node}, vireo ${commit}`
  );
}
