// The benchmark's own arithmetic and its words; what it measures is not for `make test`.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, runCommand, suite } from "qemu-test-harness";
import { casesFor, idOf } from "../../tools/bench-cases";
import { archiveOf } from "../../tools/bench-cpio";
import { page } from "../../tools/bench-html";
import { caseTable, type Results, ratio } from "../../tools/bench-report";
import { type CaseResult, median, type Row } from "../../tools/bench-run";

const test = suite("bench", { timeoutMs: 20_000 });

const [WHAT] = casesFor(["split"], true);

function row(contender: string, samples: readonly number[], skipped?: string): Row {
  const common = { case: "tx-split-60", title: "TX", contender, name: `<${contender}>`, samples };
  const figures = { median: median(samples), spreadPercent: 0 };
  return skipped === undefined ? { ...common, ...figures } : { ...common, ...figures, skipped };
}

function resultOf(...rows: Row[]): CaseResult {
  if (WHAT === undefined) throw new Error("there are no cases");
  return { case: WHAT, rows, distances: [130, 860] };
}

test("the median of an even number of samples lies between the middle ones", () => {
  assert.is(median([3, 1, 2]), 2);
  assert.is(median([4, 1, 2, 3]), 2.5);
  assert.is(median([]), 0);
});

test("a ratio compares samples of the same round", () => {
  // Both are twice as slow in the second round: as medians of all they could not be compared.
  const result = resultOf(row("a", [10, 5, 10]), row("b", [20, 10, 20]));
  assert.is(ratio(result, "a", "b"), 0.5);
  assert.is(ratio(result, "a", "absent"), undefined);
});

test("a skipped contender has no ratio, and its reason is in the table", () => {
  const result = resultOf(row("a", [10]), row("b", [5], "no KVM here"));
  assert.is(ratio(result, "a", "b"), undefined);
  assert.match(caseTable(result), /skipped: no KVM here/);
  assert.match(caseTable(result), /130 to 860 cycles apart/);
});

test("cases have different names, and a quick run is a part of the whole one", () => {
  const all = casesFor(["split", "packed"], false).map(idOf);
  const quick = casesFor(["split", "packed"], true).map(idOf);
  assert.is(new Set(all).size, all.length);
  assert.ok(quick.every((id) => all.includes(id)));
  assert.ok(all.includes("tx-split-1514") && all.includes("tx-split-tso"));
});

test("the page holds its charts, loads nothing, and escapes what it shows", () => {
  const machine = {
    ...{ cpu: "A<B", cpus: 2, memoryGib: 1, kernel: "6", qemu: "10", dpdk: "22", gcc: "12" },
    ...{ node: "20", commit: "abc" },
  };
  const results: Results = { machine, samples: 5, cases: [resultOf(row("a", [10, 11]))] };
  const text = page(results);
  assert.match(text, /<svg /);
  assert.match(text, /A&lt;B/);
  assert.match(text, /&lt;a&gt;/);
  assert.not.match(text, /(src|href)=|@import|url\(/);
});

test("an archive has a header of 110 bytes a file, and the trailer", () => {
  const folder = mkdtempSync(join(tmpdir(), "vireo-cpio-"));
  writeFileSync(join(folder, "file"), "12345");
  const archive = archiveOf(folder);
  rmSync(folder, { recursive: true });
  assert.is(archive.toString("latin1", 0, 6), "070701");
  assert.is(archive.toString("latin1", 54, 62), "00000005");
  assert.is(archive.toString("latin1", 110, 115), "file\0");
  assert.is(archive.toString("latin1", 116, 121), "12345");
  assert.ok(archive.includes("TRAILER!!!"));
  assert.is(archive.length % 4, 0);
});

test("wrong options are named, with status 2", async () => {
  const wrong = [["--formats", "round"], ["--samples", "1"], ["--only", "("], ["--nothing"]];
  for (const words of wrong) {
    const result = await runCommand(["node", "build/tools/bench.mjs", ...words]);
    assert.is(result.status, 2, `${words.join(" ")}: ${result.stdout}${result.stderr}`);
    assert.ok(result.stderr.trim() !== "", words.join(" "));
  }
});

test.run();
