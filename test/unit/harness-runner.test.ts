// The runner against test files that misbehave: each must fail the run, whatever status it ends
// with.

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, runCommand, suite } from "qemu-test-harness";

const CLI = "test/harness/bin/qemu-test-harness.mjs";
const FIXTURES = "test/harness/fixtures";

const directory = mkdtempSync(join(tmpdir(), "harness-runner-"));
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));

async function runFixture(...args: string[]) {
  const json = join(directory, "results.json");
  const junit = join(directory, "results.xml");
  const outputs = ["--json", json, "--junit", junit, "--artifacts", join(directory, "artifacts")];
  // The runner under test is a run of its own, not a part of the run that tests it.
  const own = ["env", "-u", "QEMU_TEST_HARNESS_RUN", "-u", "QEMU_TEST_HARNESS_GREP"];
  const result = await runCommand([...own, "node", CLI, "run", ...outputs, ...args], {
    timeoutMs: 60_000,
  });
  const lines = result.stdout.trimEnd().split("\n");
  return { ...result, last: lines.at(-1), json, junit };
}

const test = suite("harness runner", { timeoutMs: 70_000 });

const MISBEHAVING = [
  ["hanging", "0 passed, 2 failed, 0 skipped", /exceeds its deadline of 300 ms/],
  ["busy", "0 passed, 1 failed, 0 skipped", /exceeds its deadline of 300 ms/],
  ["before-throws", "0 passed, 2 failed, 0 skipped", /the hook has failed/],
  ["no-test", "0 passed, 1 failed, 0 skipped", /registers no test/],
  ["forgotten-run", "0 passed, 1 failed, 0 skipped", /call its run\(\)/],
  ["exits-early", "0 passed, 2 failed, 0 skipped", /it ended with status/],
  ["only", "1 passed, 2 failed, 0 skipped", /`.only` is left in/],
] as const;

for (const [name, closing, reason] of MISBEHAVING) {
  test(`the fixture '${name}' fails the run`, async () => {
    const result = await runFixture(`${FIXTURES}/${name}.test.ts`);
    assert.is(result.last, closing, result.stdout + result.stderr);
    assert.match(result.stdout, reason);
    assert.is(result.status, 1);
    const sleeping = await runCommand(["pgrep", "-f", "^sleep 613$"]);
    assert.is(sleeping.stdout, "", "a program that a test file started is still there");
  });
}

test("passed, failed and skipped tests are told apart, with reasons and artefacts", async () => {
  const result = await runFixture(`${FIXTURES}/mixed.test.ts`);
  assert.is(result.last, "1 passed, 1 failed, 1 skipped", result.stdout + result.stderr);
  assert.match(result.stdout, /skipped 1: this machine has no flux capacitor/);
  assert.match(result.stdout, /a line for the log/);
  const kept = join(directory, "artifacts/mixed/fails/note.txt");
  assert.ok(result.stdout.includes(`kept: ${kept}`));
  assert.ok(existsSync(kept));
  const { counts } = JSON.parse(readFileSync(result.json, "utf8")) as { counts: unknown };
  assert.equal(counts, { passed: 1, failed: 1, skipped: 1 });
  assert.match(readFileSync(result.junit, "utf8"), /tests="3" failures="1" skipped="1"/);
});

test("--grep selects tests by suite and name", async () => {
  const result = await runFixture("--grep", "mixed passes", `${FIXTURES}/mixed.test.ts`);
  assert.is(result.last, "1 passed, 0 failed, 0 skipped", result.stdout + result.stderr);
  assert.is(result.status, 0);
});

test("a run in which nothing passes fails", async () => {
  const result = await runFixture("--grep", "is skipped", `${FIXTURES}/mixed.test.ts`);
  assert.is(result.last, "0 passed, 0 failed, 1 skipped", result.stdout + result.stderr);
  assert.is(result.status, 1);
});

test("what a test leaves behind fails the run, is named, and is taken away", async () => {
  const result = await runFixture(`${FIXTURES}/leaves-behind.test.ts`);
  assert.is(result.last, "1 passed, 1 failed, 0 skipped", result.stdout + result.stderr);
  assert.match(result.stdout, /nothing is left at the end/);
  assert.match(result.stdout, /process \d+: sleep 614/);
  assert.match(result.stdout, /directory .*qth-/);
  const left = await runCommand(["pgrep", "-f", "^sleep 614$"]);
  assert.is(left.stdout, "");
});

test("an image that is not there is one line and status 3", async () => {
  const result = await runFixture("--image", "no/such/image", `${FIXTURES}/mixed.test.ts`);
  assert.is(result.stderr, "image no/such/image not found: build it with 'make image'\n");
  assert.is(result.stdout, "");
  assert.is(result.status, 3);
});

test("wrong usage is told apart from missing files by the exit status", async () => {
  assert.is((await runFixture("--jobs", "none")).status, 2);
  assert.is((await runFixture("--no-such-option")).status, 2);
  assert.is((await runFixture("no/such/path")).status, 3);
});

test("--list names the tests and runs none", async () => {
  const result = await runFixture("--list", `${FIXTURES}/hanging.test.ts`);
  assert.match(result.stdout, /hanging › waits for ever\n.*hanging › comes too late/);
  assert.is(result.status, 0);
});

test.run();
