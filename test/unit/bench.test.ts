// The benchmark's own arithmetic and its words; what it measures is not for `make test`.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, runCommand, suite } from "qemu-test-harness";
import { segmentWords } from "../../tools/bench-backend";
import { leastThatWorks } from "../../tools/bench-boot";
import { type Case, casesFor, idOf, RING_FORMATS } from "../../tools/bench-cases";
import { CONTENDERS, type Context } from "../../tools/bench-contenders";
import { archiveOf } from "../../tools/bench-cpio";
import { page } from "../../tools/bench-html";
import { percentile } from "../../tools/bench-latency";
import {
  aligned,
  caseTable,
  type Results,
  ratio,
  summariesOf,
  summaryTable,
  withEarlier,
} from "../../tools/bench-report";
import { type CaseResult, median, type Row } from "../../tools/bench-run";

const test = suite("bench", { timeoutMs: 20_000 });

const ALL = casesFor(RING_FORMATS, false);
const MACHINE = {
  ...{ cpu: "A<B", cpus: 2, memoryGib: 1, kernel: "6", qemu: "10", dpdk: "22", gcc: "12" },
  ...{ node: "20", commit: "abc" },
};

const BOOT = {
  ...{ id: "vireo-q35", name: "e", samplesMs: [1, 2], medianMs: 1.5, imageBytes: 1024 },
  ...{ guestMemoryMib: 64, residentMib: 70, leastMemoryMib: 9 },
};

function caseOf(id: string): Case {
  const found = ALL.find((what) => idOf(what) === id);
  if (found === undefined) throw new Error(`there is no case ${id}`);
  return found;
}

function row(contender: string, samples: readonly number[], skipped?: string): Row {
  const common = { case: "tx-split-60", title: "TX", contender, name: `<${contender}>`, samples };
  const figures = { median: median(samples), spreadPercent: 0 };
  return skipped === undefined ? { ...common, ...figures } : { ...common, ...figures, skipped };
}

function resultOf(...rows: Row[]): CaseResult {
  return { case: caseOf("tx-split-60"), rows, distances: [130, 860], hugepages: true };
}

/** The command of a contender, in one line. */
function commandOf(contender: string, what: Case): string {
  const found = CONTENDERS.find(({ id }) => id === contender);
  if (found === undefined) throw new Error(`there is no contender ${contender}`);
  const context: Context = { socketPaths: ["/a", "/b"], cpu: 0, hugepages: false };
  return found.command(what, context).join(" ");
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
  assert.match(caseTable(result), /130 to 860 cycles apart\)/);
  assert.match(caseTable({ ...result, hugepages: false }), /apart, all on small pages/);
});

test("cases have different names, and a quick run is a part of the whole one", () => {
  const all = ALL.map(idOf);
  const quick = casesFor(RING_FORMATS, true).map(idOf);
  assert.is(new Set(all).size, all.length);
  assert.ok(quick.length > 0 && quick.every((id) => all.includes(id)));
  for (const ring of RING_FORMATS) {
    for (const direction of ["tx", "rx", "forward"]) {
      assert.ok(all.includes(`${direction}-${ring}-60`), `${direction} ${ring}`);
    }
  }
  assert.ok(all.includes("tx-split-1514-merged") && all.includes("rx-split-64k-merged"));
});

test("every contender has the case's ring format, or a reason to decline it", () => {
  const packed = caseOf("rx-packed-60");
  const inOrder = caseOf("rx-packed-in-order-60");
  const split = caseOf("rx-split-60");
  assert.match(commandOf("vireo-tcg", packed), /packed=on.* ring=packed/);
  assert.not.match(commandOf("vireo-tcg", packed), /in_order=on/);
  assert.match(commandOf("bare-tcg", inOrder), /packed=on,in_order=on.* rx packed-in-order/);
  assert.match(commandOf("vireo-process", packed), /ring=packed.*-in_order/);
  assert.match(commandOf("vireo-process", split), /ring=split.*-in_order/);
  assert.not.match(commandOf("vireo-process", inOrder), /-in_order/);
  assert.match(commandOf("virtio-user", packed), /packed_vq=1,in_order=0/);
  assert.match(commandOf("virtio-user-vector", inOrder), /packed_vq=1,in_order=1,vectorized=1/);
  const declines = (id: string, what: Case) =>
    CONTENDERS.find((each) => each.id === id)?.declines(what);
  assert.match(declines("virtio-user-vector", packed) ?? "", /in-order/);
  assert.match(declines("linux-tcg", inOrder) ?? "", /in_order/);
  assert.is(declines("linux-tcg", packed), undefined);
});

test("a sink has no address, for with one it would look into every frame", () => {
  for (const contender of ["vireo-tcg", "vireo-process"]) {
    const command = commandOf(contender, caseOf("rx-split-60"));
    assert.match(command, /app=sink/);
    assert.not.match(command, / ip=/);
  }
});

