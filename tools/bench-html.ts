/**
 * The benchmark's results as one page without any other file: for each group a table of all rates,
 * then a chart a case with what is to be said about it. Called by bench.ts.
 */
import type { Group } from "./bench-cases";
import { titleOf } from "./bench-cases";
import { type Bar, barChart, kindOf, lineChart, plain, WIDTH } from "./bench-charts";
import {
  BOOT_COLUMNS,
  BOOT_TITLE,
  bootCells,
  conditionWords,
  firstLine,
  gigabits,
  LATENCY_COLUMNS,
  LATENCY_TITLE,
  latencyCells,
  machineLines,
  mpps,
  ownWords,
  type Results,
  ratioWords,
  type Summary,
  summariesOf,
} from "./bench-report";
import type { CaseResult, Row } from "./bench-run";

const STYLE = `
  body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: ${WIDTH + 20}px;
    padding: 0 1em; color: #1c2430; background: #fff }
  h1 { font-size: 1.5em } h2 { font-size: 1.25em; margin: 2.2em 0 .3em }
  h3 { font-size: 1em; margin: 1.4em 0 .3em }
  pre { background: #f3f5f8; padding: .8em; overflow-x: auto; font-size: 13px }
  p.note { color: #5a6675; margin: .2em 0; font-size: 13px }
  table { border-collapse: collapse; font-size: 13px; margin: .5em 0 1em }
  th, td { padding: .15em .8em; text-align: right; border-bottom: 1px solid #d5dbe3;
    font-variant-numeric: tabular-nums }
  th:first-child, td:first-child { text-align: left; padding-left: 0 }
  svg { max-width: 100%; height: auto } svg text { font: 13px system-ui, sans-serif; fill: #1c2430 }
  svg text.small { font-size: 11px } summary { cursor: pointer; margin: .6em 0 }
  .ours { fill: #2463c4 } .limit { fill: #6b7785 } .other { fill: #b9c2cd }
  .ours-line { stroke: #2463c4 } .limit-line { stroke: #6b7785 } .other-line { stroke: #98a4b3 }
  .ours-line, .limit-line, .other-line { fill: none; stroke-width: 2 }
  .grid { stroke: #d5dbe3 } .range { stroke: #1c2430; stroke-width: 1.5 }
  .figure { font-variant-numeric: tabular-nums }
  @media (prefers-color-scheme: dark) {
    body { color: #e3e8ee; background: #151a21 } pre { background: #202732 }
    svg text { fill: #e3e8ee } .range { stroke: #e3e8ee } p.note { color: #9aa6b5 }
    th, td { border-color: #333d4a } .grid { stroke: #333d4a }
    .other { fill: #4a5563 } .ours { fill: #5b94ea } .ours-line { stroke: #5b94ea } }`;

interface GroupTitle {
  readonly group: Group;
  readonly title: string;
}
const GROUPS: readonly GroupTitle[] = [
  { group: "formats", title: "64 bytes, by ring format" },
  { group: "forward", title: "Forwarding between two NICs" },
  { group: "sizes", title: "By size" },
];

const note = (text: string) => `<p class="note">${plain(text)}</p>`;

function table(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[], tag: string) =>
    `<tr>${cells.map((cell) => `<${tag}>${plain(cell)}</${tag}>`).join("")}</tr>`;
  return `<table>${[line(["", ...columns], "th"), ...rows.map((row) => line(row, "td"))].join("\n")}
</table>`;
}

function summarySection({ title, unit, columns, rows }: Summary): string {
  const cells = rows.map(({ name, values }) => [
    name,
    ...values.map((value) => (value === undefined ? "" : value.toFixed(2))),
  ]);
  return `<h3>${plain(title)}, ${plain(unit)}</h3>\n${table(columns, cells)}`;
}

function barOf(row: Row, { case: what }: CaseResult): Bar {
  const inBits = what.group === "sizes";
  const rate = inBits
    ? `${gigabits(row.median, what).toFixed(2)} Gbit/s`
    : `${mpps(row.median)} Mpps`;
  return {
    ...{ name: row.name, kind: kindOf(row.contender), value: row.median },
    low: Math.min(...row.samples),
    high: Math.max(...row.samples),
    figure: `${rate} ± ${row.spreadPercent.toFixed(0)} %`,
  };
}

