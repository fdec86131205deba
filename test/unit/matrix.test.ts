// The parts of the matrix that need no guest: its cells, the choice of few of them, the state that a
// run can be gone on with, the page; and its command line.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, runCommand, suite, type TestContext } from "qemu-test-harness";
import type { CellResult } from "../harness/src/matrix/boot";
import {
  BACKENDS,
  type Cell,
  cellsOf,
  FEATURES,
  idOf,
  PATHS,
  PAYLOADS,
  pairwise,
} from "../harness/src/matrix/cells";
import { openCells, renderMatrix } from "../harness/src/matrix/report";
import { MatrixState } from "../harness/src/matrix/state";
import { runDirectoryOf } from "../harness/src/run-scope";

const CLI = "test/harness/bin/qemu-test-harness.mjs";
const CELLS_EACH = 2 ** 5 * 3;

const test = suite("matrix parts", { timeoutMs: 70_000 });

function scratch(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "matrix-parts-"));
  t.cleanup(() => rmSync(directory, { recursive: true }));
  writeFileSync(join(directory, "image"), "an image");
  return directory;
}

function valuesOf({ features, queues }: Cell): string[] {
  return [...FEATURES.map(({ name }) => `${name}=${features[name]}`), `queues=${queues}`];
}

function pairsOf(cells: readonly Cell[]): Set<string> {
  const pairs = new Set<string>();
  for (const cell of cells) {
    const values = valuesOf(cell);
    for (const first of values) for (const second of values) pairs.add(`${first} ${second}`);
  }
  return pairs;
}

test("every backend has every combination once, and each has a name of its own", () => {
  const ids = BACKENDS.flatMap(cellsOf).map(idOf);
  assert.is(ids.length, BACKENDS.length * CELLS_EACH);
  assert.is(new Set(ids).size, ids.length);
  assert.ok(ids.includes("tap/packed+order+mrg+event+indirect/4"));
  assert.ok(ids.includes("stream/split/1"));
});

test("frames are from 64 to 1518 bytes long with FCS", () => {
  const frames = PAYLOADS.map((bytes) => bytes + 46);
  assert.is(Math.min(...frames), 64);
  assert.is(Math.max(...frames), 1518);
});

test("pairwise: few cells, but every pair of values that there is", () => {
  for (const cells of [
    cellsOf("tap"),
    cellsOf("tap").filter(({ queues }) => queues === 1),
    cellsOf("tap").filter(({ features }) => !features.ring_packed && !features.in_order),
    cellsOf("tap").slice(0, 1),
  ]) {
    const few = pairwise(cells);
    assert.equal(pairsOf(few), pairsOf(cells));
    assert.ok(few.length <= 9, `${few.length} of ${cells.length}`);
  }
  assert.equal(pairwise([]), []);
});

test("the ten paths: each has cells, and those of one ring do not overlap but for vectors", () => {
  assert.is(PATHS.length, 10);
  for (const { name, matches } of PATHS) {
    const cells = cellsOf("tap").filter(({ features }) => matches(features));
    assert.is(cells.length, name.endsWith("vectors") ? 3 : 12, name);
  }
});

function filled(t: TestContext, resultOf: (cell: Cell) => CellResult | undefined): MatrixState {
  const directory = scratch(t);
  const path = join(directory, "state.json");
  const state = MatrixState.open(path, join(directory, "image"), "10.0", false);
  state.note(BACKENDS.flatMap(cellsOf).flatMap((cell) => resultOf(cell) ?? []));
  return state;
}

test("state: gone on with for the same image and QEMU, begun anew for others", (t) => {
  const directory = scratch(t);
  const [path, image] = [join(directory, "state.json"), join(directory, "image")];
  const result: CellResult = { id: "tap/split/1", verdict: "PROVED", datagrams: 56 };
  MatrixState.open(path, image, "10.0", false).note([result]);
  assert.equal(MatrixState.open(path, image, "10.0", true).result("tap/split/1"), result);
  assert.is(MatrixState.open(path, image, "10.1", true).result("tap/split/1"), undefined);
  assert.is(MatrixState.open(path, image, "10.0", false).result("tap/split/1"), undefined);
  MatrixState.open(path, image, "10.0", false).note([result]);
  writeFileSync(image, "another image");
  assert.is(MatrixState.open(path, image, "10.0", true).result("tap/split/1"), undefined);
  writeFileSync(path, "no state");
  assert.throws(() => MatrixState.open(path, image, "10.0", true), /is no state of a matrix/);
});

test("page: proved, skipped and failed cells are counted, and what failed is named", (t) => {
  const state = filled(t, (cell) => {
    const id = idOf(cell);
    if (id === "tap/packed+mrg/2") return { id, verdict: "FAILED", reason: "it broke\nat once" };
    if (cell.queues === 1) return { id, verdict: "PROVED", received: 2, sent: 3 };
    return { id, verdict: "SKIPPED", reason: "has one queue pair" };
  });
  assert.is(openCells(state), 0);
  const page = renderMatrix(state);
  assert.match(page, /\| tap \| 32 \| 63 \| 1 \| 160 \|/);
  assert.match(page, /\| stream \| 32 \| 64 \| 0 \| 160 \|/);
  assert.match(page, /- 1 failed: it broke \(tap\/packed\+mrg\/2\)/);
  assert.match(page, /- 63 skipped: has one queue pair/);
  assert.match(page, /packed, mergeable \| 4 \| 4 \| 1 failed/);
});

test("page: a reason does not say in which folder of which run it was", (t) => {
  const reason = `no answer of unix:${runDirectoryOf("1a2b-0")}/5/br0.mgmt: p0`;
  const page = renderMatrix(filled(t, (cell) => ({ id: idOf(cell), verdict: "FAILED", reason })));
  assert.match(page, /- 96 failed: no answer of unix:br0\.mgmt: p0 \(tap\//);
});

test("page: a cell without a result is open", (t) => {
  const state = filled(t, (cell) =>
    cell.backend === "tap" ? undefined : { id: idOf(cell), verdict: "PROVED" },
  );
  assert.is(openCells(state), CELLS_EACH);
  const page = renderMatrix(state);
  assert.match(page, /\*\*96 cells have not been run yet\*\*/);
  assert.match(page, /\| tap \| 0 \| 0 \| 0 \| 0 \|/);
});

async function harness(...args: string[]) {
  const own = ["env", "-u", "QEMU_TEST_HARNESS_RUN", "-u", "QEMU_TEST_HARNESS_GREP"];
  return runCommand([...own, process.execPath, CLI, "matrix", ...args], { timeoutMs: 60_000 });
}

test("command line: lists cells, and says in one line what is wrong", async () => {
  const listed = await harness("--list", "--backend", "user,tap");
  assert.is(listed.stdout.trimEnd().split("\n").length, 2 * CELLS_EACH);
  for (const [args, message, status] of [
    [["--backend", "token-ring"], /'token-ring' is not one of user, stream/, 2],
    [["--cell", "tap/round/1"], /there is no cell 'tap\/round\/1'/, 2],
    [["--minutes", "few"], /wants a number, not 'few'/, 2],
    [["--image", "no/such/image"], /no\/such\/image not found: build it/, 3],
  ] as const) {
    const wrong = await harness(...args);
    assert.match(wrong.stderr, message);
    assert.is(wrong.stderr.trimEnd().split("\n").length, 1);
    assert.is(wrong.status, status);
  }
});

test.run();
