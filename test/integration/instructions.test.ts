// Instructions a frame, counted by QEMU (`-icount shift=0`: one instruction is one tick of the time
// stamp counter). They do not depend on the machine, so more of them than instructions.json allows
// is a regression. They do depend a little on how many frames the backend takes at a time.

import { readFileSync } from "node:fs";
import { assert, type StatsEvent, suite, sumQueues, tap } from "qemu-test-harness";
import { STATIC_ADDRESS } from "./support";

const test = suite("instructions", { timeoutMs: 60_000 });

const FRAMES = 50_000;
const ALLOWED = JSON.parse(readFileSync("test/integration/instructions.json", "utf8")) as Record<
  string,
  number
>;

test("source: instructions a frame, sent and reclaimed", async (t) => {
  const append = `app=source ${STATIC_ADDRESS} dst=02:00:00:00:00:99 count=${FRAMES}`;
  const extraArguments = ["-icount", "shift=0,sleep=off"];
  const nics = [{ backend: tap() }];
  const vm = await t.vm({ append, nics, accelerator: "tcg", extraArguments });
  const { events } = await vm.finished({ timeoutMs: 50_000 });
  const stats = events.findLast(({ event }) => event === "stats") as unknown as StatsEvent;
  const each = sumQueues(stats, "tx", "cycles") / sumQueues(stats, "tx", "packets");
  const allowed = ALLOWED.source ?? 0;
  t.log(`${each.toFixed(1)} instructions a frame, ${allowed} allowed`);
  assert.ok(each <= allowed, `${each.toFixed(1)} instructions a frame, not ${allowed}`);
});

test.run();
