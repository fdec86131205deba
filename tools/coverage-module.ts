/**
 * Builds the module once more, with a counter in each piece of drivers/ (instrument.ts), for the
 * fuzzer: build/coverage/vireo.wasm and the list of its points. The same sources and the same
 * compiler options otherwise. Used by fuzz.ts.
 */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { FIRST_POINT, instrument, type Point } from "./instrument";

const WORK = "build/coverage";
const SOURCES = `${WORK}/src`;
const COUNTED = "drivers";
const PAGE_BYTES = 4096;

export interface CoverageModule {
  readonly path: string;
  readonly points: readonly Point[];
}

function sourcesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .sort()
    .map((name) => join(folder, name));
}

/** asconfig.json with room for the counters below the module's data. */
function writeConfig(points: number, isQuick: boolean): void {
  const config = JSON.parse(readFileSync("asconfig.json", "utf8")) as {
    options: { memoryBase: number; optimizeLevel: number; converge: boolean };
  };
  if (isQuick) Object.assign(config.options, { optimizeLevel: 0, converge: false });
  config.options.memoryBase = Math.ceil((FIRST_POINT + points) / PAGE_BYTES) * PAGE_BYTES;
  writeFileSync(`${SOURCES}/asconfig.json`, JSON.stringify(config));
}

/**
 * `isQuick`: not optimized, for few cases. Throws with the compiler's output when it does not compile.
 */
export function buildCoverageModule(isQuick = false): CoverageModule {
  rmSync(WORK, { recursive: true, force: true });
  mkdirSync(SOURCES, { recursive: true });
  for (const folder of ["kernel", COUNTED]) {
    cpSync(folder, `${SOURCES}/${folder}`, { recursive: true });
  }
  const points: Point[] = [];
  for (const file of sourcesBelow(COUNTED)) {
    writeFileSync(`${SOURCES}/${file}`, instrument(file, readFileSync(file, "utf8"), points));
  }
  writeConfig(points.length, isQuick);
  const output = resolve(WORK, "vireo.wasm");
  const asc = resolve("node_modules/.bin/asc");
  const args = ["--config", "asconfig.json", "--target", "release", "--outFile", output];
  execFileSync(asc, args, { cwd: SOURCES, stdio: ["ignore", "inherit", "inherit"] });
  return { path: `${WORK}/vireo.wasm`, points };
}

// ---- the report --------------------------------------------------------------------------------

interface Share {
  hit: number;
  all: number;
}

export interface CoverageReport {
  /** Per file, then the sum: lines and branches. */
  readonly rows: readonly {
    readonly file: string;
    readonly lines: Share;
    readonly branches: Share;
  }[];
  /** What no case reached, `file:line` and what. */
  readonly missed: readonly string[];
}

/** `seen`: a byte a point. */
export function reportCoverage(points: readonly Point[], seen: Uint8Array): CoverageReport {
  const files = new Map<string, { lines: Map<number, boolean>; branches: Share }>();
  const missed: string[] = [];
  points.forEach(({ end, file, kind, line, way }, index) => {
    const hit = seen[index] !== 0;
    const known = files.get(file) ?? { lines: new Map(), branches: { hit: 0, all: 0 } };
    files.set(file, known);
    if (kind === "branch") {
      known.branches.all++;
      known.branches.hit += Number(hit);
    } else {
      for (let at = line; at <= end; at++)
        known.lines.set(at, (known.lines.get(at) ?? false) || hit);
    }
    if (!hit) missed.push(`${file}:${line} ${kind === "branch" ? way : "not run"}`);
  });
  const rows = [...files].map(([file, { branches, lines }]) => {
    const hit = [...lines.values()].filter((is) => is).length;
    return { file, lines: { hit, all: lines.size }, branches };
  });
  const sum = (of: (row: (typeof rows)[number]) => Share): Share => ({
    hit: rows.reduce((total, row) => total + of(row).hit, 0),
    all: rows.reduce((total, row) => total + of(row).all, 0),
  });
  const all = {
    file: COUNTED,
    lines: sum((row) => row.lines),
    branches: sum((row) => row.branches),
  };
  return { rows: [...rows, all], missed };
}

const partOf = ({ hit, all }: Share) => (100 * hit) / Math.max(1, all);
const percent = (share: Share) => `${partOf(share).toFixed(1)} %`;

/** Of all files together, in percent. */
export function percentages({ rows }: CoverageReport): { lines: number; branches: number } {
  const all = rows.at(-1);
  if (all === undefined) throw new Error("a coverage report without a sum");
  return { lines: partOf(all.lines), branches: partOf(all.branches) };
}

export function formatCoverage({ rows }: CoverageReport): string {
  const lines = rows.map(({ branches, file, lines: ran }) => {
    const counts = [`${ran.hit}/${ran.all}`, percent(ran), `${branches.hit}/${branches.all}`];
    const [a = "", b = "", c = ""] = counts;
    const d = percent(branches);
    return `${file.padEnd(34)}${a.padStart(11)}${b.padStart(9)}${c.padStart(11)}${d.padStart(9)}`;
  });
  const head = `${"".padEnd(34)}${"lines".padStart(20)}${"branches".padStart(20)}`;
  return [head, ...lines].join("\n");
}
