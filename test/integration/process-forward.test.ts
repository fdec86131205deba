// The process host with two sockets: what comes in from one of testpmd's ports goes out to the
// other, both sides have counted the same, and the end of the backend is the end of the run.

import { existsSync } from "node:fs";
import { assert, type StatsEvent, suite, type TestContext } from "qemu-test-harness";
import { BenchBackend, Program, pause, until } from "../../tools/bench-backend";
import { casesFor, type RingFormat } from "../../tools/bench-cases";
import { findProgram } from "../harness/src/processes";

const PROCESS = "build/vireo-process";
const SANITIZED = "build/vireo-process-sanitized";
const FRAMES = 100_000;
const TIMEOUT_MS = 30_000;
const RING_ENTRIES = 256;

const test = suite("process host, two NICs", { timeoutMs: 60_000 });

interface Forwarding {
  readonly backend: BenchBackend;
  readonly driver: Program;
}

/** testpmd with a source and a sink, and the driver between them. */
async function start(t: TestContext, ring: RingFormat, program = PROCESS): Promise<Forwarding> {
  if (findProgram("dpdk-testpmd") === undefined) t.skip("needs dpdk-testpmd (dpdk-dev)");
  if (!existsSync(program)) throw new Error(`${program} is missing: 'make process' builds it`);
  const what = casesFor([ring], false).find(({ direction }) => direction === "forward");
  if (what === undefined) throw new Error(`no case forwards with ${ring} rings`);
  const options = { cpu: 1, hugepages: false, guestMac: "52:54:00:12:34:56" };
  const backend = new BenchBackend(what, options);
  t.cleanup(() => backend.stop());
  await backend.ready();
  const sockets = backend.socketPaths.flatMap((path) => ["--socket", path]);
  const words = ["app=forward", "mode=poll", `ring=${ring}`];
  const command = [program, "--cpu", "0", "--hugepages", "off", ...sockets, ...words];
  const driver = new Program("vireo process", command);
  t.cleanup(() => driver.stop());
  return { backend, driver };
}

async function untilForwarded({ backend, driver }: Forwarding, frames: number): Promise<number> {
  const end = performance.now() + TIMEOUT_MS;
  for (;;) {
    const [port] = await backend.counters();
    const received = port?.rxPackets ?? 0;
    if (received >= frames) return received;
    driver.check();
    if (performance.now() > end) throw new Error(`${received} frames:\n${driver.tail()}`);
    await pause(50);
  }
}

async function ended({ driver }: Forwarding): Promise<Record<string, unknown>[]> {
  await until(
    () => driver.ended,
    TIMEOUT_MS,
    () => `it does not end:\n${driver.tail()}`,
  );
  const events = driver.lines.filter((line) => line.startsWith("{"));
  return events.map((line) => JSON.parse(line) as Record<string, unknown>);
}

for (const ring of ["split", "packed"] as const) {
  test(`${ring}: what one NIC receives the other sends, and the backend gets it`, async (t) => {
    const running = await start(t, ring);
    const { backend, driver } = running;
    await untilForwarded(running, FRAMES);
    driver.send("exit");
    const events = await ended(running);
    assert.is(driver.process.child.exitCode, 0, driver.tail());
    assert.is(events.at(-1)?.event, "exit");
    const stats = events.filter(({ event }) => event === "stats") as unknown as StatsEvent[];
    const [first, second] = stats.slice(-2);
    assert.ok(first !== undefined && second !== undefined, driver.tail());
    const [incoming, outgoing] = [first.queues[0], second.queues[0]];
    assert.ok(incoming !== undefined && outgoing !== undefined, driver.tail());
    const [rx, tx] = [incoming.rx, outgoing.tx];
    const drops = Object.values(rx.drops).reduce((sum, count) => sum + count, 0);
    assert.is(rx.packets, tx.packets + drops);
    // What is still in the ring at the end the backend does not take any more.
    const left = tx.packets - (await untilForwarded({ backend, driver }, FRAMES));
    assert.ok(left >= 0 && left <= RING_ENTRIES, `${left} left of ${tx.packets}`);
    assert.is(rx.interrupts + tx.interrupts, 0, "interrupts in poll mode");
    const [format] = events.filter(({ event }) => event === "ready").map((event) => event.ring);
    assert.is(format, ring);
  });
}

test("sanitizers find nothing while frames are forwarded", async (t) => {
  const running = await start(t, "split", SANITIZED);
  await untilForwarded(running, FRAMES / 10);
  running.driver.send("exit");
  const events = await ended(running);
  assert.is(running.driver.process.child.exitCode, 0, running.driver.tail());
  assert.is(events.length, running.driver.lines.length, running.driver.tail());
});

test("the end of the backend is the end of the run, in a sentence", async (t) => {
  const running = await start(t, "split");
  await untilForwarded(running, FRAMES);
  await running.backend.stop();
  const events = await ended(running);
  assert.is(running.driver.process.child.exitCode, 1);
  assert.match(String(events.at(-1)?.message), /backend has closed the socket/);
  assert.is(events.at(-1)?.status, "failure");
});

test("a third socket is refused", async (t) => {
  const sockets = ["/a", "/b", "/c"].flatMap((path) => ["--socket", path]);
  const driver = new Program("vireo process", [PROCESS, ...sockets]);
  t.cleanup(() => driver.stop());
  await until(
    () => driver.ended,
    TIMEOUT_MS,
    () => "it does not end",
  );
  assert.is(driver.process.child.exitCode, 2, driver.tail());
  assert.match(driver.tail(), /--socket may be given twice/);
});

test.run();
