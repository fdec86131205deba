// What `make test` runs once the image is built: type check, Biome, unit tests, integration tests.
// Each step says what it runs and how long it took; the last line is the runner's `N passed, N
// failed, N skipped`.
//
// Arguments go to the runner (`--grep`, paths, …); a static check that fails ends everything.

import { spawnSync } from "node:child_process";
import { main } from "../test/harness/src/cli";
import { exitOnSignals } from "../test/harness/src/run-scope";

const STATUS_FAILED = 1;

interface Step {
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
}

const CHECKS: readonly Step[] = [
  { name: "type check", program: "node_modules/.bin/tsc", args: ["-p", "."] },
  { name: "Biome", program: "node_modules/.bin/biome", args: ["check", "."] },
];

function check(step: Step): boolean {
  console.log(`== ${step.name}: ${[step.program, ...step.args].join(" ")}`);
  const begin = performance.now();
  const { status } = spawnSync(step.program, [...step.args], { stdio: "inherit" });
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  console.log(`== ${step.name}: ${status === 0 ? "ok" : `failed (${status})`}, ${seconds} s`);
  return status === 0;
}

exitOnSignals();
if (process.argv.includes("--help")) {
  console.log("usage: make test [TEST='runner options'] — see also qemu-test-harness run --help");
  process.exit(0);
}
for (const step of CHECKS) {
  if (check(step)) continue;
  console.log("0 passed, 1 failed, 0 skipped");
  process.exit(STATUS_FAILED);
}
console.log("== tests: unit, then integration");
process.exit(await main(["run", ...process.argv.slice(2)]));
