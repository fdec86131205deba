/**
 * `make mutants`: puts faults into copies of the driver, one at a time, and runs the tests of the
 * clause that each breaks: they must fail. Prints the score. What was found is kept by content in
 * build/mutants/cache.json, so that only what has changed is done again. Exit status 1 if a patch no
 * longer applies or does not compile, if the tests fail without a fault, or if the score is too low.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
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
import { parseArgs } from "node:util";
import { exitOnSignals } from "../test/harness/src/run-scope";
import { findTests, parseClauses, parseLinks } from "./conformance-catalogue";
import { applyMutant, findMisfits, type Mutant, parseMutants } from "./mutants-table";

const USAGE = `usage: make mutants [MUTANTS='options']

  --grep PATTERN   only mutants whose name matches the regular expression
  --sample N       only N of them, spread over the table
  --jobs N         tests at a time (default: 2)
  --seconds N      ends after so many seconds; what is left is done by the next run
  --fresh          does everything again`;

const TABLE = "test/mutants/mutants.jsonl";
const CLAUSES = "test/conformance/clauses";
const LINKS = "test/conformance/links.jsonl";
const WORK = "build/mutants";
const CACHE = `${WORK}/cache.json`;
const RUNNER = "test/harness/bin/qemu-test-harness.mjs";
const SOURCES = ["kernel", "drivers"];
const TESTS = ["test/unit", "test/model"];
const HOSTILE = "test/hostile";
/** Of a clause's tests so many suffice. */
const TESTS_MAX = 24;
const KILLED_MIN_PERCENT = 95;

/** Of a mutant; or of tests without any fault. */
type Verdict = "killed" | "survived" | "passed";

interface Job {
  readonly mutant: Mutant;
  readonly key: string;
  /** Test names by file. */
  readonly files: ReadonlyMap<string, readonly string[]>;
}

// ---- sources -----------------------------------------------------------------------------------

function readTree(folders: readonly string[]): Map<string, string> {
  const files = folders.flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts"))
      .map((name) => join(folder, name)),
  );
  return new Map(files.sort().map((file) => [file, readFileSync(file, "utf8")]));
}

const sources = readTree(SOURCES);

function hashOf(texts: Iterable<string>): string {
  const hash = createHash("sha256");
  for (const text of texts) hash.update(text).update("\0");
  return hash.digest("hex");
}

/** What asconfig.json says, for the compiler's command line; not optimized, which is faster. */
function compilerArguments(output: string): string[] {
  const { entries, options } = JSON.parse(readFileSync("asconfig.json", "utf8")) as {
    entries: string[];
    options: Record<string, string | number | boolean | string[]>;
  };
  const args = Object.entries(options).flatMap(([name, value]) => {
    if (name === "optimizeLevel" || name === "converge" || value === false) return [];
    const values = Array.isArray(value) ? value : [value];
    return value === true ? [`--${name}`] : values.flatMap((one) => [`--${name}`, String(one)]);
  });
  return [...entries, ...args, "--optimizeLevel", "0", "--outFile", output];
}

/** The compiler's own types bring globals along that Node's contradict: what is used of it. */
interface Compiler {
  main(
    args: readonly string[],
    files: {
      readFile(path: string): string | null;
      writeFile(path: string, contents: string | Uint8Array): void;
    },
  ): Promise<{ readonly error: Error | null; readonly stderr: { toString(): string } }>;
}

const COMPILER: string = "assemblyscript/asc";
const { default: asc } = (await import(COMPILER)) as { readonly default: Compiler };

/** Compiles the sources with one of them replaced; answers the module's path. */
async function compile(name: string, file: string, text: string): Promise<string> {
  const output = `${WORK}/${name}.wasm`;
  const { error, stderr } = await asc.main(compilerArguments(output), {
    readFile: (path) => {
      const known = path === file ? text : sources.get(path);
      if (known !== undefined) return known;
      return existsSync(path) ? readFileSync(path, "utf8") : null;
    },
    writeFile: (path, contents) => writeFileSync(path, contents),
  });
  if (error !== null) throw new Error(`${name} does not compile: ${stderr.toString()}`);
  return output;
}

// ---- tests -------------------------------------------------------------------------------------

/** The file of each test, by `suite › test`. */
function listTests(): Map<string, string> {
  // Into a file: a process that ends at once may lose what it has written to a pipe.
  const path = `${WORK}/tests.txt`;
  const list = openSync(path, "w");
  const args = [RUNNER, "list", "test/unit", "test/hostile"];
  const { status } = spawnSync(process.execPath, args, { stdio: ["ignore", list, "inherit"] });
  closeSync(list);
  if (status !== 0) throw new Error("the tests cannot be listed");
  const tests = new Map<string, string>();
  for (const line of readFileSync(path, "utf8").split("\n")) {
    const [, file, name] = /^(\S+\.test\.ts): (.* › .*)$/.exec(line) ?? [];
    if (file !== undefined && name !== undefined) tests.set(name, file);
  }
  return tests;
}