function caseSection(result: CaseResult): string {
  const title = titleOf(result.case);
  const measured = result.rows.filter(({ skipped }) => skipped === undefined);
  const notes = [
    conditionWords(result),
    ...ratioWords(result),
    ...measured.flatMap((row) => (row.own === undefined ? [] : [`${row.name}: ${ownWords(row)}`])),
    ...result.rows.flatMap(({ name, skipped }) =>
      skipped === undefined ? [] : [`${name} skipped: ${firstLine(skipped)}`],
    ),
  ];
  const bars = measured.map((row) => barOf(row, result));
  const drawn = bars.length > 0 ? barChart(title, bars) : "";
  return `<h3>${plain(title)}</h3>\n${drawn}\n${notes.map(note).join("\n")}`;
}

function groupSection({ group, title }: GroupTitle, results: Results): string {
  const cases = results.cases.filter(({ case: what }) => what.group === group);
  if (cases.length === 0) return "";
  const summaries = summariesOf({ ...results, cases });
  const lines =
    group === "sizes"
      ? summaries.map(({ title: name, columns, rows }) =>
          lineChart(
            name,
            columns,
            rows.map((row) => ({ ...row, kind: kindOf(row.name) })),
          ),
        )
      : [];
  const tables = summaries.map((summary, at) => `${summarySection(summary)}\n${lines[at] ?? ""}`);
  const details = cases.map(caseSection).join("\n");
  // Sizes have a line chart; what stands behind each point is for those who ask.
  const shown =
    group === "sizes" ? `<details><summary>each size</summary>${details}</details>` : details;
  return `<h2>${plain(title)}</h2>\n${tables.join("\n")}\n${shown}`;
}

interface TimesSection<R> {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly R[];
  cellsOf(row: R): string[];
  barOf(row: R): Bar;
}

function timesSection<R extends { readonly name: string; readonly skipped?: string }>(
  section: TimesSection<R>,
): string {
  const { title, columns, rows } = section;
  const measured = rows.filter(({ skipped }) => skipped === undefined);
  const bars = measured.map((row) => section.barOf(row));
  const cells = measured.map((row) => [row.name, ...section.cellsOf(row)]);
  const skipped = rows.flatMap(({ name, skipped: reason }) =>
    reason === undefined ? [] : [note(`${name} skipped: ${firstLine(reason)}`)],
  );
  const drawn = bars.length > 0 ? `${barChart(title, bars)}\n${table(columns, cells)}` : "";
  return `<h2>${plain(title)}</h2>\n${drawn}\n${skipped.join("\n")}`;
}

function latencySection({ latency }: Results): string {
  if (latency === undefined) return "";
  return timesSection({
    ...{ title: LATENCY_TITLE, columns: LATENCY_COLUMNS, rows: latency, cellsOf: latencyCells },
    barOf: ({ id, name, p50Us, p99Us }) => ({
      ...{ name, kind: kindOf(id), value: p50Us, low: p50Us, high: p99Us },
      figure: `${p50Us.toFixed(1)} us, p99 ${p99Us.toFixed(1)}`,
    }),
  });
}

function bootSection({ boot }: Results): string {
  if (boot === undefined) return "";
  return timesSection({
    ...{ title: BOOT_TITLE, columns: BOOT_COLUMNS, rows: boot, cellsOf: bootCells },
    barOf: ({ id, name, medianMs, samplesMs }) => ({
      ...{ name, kind: kindOf(id), value: medianMs },
      ...{ low: Math.min(...samplesMs), high: Math.max(...samplesMs) },
      figure: `${medianMs.toFixed(0)} ms`,
    }),
  });
}

/** The whole page. */
export function page(results: Results): string {
  const sections = [
    ...GROUPS.map((group) => groupSection(group, results)),
    latencySection(results),
    bootSection(results),
  ];
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>vireo: benchmark</title>
<meta name="viewport" content="width=device-width">
<style>${STYLE}</style></head><body>
<h1>vireo: drivers on one backend</h1>
<p>Frames a second counted by the backend, DPDK's testpmd behind vhost-user. Median of
${results.samples} samples of a second, taken in turns; the line shows the range.</p>
<pre>${plain(machineLines(results.machine))}</pre>
${sections.filter((section) => section !== "").join("\n")}
</body></html>
`;
}
