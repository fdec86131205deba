// A reader of the guest's console that does not read for a while: the guest waits for it, for some
// seconds at most, and no byte is lost.

import { assert, delay, parseEvent, suite } from "qemu-test-harness";
import { bootEcho, GUEST_IP } from "./support";

const test = suite("console", { timeoutMs: 60_000 });

const REQUESTS = 200;
const PAUSE_MS = 3000;
/** What a pipe holds. */
const PIPE_BYTES = 65_536;

test("the reader pauses for 3 s in 200 statistics: every line comes, whole and in order", async (t) => {
  const { vm, peer } = await bootEcho(t);
  await peer.ping(GUEST_IP);
  const linesBefore = vm.console.length;
  vm.pauseConsole();
  for (let i = 0; i < REQUESTS; i++) vm.send("stats");
  await delay(PAUSE_MS);
  assert.is(vm.console.length, linesBefore, "the reader has read on");
  vm.resumeConsole();
  // Answers come in order, so the one to a further question is the last.
  const end = vm.waitFor("help", { timeoutMs: 30_000, fresh: true });
  vm.send("help");
  await end;
  const lines = vm.console.slice(linesBefore, -1);
  const events = lines.map(parseEvent);
  assert.is(events.length, REQUESTS);
  for (const [i, event] of events.entries()) assert.is(event?.event, "stats", lines[i]);
  const times = events.map((event) => event?.us ?? 0);
  assert.ok(times.every((us, i) => i === 0 || us >= (times[i - 1] ?? 0)));
  const waitedMs = ((times.at(-1) ?? 0) - (times[0] ?? 0)) / 1000;
  assert.ok(waitedMs > PAUSE_MS / 2, `the guest never had to wait: ${waitedMs} ms`);
  const bytes = lines.reduce((sum, line) => sum + line.length + 1, 0);
  t.log(`${bytes} bytes; the guest waited ${Math.round(waitedMs)} ms`);
  assert.ok(bytes > PIPE_BYTES, `${bytes} bytes fit into a pipe`);
  await peer.ping(GUEST_IP);
  await vm.stop();
});

test.run();