const children = new Set<ReturnType<typeof spawn>>();
process.on("exit", () => {
  for (const child of children) child.kill();
});

function run(
  args: readonly string[],
  variables: Readonly<Record<string, string>>,
): Promise<number | null> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, ...variables };
    const child = spawn(process.execPath, args, { env, stdio: "ignore" });
    children.add(child);
    child.on("error", reject);
    child.on("close", (status) => {
      children.delete(child);
      resolve(status);
    });
  });
}

const escaped = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** Runs tests of one file on a module: how many passed and failed. */
async function runTests(module: string, file: string, names: readonly string[], name: string) {
  const pattern = `^(${names.map((one) => escaped(one.replace(" › ", " "))).join("|")})$`;
  const json = `${WORK}/${name}.json`;
  const outputs = ["--json", json, "--junit", `${json}.xml`, "--artifacts", `${WORK}/artifacts`];
  const options = ["run", file, "--grep", pattern, "--jobs", "1", ...outputs];
  const status = await run([RUNNER, ...options], { VIREO_WASM: module });
  if (status !== 0 && status !== 1) throw new Error(`${file}: the runner ended with ${status}`);
  const { files } = JSON.parse(readFileSync(json, "utf8")) as {
    files: { tests: { outcome: string }[] }[];
  };
  const outcomes = files.flatMap(({ tests }) => tests.map(({ outcome }) => outcome));
  const failed = outcomes.filter((outcome) => outcome === "failed").length;
  return { failed, passed: outcomes.filter((outcome) => outcome === "passed").length };
}

// ---- the run -----------------------------------------------------------------------------------

type Cache = Map<string, Verdict>;

function readCache(): Cache {
  if (!existsSync(CACHE)) return new Map();
  return new Map(
    Object.entries(JSON.parse(readFileSync(CACHE, "utf8")) as Record<string, Verdict>),
  );
}

function remember(cache: Cache, key: string, verdict: Verdict): void {
  cache.set(key, verdict);
  writeFileSync(CACHE, JSON.stringify(Object.fromEntries(cache)));
}

const isShared = ([file]: readonly [string, string]) => !file.endsWith(".test.ts");
const textsOf = (folders: readonly string[]) =>
  hashOf([...readTree(folders)].filter(isShared).map(([, text]) => text));
const shared = textsOf(TESTS);
const hostile = textsOf([HOSTILE]);

/** Of everything that decides how these tests of a file end, but for the sources. */
function hashOfTests(file: string, names: readonly string[]): string {
  const helpers = [shared, file.startsWith(HOSTILE) ? hostile : ""];
  return hashOf([...helpers, readFileSync(file, "utf8"), ...names]);
}

function plan(mutants: readonly Mutant[], tests: ReadonlyMap<string, string>, problems: string[]) {
  const links = mutants.map(({ id, tests: names }) => ({ id, tests: names, excused: undefined }));
  const unitLinks = links.map((link) => ({
    ...link,
    // Tests of the image in QEMU do not run on a module.
    tests: link.tests.filter(
      (name) => findTests([{ ...link, tests: [name] }], [...tests.keys()], []).get(link.id)?.length,
    ),
  }));
  const found = findTests(unitLinks, [...tests.keys()], problems);
  return mutants.map((mutant): Job => {
    const names = (found.get(mutant.id) ?? []).slice(0, TESTS_MAX);
    const files = new Map<string, string[]>();
    for (const name of names) {
      const file = tests.get(name) ?? "";
      files.set(file, [...(files.get(file) ?? []), name]);
    }
    if (names.length === 0) problems.push(`${mutant.id}: none of its tests runs on a module`);
    const patched = applyMutant(mutant, sources.get(mutant.file) ?? "");
    const rest = [...sources].filter(([file]) => file !== mutant.file).map(([, text]) => text);
    const tested = [...files].map(([file, some]) => hashOfTests(file, some));
    return { mutant, key: hashOf([patched, ...rest, ...tested]), files };
  });
}

async function judge({ files, mutant }: Job, name: string): Promise<Verdict> {
  const patched = applyMutant(mutant, sources.get(mutant.file) ?? "");
  const module = await compile(name, mutant.file, patched);
  for (const [file, names] of files) {
    const { failed, passed } = await runTests(module, file, names, name);
    if (failed + passed === 0) throw new Error(`${mutant.id}: no test of ${file} ran`);
    if (failed > 0) return "killed";
  }
  return "survived";
}

