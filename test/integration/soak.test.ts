// The soak itself: ten seconds of it, and that it finds a planted fault, makes it small, and prints a
// command line that shows it again. Longer: `make soak`.
//
// Shares the machine: nothing in it is timed.

import { assert, runCommand, suite } from "qemu-test-harness";

const SOAK = "build/tools/soak.mjs";
const SECONDS = 10;
/** The third step of its first episode is a flap, the seventh and last a reset. */
const PLANTED_SEED = 381;

const test = suite("soak", { timeoutMs: 240_000 });

function soak(...args: string[]) {
  return runCommand([process.execPath, SOAK, ...args], { timeoutMs: 230_000 });
}

test(`${SECONDS} seconds of random guests, traffic and faults`, async (t) => {
  const { status, stdout, stderr } = await soak("--seconds", String(SECONDS), "--seed", "1");
  const last = stdout.trimEnd().split("\n").at(-1) ?? "";
  t.log(last);
  assert.is(status, 0, stdout + stderr);
  assert.match(last, /^[1-9]\d* episodes with [1-9]\d* steps, none failed; seed 1$/);
});

test("a planted fault is found and shrunk, and the line that is printed shows it again", async () => {
  const seed = ["--seed", String(PLANTED_SEED), "--episode", "0"];
  const well = await soak(...seed);
  assert.is(well.status, 0, well.stdout + well.stderr);
  const found = await soak(...seed, "--planted");
  assert.is(found.status, 1, found.stdout + found.stderr);
  assert.match(found.stdout, /FAILED in step 7, reset .*: \d+ of 40 datagrams came back/);
  // The fault wants a flap and a later reset of the device, and nothing else.
  const [, left = ""] = /shrunk in \d+ runs to\n([\s\S]*)\nFAILED/.exec(found.stdout) ?? [];
  assert.match(left, /^.*\n {2}1\. flap .*\n {2}2\. reset .*$/);
  const [, line = ""] = /^again: make soak SOAK="(.*)"$/m.exec(found.stdout) ?? [];
  assert.match(line, /--steps 3,7 /);
  const again = await soak(...line.split(" "));
  assert.is(again.status, 1, again.stdout + again.stderr);
  assert.match(again.stdout, /FAILED in step 2, reset/);
});

test("the same seed makes the same episodes; wrong words are one line and status 2", async () => {
  const list = async (seed: string) => (await soak("--list", "--seed", seed)).stdout;
  const first = await list("7");
  assert.is(await list("7"), first);
  assert.is.not(await list("8"), first);
  for (const [args, message] of [
    [["--plain", "colour"], /there is no part 'colour'/],
    [["--steps", "1"], /say --episode N as well/],
    [["--minutes", "soon"], /wants a number from 0 on, not 'soon'/],
  ] as const) {
    const { status, stderr } = await soak(...args);
    assert.is(status, 2);
    assert.match(stderr, message);
    assert.is(stderr.trimEnd().split("\n").length, 1);
  }
});

test.run();
