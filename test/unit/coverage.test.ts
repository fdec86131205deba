// What `make fuzz` counts of drivers/ (tools/instrument.ts): a small source with counters is compiled
// and run, and the places are looked at that it has and has not come by.

import { assert, suite } from "qemu-test-harness";
import { formatCoverage, reportCoverage } from "../../tools/coverage-module";
import { FIRST_POINT, instrument, type Point } from "../../tools/instrument";

const test = suite("coverage", { timeoutMs: 60_000 });

/** The compiler's own types bring globals along that Node's contradict: what is used of it. */
interface Compiler {
  compileString(
    source: string,
    options: Readonly<Record<string, string | number | boolean>>,
  ): Promise<{
    readonly binary: Uint8Array | null;
    readonly stderr: { toString(): string };
  }>;
}

const COMPILER: string = "assemblyscript/asc";
const { default: asc } = (await import(COMPILER)) as { readonly default: Compiler };
const MEMORY_BASE = 4096;

interface Run {
  readonly points: readonly Point[];
  /** Calls `run` with each value, on a module of its own; the missed places as `line way`. */
  missedBy(...values: readonly number[]): string[];
  /** What `run` answers. */
  call(value: number): number;
}

async function compile(source: string): Promise<Run> {
  const points: Point[] = [];
  const text = instrument("x.ts", source, points);
  const options = { runtime: "stub", optimizeLevel: 3, memoryBase: MEMORY_BASE, noAssert: true };
  const { binary, stderr } = await asc.compileString(text, options);
  if (binary === null) throw new Error(`${stderr.toString()}\n${text}`);
  const module = new WebAssembly.Module(Uint8Array.from(binary));
  const open = () => {
    const abort = () => {
      throw new Error("the source aborts");
    };
    const { exports } = new WebAssembly.Instance(module, { env: { abort } });
    const memory = exports.memory as WebAssembly.Memory;
    return { bytes: new Uint8Array(memory.buffer), run: exports.run as (value: number) => number };
  };
  return {
    points,
    call: (value) => open().run(value),
    missedBy: (...values) => {
      const { bytes, run } = open();
      for (const value of values) run(value);
      const seen = bytes.subarray(FIRST_POINT, FIRST_POINT + points.length);
      return reportCoverage(points, seen).missed.map((place) => place.replace("x.ts:", ""));
    },
  };
}

const WAYS = `export function run(value: u32): u32 {
  let sum: u32 = 0;
  for (let i: u32 = 0; i < value; i++) {
    sum += i;
  }
  if (sum > 10) sum = 10;
  else if (sum == 1) {
    sum = 2;
  }
  return sum == 10 ? 1 : sum;
}
`;

test("if, else, ?: and loops: each way is a place of its own", async () => {
  const { missedBy } = await compile(WAYS);
  const missed = ["3 again", "4 not run", "6 then", "6 not run", "7 then", "8 not run", "10 true"];
  assert.equal(missedBy(0).sort(), missed.sort());
  assert.equal(missedBy(0, 2, 9), []);
});

const SIDES = `class Item { next: Item | null = null; value: u32 = 0 }
const last = new Item();
const head = new Item();
export function run(value: u32): u32 {
  head.next = value > 3 ? last : null;
  const next = head.next;
  if (next != null && next.value == 0 && value != 9) return next.value + 1;
  const two = head.next;
  if (two == null || two.value > 5) return 2;
  return two.value == 0 && value == 9 ? 3 : 4;
}
`;

test("&& and ||: a right side is a place, also where null is asked for on either side", async () => {
  const { call, missedBy } = await compile(SIDES);
  const missed = ["5 true", "7 then", "7 and", "7 and", "7 not run", "9 else", "9 or"];
  missed.push("10 true", "10 false", "10 and", "10 not run");
  assert.equal(missedBy(1).sort(), missed.sort());
  assert.equal(missedBy(4, 9).sort(), ["10 false", "5 false", "9 then", "9 not run"].sort());
  assert.equal([1, 4, 9].map(call), [2, 1, 3]);
});

const CASES = `const table = new StaticArray<u32>(4);
export function run(value: u32): u32 {
  switch (value) {
    case 1:
    case 2:
      return table[value];
    case 3:
      return 3;
    default:
      return 4;
  }
}
`;

test("switch: each case that does something; the check of an index is not counted", async () => {
  const { missedBy, points } = await compile(CASES);
  assert.equal(missedBy(2).sort(), ["7 case", "8 not run", "9 case", "10 not run"].sort());
  assert.is(points.filter(({ kind }) => kind === "branch").length, 3);
});

const CONSTANTS = `const isLarge: bool = 3 > 2 && 2 > 1;
const some: u32 = isLarge ? 1 : 2;
export function run(value: u32): u32 {
  return some + value;
}
`;

test("what stands outside of functions has no places", async () => {
  const { points } = await compile(CONSTANTS);
  assert.equal(
    points.map(({ kind, line }) => ({ kind, line })),
    [{ kind: "lines", line: 4 }],
  );
});

test("the report counts a line once, hit if anything on it was, and each branch by itself", () => {
  const place = { file: "a.ts", end: 0, way: "" };
  const points: Point[] = [
    { ...place, kind: "lines", line: 1, end: 3 },
    { ...place, kind: "lines", line: 3, end: 3 },
    { ...place, kind: "branch", line: 3, way: "then" },
    { ...place, kind: "branch", line: 3, way: "else" },
  ];
  const report = reportCoverage(points, Uint8Array.of(1, 0, 0, 1));
  assert.equal(report.missed, ["a.ts:3 not run", "a.ts:3 then"]);
  const sum = { lines: { hit: 3, all: 3 }, branches: { hit: 1, all: 2 } };
  assert.equal(report.rows, [
    { file: "a.ts", ...sum },
    { file: "drivers", ...sum },
  ]);
  assert.match(formatCoverage(report), /drivers +3\/3 +100\.0 % +1\/2 +50\.0 %/);
});

test.run();
