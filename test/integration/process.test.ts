// The process host (boot/process) behind DPDK's testpmd: both sides have counted the same, nothing
// rings or interrupts without need, and whatever goes wrong ends with a sentence and a status.

import { existsSync, readFileSync } from "node:fs";
import {
  assert,
  type CommandResult,
  type QueueStats,
  runCommand,
  type StatsEvent,
  suite,
  type TestContext,
  type VhostUserOptions,
  vhostUser,
} from "qemu-test-harness";

const PROCESS = "build/vireo-process";
const SANITIZED = "build/vireo-process-sanitized";
const COUNT = 2_000_000;
const RING_ENTRIES = 256;
/** Doorbells a frame, at most, behind a backend that asks for none. */
const KICKS_PER_FRAME = 0.001;
const RUN_TIMEOUT_MS = 40_000;
const SOURCE = ["app=source", "mode=poll", "dst=02:00:00:00:00:01", "dstip=192.0.2.1"];

const test = suite("process host", { timeoutMs: 60_000 });

interface Line {
  readonly event: string;
  readonly message?: string;
  readonly status?: string;
}

const linesOf = ({ stdout }: CommandResult): Line[] =>
  stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Line);

/** The counters of the only pair, and the run's last line. */
function resultOf(result: CommandResult): { pair: QueueStats; last: Line | undefined } {
  const lines = linesOf(result);
  const stats = lines.findLast(({ event }) => event === "stats") as unknown as StatsEvent;
  const [pair] = stats?.queues ?? [];
  if (pair === undefined) throw new Error(`no statistics:\n${result.stdout}${result.stderr}`);
  return { pair, last: lines.at(-1) };
}

async function backend(t: TestContext, mode: VhostUserOptions["mode"]) {
  const net = vhostUser({ mode });
  const reason = await net.available();
  if (reason !== undefined) t.skip(reason);
  if (!existsSync(PROCESS)) throw new Error(`${PROCESS} is missing: 'make process' builds it`);
  await net.start();
  t.cleanup(() => net.stop());
  return net;
}

function run(socket: string, words: readonly string[], program = PROCESS, input = "") {
  const command = [program, "--socket", socket, "--cpu", "0", ...words];
  return runCommand(command, { timeoutMs: RUN_TIMEOUT_MS, input });
}

test("source: backend and guest have counted the same, and the doorbell rests", async (t) => {
  const net = await backend(t, "rxonly");
  const result = await run(net.socket, [...SOURCE, `count=${COUNT}`]);
  const { pair, last } = resultOf(result);
  assert.is(result.status, 0, result.stdout + result.stderr);
  assert.is(last?.event, "exit");
  assert.is(last?.status, "success");
  assert.ok(pair.tx.packets >= COUNT && pair.tx.packets <= COUNT + 3, String(pair.tx.packets));
  const seen = await net.waitFor(({ rxPackets }) => rxPackets >= pair.tx.packets, 5000);
  assert.is(seen.rxPackets, pair.tx.packets);
  const kicks = pair.tx.kicks / pair.tx.packets;
  t.log(`${kicks.toFixed(6)} doorbells a frame`);
  assert.ok(kicks < KICKS_PER_FRAME, `${kicks} doorbells a frame`);
  assert.is(pair.tx.interrupts + pair.rx.interrupts, 0, "interrupts in poll mode");
});

test("sink: the guest has taken what the backend has sent, and the doorbell rests", async (t) => {
  const net = await backend(t, "txonly");
  const { status, ...result } = await run(net.socket, ["app=sink", "mode=poll", "duration=2"]);
  const { pair } = resultOf({ status, ...result });
  assert.is(status, 0, result.stdout + result.stderr);
  // What the backend put into the ring after the guest's last look stays there.
  const sent = (await net.sample(2)).at(-1)?.txPackets ?? 0;
  const left = sent - pair.rx.packets;
  assert.ok(pair.rx.packets > 0 && left >= 0 && left <= RING_ENTRIES, `${left} left of ${sent}`);
  const kicks = pair.rx.kicks / pair.rx.packets;
  t.log(`${kicks.toFixed(6)} doorbells a frame`);
  assert.ok(kicks < KICKS_PER_FRAME, `${kicks} doorbells a frame`);
  assert.is(pair.rx.interrupts, 0, "interrupts in poll mode");
});

test("sanitizers find nothing while frames go to the backend and come back", async (t) => {
  const net = await backend(t, "macswap");
  const words = ["--hugepages", "off", ...SOURCE, `count=${COUNT / 10}`];
  const result = await run(net.socket, words, SANITIZED);
  const { pair } = resultOf(result);
  assert.is(result.status, 0, result.stdout + result.stderr);
  assert.is(result.stderr, "");
  const seen = await net.waitFor(({ rxPackets }) => rxPackets >= pair.tx.packets, 5000);
  assert.is(seen.rxPackets, pair.tx.packets);
  assert.ok(pair.rx.packets > 0 && pair.rx.packets <= seen.rxPackets, String(pair.rx.packets));
});

test("adaptive: it sleeps until there are frames, and a console line ends it", async (t) => {
  const net = await backend(t, "rxonly");
  const words = ["app=sink", "mode=adaptive"];
  const result = await run(net.socket, words, PROCESS, "stats\nexit\n");
  assert.is(result.status, 0, result.stdout + result.stderr);
  const events = linesOf(result).map(({ event }) => event);
  assert.ok(events.filter((event) => event === "stats").length >= 2, events.join(" "));
});

test("a backend that dies in the middle ends the run with a sentence", async (t) => {
  const net = await backend(t, "rxonly");
  const running = run(net.socket, SOURCE);
  await net.waitFor(({ rxPackets }) => rxPackets > 0, 20_000);
  await net.stop();
  const result = await running;
  const lines = linesOf(result);
  assert.is(result.status, 1);
  assert.match(lines.at(-2)?.message ?? "", /backend has closed the socket/);
  assert.is(lines.at(-1)?.event, "exit");
  assert.is(lines.at(-1)?.status, "failure");
});

test("a wrong app word is an error event and status 1", async (t) => {
  const net = await backend(t, "rxonly");
  const result = await run(net.socket, ["app=nothing"]);
  assert.is(result.status, 1);
  assert.ok(linesOf(result).some(({ event }) => event === "error"));
});

test("no backend, or wrong usage: a sentence and a status", async () => {
  const absent = await run("/nonexistent/socket", SOURCE);
  assert.is(absent.status, 1);
  assert.match(absent.stderr, /no vhost-user backend listens at \/nonexistent\/socket/);
  for (const words of [["--queue-size", "3"], ["--mac", "x"], ["--guard", "?"], ["--unknown"]]) {
    const refused = await run("/nonexistent/socket", words);
    assert.is(refused.status, 2, words.join(" "));
    assert.match(refused.stderr, /see vireo-process --help/);
  }
  const help = await runCommand([PROCESS, "--help"]);
  assert.is(help.status, 0);
  assert.match(help.stdout, /callgrind/);
});

test("required large pages that are not there: a sentence and status 1", async (t) => {
  const net = await backend(t, "rxonly");
  const meminfo = readFileSync("/proc/meminfo", "utf8");
  const free = Number(/HugePages_Free:\s*(\d+)/.exec(meminfo)?.[1] ?? 0);
  if (free >= 256) t.skip(`${free} large pages are free, more than can be asked for`);
  const words = ["--memory", "512", "--hugepages", "required", ...SOURCE];
  const result = await run(net.socket, words);
  assert.is(result.status, 1);
  assert.match(result.stderr, /no 256 free large pages/);
});

test.run();
