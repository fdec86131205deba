// Instructions a frame, counted by QEMU (`-icount shift=0`: one instruction is one tick of the time
// stamp counter). They do not depend on the machine, so more of them than instructions.json allows
// is a regression. They do depend a little on how many frames the backend takes or brings at a
// time, which is why the limits are somewhat above what is usual.

import { readFileSync } from "node:fs";
import { assert, type StatsEvent, stream, suite, sumQueues, tap } from "qemu-test-harness";
import { bootEcho, echoLoad, STATIC_ADDRESS } from "./support";

const test = suite("instructions", { timeoutMs: 60_000 });

const FRAMES = 50_000;
const ECHOES = 10_000;
const WINDOW = 200;
const FRAME_BYTES = 60;
const ICOUNT = ["-icount", "shift=0,sleep=off"];
const ALLOWED = JSON.parse(readFileSync("test/integration/instructions.json", "utf8")) as Record<
  string,
  number
>;

function judge(log: (text: string) => void, name: string, each: number): void {
  const allowed = ALLOWED[name] ?? 0;
  log(`${each.toFixed(1)} instructions a frame, ${allowed} allowed`);
  assert.ok(each > 0 && each <= allowed, `${each.toFixed(1)} instructions a frame, not ${allowed}`);
}

test("source: instructions a frame, sent and reclaimed", async (t) => {
  const append = `app=source ${STATIC_ADDRESS} dst=02:00:00:00:00:99 count=${FRAMES}`;
  const nics = [{ backend: tap() }];
  const vm = await t.vm({ append, nics, accelerator: "tcg", extraArguments: ICOUNT });
  const { events } = await vm.finished({ timeoutMs: 50_000 });
  const stats = events.findLast(({ event }) => event === "stats") as unknown as StatsEvent;
  const each = sumQueues(stats, "tx", "cycles") / sumQueues(stats, "tx", "packets");
  judge((text) => t.log(text), "source", each);
});

test("sink: instructions a frame, received and given back", async (t) => {
  const net = stream();
  const vm = await t.vm({
    append: "app=sink",
    nics: [{ backend: net }],
    accelerator: "tcg",
    extraArguments: ICOUNT,
  });
  await vm.waitFor("ready");
  const frame = Buffer.alloc(FRAME_BYTES, 0xff);
  for (let sent = 0; sent < FRAMES; sent++) await net.send(frame);
  let stats = await vm.stats();
  const end = performance.now() + 30_000;
  while (sumQueues(stats, "rx", "packets") < FRAMES && performance.now() < end) {
    stats = await vm.stats();
  }
  assert.is(sumQueues(stats, "rx", "packets"), FRAMES);
  judge((text) => t.log(text), "sink", sumQueues(stats, "rx", "cycles") / FRAMES);
  await vm.stop();
});

test("echo: instructions a datagram, received, answered and reclaimed", async (t) => {
  const guest = await bootEcho(t, { accelerator: "tcg", extraArguments: ICOUNT });
  const before = await guest.vm.stats();
  await echoLoad(guest, { count: ECHOES, window: WINDOW, frameBytes: () => FRAME_BYTES });
  const after = await guest.vm.stats();
  const spent = sumQueues(after, "rx", "cycles") - sumQueues(before, "rx", "cycles");
  const echoed = sumQueues(after, "rx", "packets") - sumQueues(before, "rx", "packets");
  judge((text) => t.log(text), "echo", spent / echoed);
  await guest.vm.stop();
});

test.run();