test("who forwards has both sockets", () => {
  const what = caseOf("forward-split-60");
  assert.match(commandOf("vireo-tcg", what), /path=\/a.*path=\/b.*app=forward/);
  assert.match(commandOf("vireo-process", what), /--socket \/a --socket \/b.*app=forward/);
  assert.match(commandOf("virtio-user", what), /path=\/a.*path=\/b.*--forward-mode=io/);
});

test("merged buffers and receive offloads are off where they are not what is measured", () => {
  const [small, size, large] = ["tx-split-60", "rx-split-1514-merged", "rx-split-64k-merged"];
  assert.match(commandOf("vireo-process", caseOf(small)), /-mrg_rxbuf,-guest_csum,-guest_tso4/);
  assert.match(commandOf("vireo-process", caseOf(size)), /features=-guest_csum,-guest_tso4/);
  assert.match(commandOf("vireo-process", caseOf(large)), /features=-in_order$/);
  assert.match(commandOf("linux-tcg", caseOf(small)), /mrg_rxbuf=off,guest_csum=off/);
});

test("a frame is cut into segments that fit into testpmd's buffers", () => {
  assert.equal(segmentWords(60), ["--txpkts=60"]);
  assert.equal(segmentWords(4100), ["--txpkts=2048,2048,4", "--tx-offloads=0x8000"]);
  assert.equal(segmentWords(2048), ["--txpkts=2048"]);
});

test("a percentile is a value that was measured", () => {
  const values = Array.from({ length: 1000 }, (_, at) => 1000 - at);
  assert.is(percentile(values, 0.5), 501);
  assert.is(percentile(values, 0.999), 1000);
  assert.is(percentile([7], 0.99), 7);
  assert.is(percentile([], 0.5), 0);
});

test("the least memory is found, and what was never tried is not claimed", async () => {
  for (const least of [1, 2, 37, 64]) {
    const tried: number[] = [];
    const found = await leastThatWorks(64, async (mib) => {
      tried.push(mib);
      return mib >= least;
    });
    assert.is(found, least);
    assert.ok(tried.length <= 6 && tried.every((mib) => mib > 0 && mib < 64), tried.join(" "));
  }
});

test("columns of a table are as wide as what is in them", () => {
  const rows = [
    ["a", "1"],
    ["bcd", "234"],
  ];
  assert.equal(aligned(rows), ["a      1", "bcd  234"]);
});

test("a summary has a column a case, and none of a contender that measured nothing", () => {
  const split = resultOf(row("a", [1e6]), row("b", [], "no KVM here"));
  const packed = { ...resultOf(row("a", [2e6])), case: caseOf("tx-packed-60") };
  const results: Results = { machine: MACHINE, samples: 5, cases: [packed, split] };
  const [summary, ...others] = summariesOf(results);
  assert.ok(summary !== undefined && others.length === 0);
  assert.equal(summary.columns, ["split", "packed"]);
  assert.equal(summary.rows, [{ name: "<a>", values: [1, 2] }]);
  assert.match(summaryTable(summary), /split +packed\n +<a> +1\.00 +2\.00/);
});

test("a later piece of a run replaces the cases that it has measured, and no others", () => {
  const before = { machine: MACHINE, samples: 5 };
  const old = { ...resultOf(row("a", [1])), case: caseOf("rx-split-60") };
  const earlier: Results = { ...before, cases: [resultOf(row("a", [1])), old], boot: [BOOT] };
  const q35 = { ...BOOT, id: "linux-q35" };
  const later: Results = { ...before, cases: [resultOf(row("a", [2]))], boot: [q35] };
  const all = withEarlier(later, earlier, ALL);
  assert.equal(
    all.cases.map(({ case: what, rows }) => [idOf(what), rows[0]?.samples[0]]),
    [
      ["tx-split-60", 2],
      ["rx-split-60", 1],
    ],
  );
  assert.equal(all.boot, [BOOT, q35]);
  assert.is(all.latency, undefined);
  const again = { ...q35, medianMs: 9 };
  assert.equal(withEarlier({ ...later, boot: [again] }, all, ALL).boot, [BOOT, again]);
});

test("the page holds its charts, loads nothing, and escapes what it shows", () => {
  const size = { ...resultOf(row("a", [10, 11])), case: caseOf("tx-split-1514-merged") };
  const results: Results = {
    ...{ machine: MACHINE, samples: 5, cases: [resultOf(row("a", [10, 11])), size] },
    latency: [
      { id: "vireo", name: "<c>", p50Us: 1, p99Us: 2, p999Us: 3, answered: 4, lost: 0 },
      { ...{ id: "linux", name: "d", p50Us: 0, p99Us: 0, p999Us: 0, answered: 0, lost: 0 } },
    ],
    boot: [BOOT],
  };
  const text = page(results);
  assert.is(text.match(/<svg /g)?.length, 5);
  assert.match(text, /<polyline /);
  assert.match(text, /A&lt;B/);
  assert.match(text, /&lt;a&gt;/);
  assert.not.match(text, /<a>|<c>/);
  assert.not.match(text, /(src|href)=|@import|url\(/);
  assert.not.match(text, /NaN|Infinity|undefined/);
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
