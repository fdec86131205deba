// What virtio 1.4 asks of a driver, clause by clause: where the code names it and which tests prove
// it. Writes build/conformance.json and docs/conformance.md. Fails for a damaged line of the
// catalogue, an unknown clause, a link to a test that does not exist, a clause with neither tests
// nor a reason why there are none, and a reason that is none: a clause that binds this driver.
//
//   node build/tools/conformance.mjs [--check]     --check writes nothing

import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import {
  type Entry,
  findForgotten,
  findSections,
  findTests,
  findUnfounded,
  makeEntries,
  type Outcome,
  parseClauses,
  parseImplemented,
  parseLinks,
  parseTargets,
  type SourceFile,
  shareOfExcused,
  stateOf,
  type Target,
} from "./conformance-catalogue";

const CLAUSES = "test/conformance/clauses";
const LINKS = "test/conformance/links.jsonl";
const TARGETS = "test/conformance/targets.jsonl";
const FEATURES = "drivers/virtio/features.ts";
const RESULTS = "build/test-results.json";
const SOURCES = ["kernel", "drivers", "boot"];
/** Every test there is, as the runner lists them. */
const LIST = "build/tests.txt";
const RUNNER = "test/harness/bin/qemu-test-harness.mjs";

/** What the runner writes of each test. */
interface TestResult {
  readonly suite: string;
  readonly test: string;
  readonly outcome: Outcome;
}

const readSource = (path: string): SourceFile => ({ path, text: readFileSync(path, "utf8") });

function readTree(folder: string): SourceFile[] {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return names
    .filter((name) => /\.(ts|c|h|S)$/.test(name))
    .sort()
    .map((name) => readSource(join(folder, name)));
}

/** Every test there is, as `suite › test`. */
function listTests(problems: string[]): string[] {
  // Into a file: a process that ends at once may lose what it has written to a socket.
  const list = openSync(LIST, "w");
  const { status } = spawnSync(process.execPath, [RUNNER, "list"], {
    stdio: ["ignore", list, "inherit"],
  });
  closeSync(list);
  if (status !== 0) problems.push("the tests cannot be listed");
  return readFileSync(LIST, "utf8")
    .split("\n")
    .map((line) => /^\S+\.test\.ts: (.* › .*)$/.exec(line)?.[1])
    .filter((name) => name !== undefined);
}

/** How tests ended the last time; empty when they have not run. */
function readOutcomes(): Map<string, Outcome> {
  const outcomes = new Map<string, Outcome>();
  if (!existsSync(RESULTS)) return outcomes;
  const { files = [] } = JSON.parse(readFileSync(RESULTS, "utf8")) as {
    readonly files?: readonly { readonly tests: readonly TestResult[] }[];
  };
  for (const { suite, test, outcome } of files.flatMap(({ tests }) => tests)) {
    outcomes.set(`${suite} › ${test}`, outcome);
  }
  return outcomes;
}

// ---- the page ----------------------------------------------------------------------------------------

const files = (code: readonly string[]) => [...new Set(code.map((place) => place.split(":")[0]))];

function count(entries: readonly Entry[]): string {
  const of = (keep: (entry: Entry) => boolean) => entries.filter(keep).length;
  const tested = of(({ tests }) => tests.length > 0);
  const excused = of((entry) => entry.excused !== undefined);
  return `| ${entries.length} | ${tested} | ${excused} | ${entries.length - tested - excused} |`;
}

function proof({ tests, excused }: Entry): string {
  if (excused !== undefined) return `none: ${excused}`;
  if (tests.length === 0) return "";
  const rest = tests.length > 1 ? ` (and ${tests.length - 1} more)` : "";
  return `${(tests[0] ?? "").replaceAll("|", "\\|")}${rest}`;
}

/** The blocks that a conformance clause of §7.2 lists, and how far each of them is. */
function targetTable(target: Target, entries: readonly Entry[]): string[] {
  const { section = "" } = entries.find(({ id }) => id === target.id) ?? {};
  const rows = stateOf(target, entries).map(
    (block) => `| ${block.section} | ${block.clauses} | ${block.tested} | ${block.excused} |`,
  );
  const head = ["| block | clauses | tested | excused |", "|---|---|---|---|"];
  return ["", `## The blocks of ${section} (${target.id})`, "", ...head, ...rows];
}

/** The page has no results and no line numbers, so it changes only when a clause's proof does. */
function page(entries: readonly Entry[], targets: readonly Target[]): string {
  const levels = ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY", "DESCRIPTIVE"];
  const lines = [
    "# Conformance",
    "",
    "Every clause of virtio 1.4 for drivers, the sources that name its section, and a test that",
    "proves it. Written by `tools/conformance.ts` from `test/conformance/`; not to be edited.",
    "`build/conformance.json` has all tests, lines, and results of the last run.",
    "",
    "| level | clauses | tested | excused | open |",
    "|---|---|---|---|---|",
    ...levels.map((level) => `| ${level} ${count(entries.filter((e) => e.level === level))}`),
    `| all ${count(entries)}`,
    ...targets.flatMap((target) => targetTable(target, entries)),
  ];
  const sections = [...new Set(entries.map((entry) => entry.section))].sort((a, b) =>
    a.localeCompare(b, "en", { numeric: true }),
  );
  for (const section of sections) {
    lines.push("", `## ${section}`, "", "| clause | level | code | proof |", "|---|---|---|---|");
    for (const entry of entries.filter((other) => other.section === section)) {
      const code = files(entry.code).join(" ");
      lines.push(`| ${entry.id} | ${entry.level} | ${code} | ${proof(entry)} |`);
    }
  }
  return `${lines.join("\n")}\n`;
}

// ---- the run -----------------------------------------------------------------------------------------

mkdirSync("build", { recursive: true });
const problems: string[] = [];
const catalogue = readdirSync(CLAUSES)
  .sort()
  .map((name) => readSource(join(CLAUSES, name)));
const clauses = parseClauses(catalogue, problems);
const links = parseLinks(readSource(LINKS), clauses, problems);
const tests = findTests(links, listTests(problems), problems);
problems.push(...findForgotten(clauses, links));
const implemented = parseImplemented(readSource(FEATURES).text);
problems.push(...findUnfounded(clauses, links, implemented));
const targets = parseTargets(readSource(TARGETS), clauses, problems);
const sections = findSections(SOURCES.flatMap(readTree));
const entries = makeEntries(clauses, { links, tests, sections, outcomes: readOutcomes() });

for (const problem of problems) console.error(problem);
if (problems.length > 0) {
  console.error(`conformance: ${problems.length} problems; nothing was written`);
  process.exit(1);
}
if (!process.argv.includes("--check")) {
  writeFileSync("build/conformance.json", `${JSON.stringify(entries, null, 1)}\n`);
  writeFileSync("docs/conformance.md", page(entries, targets));
}
const results = new Map<string, number>();
for (const { result } of entries) results.set(result, (results.get(result) ?? 0) + 1);
const summary = [...results].map(([result, number]) => `${number} ${result}`).join(", ");
console.log(`conformance: ${entries.length} clauses: ${summary}`);
const { excused, scope } = shareOfExcused(clauses, links);
const percent = ((100 * excused) / scope).toFixed(1);
console.log(`in scope: ${scope} clauses, ${excused} excused (${percent} %)`);