/** Without a fault the same tests pass, or their failing would prove nothing. */
async function checkBaseline(jobs: readonly Job[], cache: Cache, problems: string[]) {
  const files = new Map<string, Set<string>>();
  for (const [file, names] of jobs.flatMap((job) => [...job.files])) {
    files.set(file, new Set([...(files.get(file) ?? []), ...names]));
  }
  let module: string | undefined;
  for (const [file, names] of files) {
    const key = hashOf([...sources.values(), hashOfTests(file, [...names].sort())]);
    if (cache.has(key)) continue;
    module ??= await compile("baseline", "", "");
    const { failed } = await runTests(module, file, [...names], "baseline");
    if (failed > 0) problems.push(`${file}: ${failed} tests fail without any fault`);
    else remember(cache, key, "passed");
  }
}

async function work(jobs: readonly Job[], count: number, endMs: number, cache: Cache) {
  const problems: string[] = [];
  let next = 0;
  const worker = async (index: number) => {
    while (next < jobs.length && performance.now() < endMs) {
      const job = jobs[next++];
      if (job === undefined) return;
      try {
        const verdict = await judge(job, `mutant-${index}`);
        remember(cache, job.key, verdict);
        console.log(`${verdict.padEnd(9)} ${job.mutant.id}`);
      } catch (error) {
        problems.push(error instanceof Error ? error.message : String(error));
      }
    }
  };
  await Promise.all(Array.from({ length: count }, (_, index) => worker(index)));
  return problems;
}

function readMutants(problems: string[]): Mutant[] {
  const catalogue = readdirSync(CLAUSES).map((name) => {
    const path = join(CLAUSES, name);
    return { path, text: readFileSync(path, "utf8") };
  });
  const clauses = parseClauses(catalogue, problems);
  const file = { path: LINKS, text: readFileSync(LINKS, "utf8") };
  const links = parseLinks(file, clauses, problems);
  return parseMutants(TABLE, readFileSync(TABLE, "utf8"), links, problems);
}

function fail(problems: readonly string[]): number {
  for (const problem of problems) console.error(problem);
  console.error(`mutants: ${problems.length} problems`);
  return 1;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      grep: { type: "string", default: "" },
      sample: { type: "string", default: "0" },
      jobs: { type: "string", default: "2" },
      seconds: { type: "string", default: "86400" },
      fresh: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  mkdirSync(WORK, { recursive: true });
  const endMs = performance.now() + Number(values.seconds) * 1000;
  const problems: string[] = [];
  const table = readMutants(problems);
  problems.push(...findMisfits(table, (path) => sources.get(path)));
  if (problems.length > 0) return fail(problems);
  const matching = table.filter(({ id }) => new RegExp(values.grep).test(id));
  const step = Number(values.sample) > 0 ? Math.ceil(matching.length / Number(values.sample)) : 1;
  const wanted = matching.filter((_, index) => index % step === 0);
  const jobs = plan(wanted, listTests(), problems);
  if (problems.length > 0) return fail(problems);
  const cache = values.fresh ? new Map() : readCache();
  const open = jobs.filter(({ key }) => !cache.has(key));
  console.log(`mutants: ${jobs.length}, of which ${open.length} are new`);
  if (open.length > 0) await checkBaseline(jobs, cache, problems);
  if (problems.length > 0) return fail(problems);
  problems.push(...(await work(open, Number(values.jobs), endMs, cache)));
  if (problems.length > 0) return fail(problems);
  return report(jobs, cache);
}

function report(jobs: readonly Job[], cache: Cache): number {
  const done = jobs.filter(({ key }) => cache.has(key));
  const survivors = done.filter(({ key }) => cache.get(key) === "survived");
  for (const { mutant } of survivors) console.log(`survived: ${mutant.id} (${mutant.file})`);
  const killed = done.length - survivors.length;
  const percent = (100 * killed) / Math.max(1, done.length);
  const left = jobs.length - done.length;
  const rest = left > 0 ? `, ${left} not done yet` : "";
  console.log(`mutants: ${killed} of ${done.length} killed, ${percent.toFixed(1)} %${rest}`);
  return percent < KILLED_MIN_PERCENT || left > 0 ? 1 : 0;
}

exitOnSignals();
// Called by a test, it runs tests of its own, which are no part of that run.
for (const name of Object.keys(process.env)) {
  if (name.startsWith("QEMU_TEST_HARNESS_")) delete process.env[name];
}
try {
  process.exitCode = await main();
} catch (error) {
  console.error(`mutants: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
