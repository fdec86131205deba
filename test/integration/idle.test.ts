// What a guest costs the host when nothing happens, and how rarely it troubles it when much does.

import { readFileSync } from "node:fs";
import { assert, type StatsEvent, suite, sumQueues, tap } from "qemu-test-harness";
import { STATIC_ADDRESS } from "./support";

const test = suite("idle and busy", { timeoutMs: 60_000 });

const SECONDS = 4;
/** The unit of /proc/pid/stat. */
const TICKS_PER_SECOND = 100;
const IDLE_SHARE_MAX = 0.02;
const FRAMES = 200_000;
const FRAMES_PER_EXIT_MIN = 32;

/** CPU time that a process and its threads have used so far, in seconds. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

test("four idle queues take less than 2 % of a host CPU", async (t) => {
  const nics = [{ backend: tap({ queues: 4 }) }];
  const vm = await t.vm({ append: STATIC_ADDRESS, cpus: 4, nics });
  const ready = await vm.waitFor("ready", { timeoutMs: 30_000 });
  assert.is(ready.queues, 4);
  // The announcements after `ready` are two seconds apart.
  await new Promise((resolve) => setTimeout(resolve, 2500));
  const before = cpuSeconds(vm.pid ?? 0);
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
  const share = (cpuSeconds(vm.pid ?? 0) - before) / SECONDS;
  t.log(`${(100 * share).toFixed(2)} % of a host CPU`);
  assert.ok(share < IDLE_SHARE_MAX, `${(100 * share).toFixed(2)} %`);
  await vm.stop();
});

test("a busy source needs at most one doorbell and one interrupt for 32 frames", async (t) => {
  const append = `app=source ${STATIC_ADDRESS} dst=02:00:00:00:00:99 count=${FRAMES}`;
  const vm = await t.vm({ append, nics: [{ backend: tap() }] });
  const { events } = await vm.finished({ timeoutMs: 50_000 });
  const last = events.findLast(({ event }) => event === "stats");
  const stats = last as unknown as StatsEvent;
  const sent = sumQueues(stats, "tx", "packets");
  const kicks = sumQueues(stats, "tx", "kicks");
  const interrupts = sumQueues(stats, "tx", "interrupts");
  t.log(`${sent} frames, ${kicks} doorbells, ${interrupts} interrupts`);
  assert.ok(kicks * FRAMES_PER_EXIT_MIN <= sent, `${kicks} doorbells for ${sent} frames`);
  assert.ok(interrupts * FRAMES_PER_EXIT_MIN <= sent, `${interrupts} interrupts`);
});

test.run();
