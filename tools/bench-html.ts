/**
 * The benchmark's results as one page without any other file: bars as SVG, with the range of the
 * samples, and the table's numbers beside them. Called by bench.ts.
 */
import { type Case, titleOf } from "./bench-cases";
import { machineLines, RATIOS, type Results, ratio } from "./bench-report";
import type { CaseResult, Row } from "./bench-run";
import { timesTable } from "./bench-times";

const BAR_HEIGHT = 26;
const LABEL_WIDTH = 300;
const CHART_WIDTH = 520;
const FIGURE_WIDTH = 150;
const WIDTH = LABEL_WIDTH + CHART_WIDTH + FIGURE_WIDTH;

const STYLE = `
  body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: ${WIDTH + 20}px;
    padding: 0 1em; color: #1c2430; background: #fff }
  h1 { font-size: 1.5em } h2 { font-size: 1.1em; margin: 2em 0 .3em }
  pre { background: #f3f5f8; padding: .8em; overflow-x: auto; font-size: 13px }
  p.note { color: #5a6675; margin: .2em 0; font-size: 13px }
  svg { max-width: 100%; height: auto } svg text { font: 13px system-ui, sans-serif; fill: #1c2430 }
  .ours { fill: #2463c4 } .limit { fill: #6b7785 } .other { fill: #b9c2cd }
  .range { stroke: #1c2430; stroke-width: 1.5 } .figure { font-variant-numeric: tabular-nums }
  @media (prefers-color-scheme: dark) {
    body { color: #e3e8ee; background: #151a21 } pre { background: #202732 }
    svg text { fill: #e3e8ee } .range { stroke: #e3e8ee } p.note { color: #9aa6b5 }
    .other { fill: #4a5563 } .ours { fill: #5b94ea } }`;

const plain = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function classOf({ contender }: Row): string {
  if (contender.startsWith("vireo")) return "ours";
  return contender.startsWith("bare") ? "limit" : "other";
}

function bar(row: Row, index: number, scale: number): string {
  const y = index * BAR_HEIGHT;
  const middle = y + BAR_HEIGHT / 2;
  const x = (rate: number) => (LABEL_WIDTH + rate * scale).toFixed(1);
  const low = x(Math.min(...row.samples));
  const high = x(Math.max(...row.samples));
  const figure = `${(row.median / 1e6).toFixed(2)} Mpps ± ${row.spreadPercent.toFixed(0)} %`;
  const width = (row.median * scale).toFixed(1);
  return [
    `<text x="${LABEL_WIDTH - 8}" y="${middle + 5}" text-anchor="end">${plain(row.name)}</text>`,
    `<rect class="${classOf(row)}" x="${LABEL_WIDTH}" y="${y + 4}" width="${width}"`,
    ` height="${BAR_HEIGHT - 8}" rx="2"/>`,
    `<line class="range" x1="${low}" x2="${high}" y1="${middle}" y2="${middle}"/>`,
    `<text class="figure" x="${WIDTH}" y="${middle + 5}" text-anchor="end">${figure}</text>`,
  ].join("");
}

function chart(rows: readonly Row[], title: string): string {
  const most = Math.max(...rows.flatMap(({ samples }) => samples), 1);
  const bars = rows.map((row, index) => bar(row, index, CHART_WIDTH / most));
  const height = rows.length * BAR_HEIGHT;
  return `<svg viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img"
 aria-label="${plain(title)}">${bars.join("\n")}</svg>`;
}

function section(result: CaseResult): string {
  const title = titleOf(result.case);
  const measured = result.rows.filter(({ skipped }) => skipped === undefined);
  const notes = [
    `CPUs ${Math.min(...result.distances)} to ${Math.max(...result.distances)} cycles apart`,
    ...RATIOS.flatMap(([id, other]) => {
      const value = ratio(result, id, other);
      return value === undefined ? [] : [`${id} / ${other}: ${value.toFixed(2)}`];
    }),
    ...measured.flatMap(({ name, own }) =>
      own === undefined
        ? []
        : [
            `${name}: ${own.kicksPerFrame.toFixed(6)} doorbells a frame, ${own.interrupts} ` +
              `interrupts, ${own.cyclesPerFrame.toFixed(0)} cycles a frame`,
          ],
    ),
    ...result.rows.flatMap(({ name, skipped }) =>
      skipped === undefined ? [] : [`${name} skipped: ${skipped.split("\n")[0]}`],
    ),
  ];
  const drawn = measured.length > 0 ? chart(measured, title) : "";
  const lines = notes.map((note) => `<p class="note">${plain(note)}</p>`).join("\n");
  return `<h2>${plain(title)}</h2>\n${drawn}\n${lines}`;
}

const bySize = (a: CaseResult, b: CaseResult) => order(a.case) - order(b.case);
const order = ({ direction, frameBytes }: Case) => frameBytes + (direction === "tx" ? 0 : 0.5);

/** The whole page. */
export function page(results: Results): string {
  const { machine, samples, cases, times } = results;
  const sections = [...cases].sort(bySize).map(section).join("\n");
  const more = times === undefined ? "" : `<h2>Times</h2><pre>${plain(timesTable(times))}</pre>`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>vireo: benchmark</title>
<meta name="viewport" content="width=device-width">
<style>${STYLE}</style></head><body>
<h1>vireo: drivers on one backend</h1>
<p>Frames a second counted by the backend, DPDK's testpmd behind vhost-user. Median of ${samples}
samples of a second, taken in turns; the line shows the range.</p>
<pre>${plain(machineLines(machine))}</pre>
${sections}
${more}
</body></html>
`;
}
