// Enough cells of the matrix on each backend to have every two values of its parameters together in
// one. All cells: `make matrix`, docs/matrix.md.

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, defaultImage, type Requirement, suite } from "qemu-test-harness";
import type { Bench, Card } from "../harness/src/matrix/bench";
import { runBoot } from "../harness/src/matrix/boot";
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
      const artifacts = "build/matrix-artifacts";
      const quick = {
        artifacts,
        image: defaultImage(),
        quick: true,
        until: Number.POSITIVE_INFINITY,
      };
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

interface Sabotage {
  readonly name: string;
  readonly reason: RegExp;
  readonly spoil: (card: Card) => Card;
}

/** What the card does, but for what `changes` do instead. */
function changed(card: Card, changes: Partial<Card>): Card {
  return {
    backend: card.backend,
    address: card.address,
    exchange: (load) => card.exchange(load),
    counts: () => card.counts(),
    ...changes,
  };
}

const SABOTAGES: readonly Sabotage[] = [
  {
    name: "a device without the feature",
    reason: /^mrg_rxbuf is not accepted$/,
    spoil: (card) => changed(card, { options: { mrg_rxbuf: false } }),
  },
  {
    name: "a backend that counts a frame too many",
    reason: /^backend and guest have not counted the same: /,
    spoil: (card) => {
      let more = 0;
      const exchange: Card["exchange"] = async (load) => {
        const result = await card.exchange(load);
        more = 1;
        return result;
      };
      const counts: Card["counts"] = async () => {
        const real = await card.counts();
        return real === undefined ? undefined : { ...real, toGuest: real.toGuest + more };
      };
      return changed(card, { exchange, counts });
    },
  },
  {
    name: "a datagram that does not come back",
    reason: /55 of 56 datagrams were right/,
    spoil: (card) => {
      const exchange: Card["exchange"] = async (load) => {
        const { sent, right } = await card.exchange(load);
        return { sent, right: right - 1, wrong: "" };
      };
      return changed(card, { exchange });
    },
  },
];

/** Three cells behind stream sockets, the second with its card spoilt. */
function runSpoilt(spoil: (card: Card) => Card, artifacts: string) {
  const cells = cellsOf("stream").filter(
    ({ features, queues }) => features.mrg_rxbuf && features.in_order && queues === 1,
  );
  const good = benchOf("stream");
  const bad: Bench = {
    name: good.name,
    mostQueues: good.mostQueues,
    uniform: good.uniform,
    spreads: good.spreads,
    window: good.window,
    oneLink: good.oneLink,
    unavailable: () => good.unavailable(),
    open: () => good.open(),
    cards: async (wanted) =>
      (await good.cards(wanted)).map((card, i) => (i === 1 ? spoil(card) : card)),
    release: () => good.release(),
    close: () => good.close(),
  };
  return runBoot(bad, cells.slice(0, 3), { image: undefined, artifacts });
}

for (const { name, reason, spoil } of SABOTAGES) {
  test(`${name}: only its cell has failed, and its files are kept`, async (t) => {
    const artifacts = mkdtempSync(join(tmpdir(), "matrix-test-"));
    t.cleanup(() => rmSync(artifacts, { recursive: true }));
    const results = await runSpoilt(spoil, artifacts);
    assert.equal(
      results.map(({ verdict }) => verdict),
      ["PROVED", "FAILED", "PROVED"],
    );
    assert.match(results[1]?.reason ?? "", reason);
    const kept = readdirSync(results[1]?.kept ?? "");
    for (const file of ["console.log", "net0-frames.pcap", "net1-frames.pcap"]) {
      assert.ok(kept.includes(file), kept.join(" "));
    }
  });
}

/** The frame arrives in the end, and a first look or two find it missing. */
const UNDER_WAY_MS = 250;

test("a frame that is under way before the cell begins: its cell is proved all the same", async (t) => {
  const artifacts = mkdtempSync(join(tmpdir(), "matrix-test-"));
  t.cleanup(() => rmSync(artifacts, { recursive: true }));
  let late = 0;
  const results = await runSpoilt((card) => {
    let arrives: number | undefined;
    const counts: Card["counts"] = async () => {
      arrives ??= performance.now() + UNDER_WAY_MS;
      const real = await card.counts();
      if (real === undefined || performance.now() > arrives) return real;
      late++;
      return { ...real, fromGuest: real.fromGuest - 1 };
    };
    const exchange: Card["exchange"] = (load) => {
      arrives = 0;
      return card.exchange(load);
    };
    return changed(card, { counts, exchange });
  }, artifacts);
  assert.equal(
    results.map(({ verdict, reason }) => reason ?? verdict),
    ["PROVED", "PROVED", "PROVED"],
  );
  assert.ok(late >= 2, `${late} looks while the frame was under way`);
});

test.run();
