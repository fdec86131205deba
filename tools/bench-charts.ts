/**
 * Charts of the benchmark as SVG text: bars with the range of their samples, and lines over sizes.
 * Called by bench-html.ts, whose style sheet has the classes.
 */

const BAR_HEIGHT = 26;
const LABEL_WIDTH = 300;
const CHART_WIDTH = 520;
const FIGURE_WIDTH = 150;
export const WIDTH = LABEL_WIDTH + CHART_WIDTH + FIGURE_WIDTH;

const LINES_HEIGHT = 300;
const LINES_LEFT = 50;
const LINES_BOTTOM = 30;
const LINES_WIDTH = 640;
const LEGEND_LINE = 19;
const TICKS = 4;

export type Kind = "ours" | "limit" | "other";

export interface Bar {
  readonly name: string;
  readonly kind: Kind;
  readonly value: number;
  readonly low: number;
  readonly high: number;
  /** The value in words. */
  readonly figure: string;
}

export interface Line {
  readonly name: string;
  readonly kind: Kind;
  readonly values: readonly (number | undefined)[];
}

export const plain = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

export function kindOf(contender: string): Kind {
  if (contender.startsWith("vireo")) return "ours";
  return contender.startsWith("bare") ? "limit" : "other";
}

function drawing(title: string, height: number, parts: readonly string[]): string {
  return `<svg viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img"
 aria-label="${plain(title)}">${parts.join("\n")}</svg>`;
}

function drawBar({ name, kind, value, low, high, figure }: Bar, index: number, scale: number) {
  const y = index * BAR_HEIGHT;
  const middle = y + BAR_HEIGHT / 2;
  const x = (at: number) => (LABEL_WIDTH + at * scale).toFixed(1);
  return [
    `<text x="${LABEL_WIDTH - 8}" y="${middle + 5}" text-anchor="end">${plain(name)}</text>`,
    `<rect class="${kind}" x="${LABEL_WIDTH}" y="${y + 4}" width="${(value * scale).toFixed(1)}"`,
    ` height="${BAR_HEIGHT - 8}" rx="2"/>`,
    `<line class="range" x1="${x(low)}" x2="${x(high)}" y1="${middle}" y2="${middle}"/>`,
    `<text class="figure" x="${WIDTH}" y="${middle + 5}" text-anchor="end">${plain(figure)}</text>`,
  ].join("");
}

export function barChart(title: string, bars: readonly Bar[]): string {
  const most = Math.max(...bars.map(({ high }) => high), Number.MIN_VALUE);
  const parts = bars.map((bar, index) => drawBar(bar, index, CHART_WIDTH / most));
  return drawing(title, bars.length * BAR_HEIGHT, parts);
}

/** Whose quarters can be read. */
const ROUND = [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8];

/** A round number that is not below `value`. */
function roundUp(value: number): number {
  const unit = 10 ** Math.floor(Math.log10(Math.max(value, Number.MIN_VALUE)));
  return (ROUND.find((factor) => factor * unit >= value) ?? 10) * unit;
}

/** Lines over `columns`, evenly spaced, with a legend; a missing value has no point. */
export function lineChart(title: string, columns: readonly string[], lines: readonly Line[]) {
  const most = roundUp(Math.max(...lines.flatMap(({ values }) => values.map((v) => v ?? 0))));
  const bottom = LINES_HEIGHT - LINES_BOTTOM;
  const step = (LINES_WIDTH - LINES_LEFT) / Math.max(columns.length - 0.5, 1);
  const x = (at: number) => LINES_LEFT + (at + 0.25) * step;
  const y = (value: number) => bottom - (value / most) * (bottom - 10);
  const parts: string[] = [];
  for (let tick = 0; tick <= TICKS; tick++) {
    const value = Number(((most * tick) / TICKS).toPrecision(3));
    const at = y(value).toFixed(1);
    parts.push(
      `<line class="grid" x1="${LINES_LEFT}" x2="${LINES_WIDTH}" y1="${at}" y2="${at}"/>` +
        `<text x="${LINES_LEFT - 6}" y="${at}" dy="4" text-anchor="end">${value}</text>`,
    );
  }
  for (const [at, column] of columns.entries()) {
    const place = `x="${x(at).toFixed(1)}" y="${LINES_HEIGHT - 8}" text-anchor="middle"`;
    parts.push(`<text class="small" ${place}>${plain(column)}</text>`);
  }
  for (const [index, { name, kind, values }] of lines.entries()) {
    const points = values.flatMap((value, at) =>
      value === undefined ? [] : [[x(at).toFixed(1), y(value).toFixed(1)]],
    );
    const style = `class="${kind}-line" stroke-dasharray="${index === 0 ? "none" : index * 3}"`;
    const legend = 20 + index * LEGEND_LINE;
    parts.push(
      `<polyline ${style} points="${points.map((point) => point.join(",")).join(" ")}"/>`,
      ...points.map(([cx, cy]) => `<circle class="${kind}" cx="${cx}" cy="${cy}" r="3"/>`),
      `<line ${style} x1="${LINES_WIDTH + 15}" x2="${LINES_WIDTH + 55}" y1="${legend - 4}"` +
        ` y2="${legend - 4}"/>` +
        `<text x="${LINES_WIDTH + 62}" y="${legend}">${plain(name)}</text>`,
    );
  }
  return drawing(title, Math.max(LINES_HEIGHT, 20 + lines.length * LEGEND_LINE), parts);
}
