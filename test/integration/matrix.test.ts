// Enough cells of the matrix on each backend to have every two values of its parameters together in
// one. All cells: `make matrix`, docs/matrix.md.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, defaultImage, type Requirement, suite } from "qemu-test-harness";
import { type BackendName, cellsOf, idOf } from "../harness/src/matrix/cells";
import { benchOf, runBackend } from "../harness/src/matrix/run";
import { MatrixState } from "../harness/src/matrix/state";

/** The lab emulates what runs in it. */
const test = suite("matrix", { timeoutMs: 300_000 });

interface Choice {
  readonly name: BackendName;
  readonly requires?: readonly Requirement[];
  /** Features that it does not have. */
  readonly lacks: RegExp;
}

const NONE = /^$/;
const VHOST_NET = /^(vhost-net|ovs-kernel) does not offer (ring_packed|in_order)$/;
const ONE_PAIR = /has one queue pair/;

const CHOICES: readonly Choice[] = [
  { name: "user", lacks: ONE_PAIR },
  { name: "stream", lacks: ONE_PAIR },
  { name: "tap", lacks: NONE },
  { name: "vhost-user", lacks: NONE },
  { name: "vhost-net", requires: ["vhost-net"], lacks: VHOST_NET },
  { name: "ovs-userspace", requires: ["ovs-dpdk"], lacks: NONE },
  { name: "ovs-kernel", requires: ["ovs-kernel", "vhost-net"], lacks: VHOST_NET },
];

for (const { name, requires = [], lacks } of CHOICES) {
  test(
    `${name}: every two values together`,
    async (t) => {
      const bench = benchOf(name);
      const missing = await bench.unavailable();
      if (missing !== undefined) t.skip(`${name}: ${missing.reason}`);
      const directory = mkdtempSync(join(tmpdir(), "matrix-test-"));
      t.cleanup(() => rmSync(directory, { recursive: true }));
      const state = MatrixState.open(join(directory, "state.json"), defaultImage(), "", false);
      const progress = (text: string) => t.log(text);
      const quick = { image: defaultImage(), quick: true, until: Number.POSITIVE_INFINITY };
      await runBackend(bench, { state, progress, ...quick });
      const results = cellsOf(name).flatMap((cell) => state.result(idOf(cell)) ?? []);
      const failed = results.filter(({ verdict }) => verdict === "FAILED");
      assert.equal(failed, []);
      assert.ok(results.filter(({ verdict }) => verdict === "PROVED").length >= 6);
      for (const { verdict, reason = "" } of results) {
        if (verdict === "SKIPPED") assert.match(reason, lacks);
      }
    },
    { requires },
  );
}

test.run();
