// The table of faults (tools/mutants.ts): each still applies to the sources, and what is wrong with the
// table is said. That the tests notice them is `make mutants`, of which a few are done here.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { assert, suite } from "qemu-test-harness";
import { applyMutant, findMisfits, type Mutant, parseMutants } from "../../tools/mutants-table";

const test = suite("mutants", { timeoutMs: 110_000 });

const TABLE = "test/mutants/mutants.jsonl";
const LINKS = "test/conformance/links.jsonl";
const MUTANTS_MIN = 100;
const SAMPLE = 2;
const SAMPLE_TIMEOUT_MS = 100_000;

function readLinks() {
  return readFileSync(LINKS, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as { id: string; tests?: string[]; excused?: string })
    .map(({ excused, id, tests = [] }) => ({ id, tests, excused }));
}

test("every patch of the table applies, and its clause has tests", () => {
  const problems: string[] = [];
  const mutants = parseMutants(TABLE, readFileSync(TABLE, "utf8"), readLinks(), problems);
  assert.equal(problems, []);
  assert.ok(mutants.length >= MUTANTS_MIN);
  const readSource = (path: string) => (existsSync(path) ? readFileSync(path, "utf8") : undefined);
  assert.equal(findMisfits(mutants, readSource), []);
});

const mutant: Mutant = { id: "a", file: "x.ts", find: "one", replace: "two", tests: ["t › t"] };

test("all patches that no longer apply are named at once", () => {
  const table = [mutant, { ...mutant, id: "b" }, { ...mutant, id: "c", file: "y.ts" }];
  const misfits = findMisfits(table, (path) => (path === "x.ts" ? "no thing" : undefined));
  assert.is(misfits.length, 3);
  assert.match(misfits.join("\n"), /^a: 'one'.*\nb: 'one'.*\nc: there is no y.ts/);
});

test("a patch that no longer applies is an error that names it", () => {
  assert.is(applyMutant(mutant, "one thing"), "two thing");
  assert.throws(() => applyMutant(mutant, "no thing"), /a: 'one' stands 0 times in x.ts/);
  assert.throws(() => applyMutant(mutant, "one and one"), /a: 'one' stands 2 times in x.ts/);
  assert.throws(() => applyMutant({ ...mutant, replace: "one" }, "one"), /changes nothing/);
});

for (const [what, line, message] of [
  ["that is cut", '{"id":"a"', /t.jsonl:1: /],
  ["without a file", '{"id":"a","find":"x","replace":"y"}', /t.jsonl:1: a mutant without file/],
  [
    "for a clause without tests",
    '{"id":"z","file":"x","find":"x","replace":"y"}',
    /t.jsonl:1: z: no such clause/,
  ],
] as const) {
  test(`a line ${what} is a problem with its place`, () => {
    const problems: string[] = [];
    parseMutants("t.jsonl", `${line}\n`, [], problems);
    assert.is(problems.length, 1);
    assert.match(problems[0] ?? "", message);
  });
}

test(`${SAMPLE} faults, spread over the table, are noticed`, () => {
  const { status, stdout, stderr } = spawnSync(
    "make",
    ["-s", "mutants", `MUTANTS=--sample ${SAMPLE} --jobs 1`],
    { encoding: "utf8", timeout: SAMPLE_TIMEOUT_MS },
  );
  assert.is(status, 0, `${stdout}${stderr}`);
  assert.match(stdout, /mutants: 2 of 2 killed/);
});

test.run();
