// How much of drivers/ the cases of the corpus reach by themselves, by lines and by branches: what is
// new in the driver wants a case of its own.

import { assert, suite } from "qemu-test-harness";
import { buildCoverageModule, percentages, reportCoverage } from "../../tools/coverage-module";
import { FIRST_POINT } from "../../tools/instrument";
import { CORPUS, readCorpus } from "./corpus";
import { Fuzzer } from "./fuzzer";

const test = suite("hostile coverage", { timeoutMs: 120_000 });

const PERCENT_MIN = 95;

test("the corpus alone: 95 % of the lines and of the branches of drivers/, at least", () => {
  const { path, points } = buildCoverageModule(true);
  const fuzzer = new Fuzzer(path, { first: FIRST_POINT, count: points.length }, 1);
  const seen = new Uint8Array(points.length);
  for (const { case: one } of readCorpus(CORPUS)) {
    const result = fuzzer.try(one);
    // That there is no failure is regressions.test.ts's to say.
    if (result === undefined || "faults" in result) continue;
    for (const point of result.points) seen[point] = 1;
  }
  const report = reportCoverage(points, seen);
  const { branches, lines } = percentages(report);
  const missed = report.missed.join("\n");
  assert.ok(lines >= PERCENT_MIN, `${lines.toFixed(1)} % of the lines; missed:\n${missed}`);
  assert.ok(
    branches >= PERCENT_MIN,
    `${branches.toFixed(1)} % of the branches; missed:\n${missed}`,
  );
});

test.run();
