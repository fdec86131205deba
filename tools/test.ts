// What `make test` runs once the image is built: the static checks, unit tests, integration tests.
// Each step says what it runs and how long it took; the last line is `N passed, N failed, N
// skipped`, of the tests or, when a check fails, of the checks.
//
// Arguments go to the runner (`--grep`, paths, …).

import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { main } from "../test/harness/src/cli";
import { exitOnSignals } from "../test/harness/src/run-scope";
import { closingLine } from "../test/harness/src/runner/results";

const STATUS_FAILED = 1;
const CHECK_TIMEOUT_MS = 120_000;

const USAGE = `usage: make test [TEST='options paths']

  make test                                        static checks, then all tests
  make test TEST='--grep ring'                     only tests whose name has 'ring' in it
  make test TEST=test/integration/boot.test.ts     only this file
  make test TEST='--list'                          name the tests without running them

All options: node test/harness/bin/qemu-test-harness.mjs run --help`;

interface Step {
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
}

const bin = (name: string) => `node_modules/.bin/${name}`;
const sourcesInC = ["boot", "test/bench"].flatMap((folder) =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => /\.[ch]$/.test(name))
    .map((name) => `${folder}/${name}`),
);

/** Warnings fail too; what is below them (remarks on its own configuration) is not shown. */
const BIOME_LEVEL = ["--error-on-warnings", "--diagnostic-level=warn"];
const CHECKS: readonly Step[] = [
  { name: "types of tools and tests", program: bin("tsc"), args: ["-p", "."] },
  {
    name: "types of kernel and drivers",
    program: bin("tsc"),
    args: ["-p", "tsconfig.as.json"],
  },
  { name: "Biome", program: bin("biome"), args: ["check", ...BIOME_LEVEL, "."] },
  { name: "clauses", program: process.execPath, args: ["build/tools/conformance.mjs", "--check"] },
  { name: "format of C", program: "clang-format", args: ["--dry-run", "-Werror", ...sourcesInC] },
];

function secondsSince(begin: number): string {
  return `${((performance.now() - begin) / 1000).toFixed(1)} s`;
}

/** Runs one check and says what it said; true when it found nothing. */
function check(step: Step): boolean {
  console.log(`== ${step.name}: ${[step.program, ...step.args].join(" ")}`);
  const begin = performance.now();
  const { status, error } = spawnSync(step.program, [...step.args], {
    stdio: "inherit",
    timeout: CHECK_TIMEOUT_MS,
  });
  if (error !== undefined) console.error(`${step.program} cannot run: ${error.message}`);
  const verdict = status === 0 ? "ok" : `failed (status ${status})`;
  console.log(`== ${step.name}: ${verdict}, ${secondsSince(begin)}`);
  return status === 0;
}

exitOnSignals();
if (process.argv.includes("--help") || process.argv.includes("-h")) {
  console.log(USAGE);
  process.exit(0);
}
// All of them, so that one run names everything there is to mend.
const found = CHECKS.map(check);
if (found.includes(false)) {
  const passed = found.filter((ok) => ok).length;
  console.log("== tests: not run, because a check has failed");
  console.log(closingLine({ passed, failed: found.length - passed, skipped: 0 }));
  process.exit(STATUS_FAILED);
}
console.log("== tests: unit, then integration");
process.exit(await main(["run", ...process.argv.slice(2)]));
