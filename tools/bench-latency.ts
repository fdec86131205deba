/**
 * Round trips of a UDP echo through a tap: ours in two modes and a Linux guest's, with the same
 * QEMU options. All guests are there at once and frozen but for one; they take turns, some hundred
 * round trips each, round after round. Called by bench.ts.
 *
 * The vCPU's thread has a CPU of its own. QEMU's other thread, which is the device, and the client
 * share the other one, so that a guest that polls takes no time from its own device.
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { type TapBackend, tap } from "../test/harness/src/backends/tap";
import { HarnessError, messageOf } from "../test/harness/src/errors";
import { mustRun } from "../test/harness/src/processes";
import { Program, until } from "./bench-backend";
import { GUEST_IP, type Guest, guestCommand, linuxGuest, vireoGuest } from "./bench-guests";

const PING_SOURCE = "test/bench/peers/udp-ping.c";
const PING = "build/bench/udp-ping";
const ECHO_PORT = 7;
const ROUNDS = 5;
const ECHOES_A_ROUND = 1000;
const READY_TIMEOUT_MS = 60_000;
const THREAD_TIMEOUT_MS = 10_000;
const PING_TIMEOUT_MS = 60_000;
const MACHINE = "q35";

export interface LatencyRow {
  readonly id: string;
  readonly name: string;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly answered: number;
  readonly lost: number;
  readonly skipped?: string;
}

interface Running {
  readonly guest: Guest;
  readonly net: TapBackend;
  readonly program: Program;
  readonly times: number[];
  lost: number;
}

export const LATENCY_GUESTS: readonly Guest[] = [
  vireoGuest("adaptive"),
  vireoGuest("poll"),
  linuxGuest(),
];

/** The value that a part of `values` (0 to 1) is not above. */
export function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = Math.min(sorted.length - 1, Math.floor(sorted.length * part));
  return sorted[at] ?? 0;
}

async function buildPing(): Promise<void> {
  if (existsSync(PING) && statSync(PING).mtimeMs > statSync(PING_SOURCE).mtimeMs) return;
  await mustRun(["gcc", "-O2", "-Wall", "-Werror", PING_SOURCE, "-o", PING]);
}

/** The thread of the only vCPU, by its name. */
function vcpuThread(pid: number): string | undefined {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).find((task) =>
    readFileSync(`${tasks}/${task}/comm`, "utf8").startsWith("CPU 0/"),
  );
}

/** QEMU's pid: that of the program, or of what its wrapper (`ip netns exec`) became. */
async function pinThreads(program: Program, vcpuCpu: number, otherCpu: number): Promise<void> {
  const pid = program.process.child.pid ?? 0;
  const found = () => program.ended || vcpuThread(pid) !== undefined;
  await until(found, THREAD_TIMEOUT_MS, () => `QEMU starts no vCPU:\n${program.tail()}`);
  program.check();
  await mustRun(["taskset", "-a", "-p", "-c", String(otherCpu), String(pid)]);
  await mustRun(["taskset", "-p", "-c", String(vcpuCpu), vcpuThread(pid) ?? ""]);
}

async function startGuest(guest: Guest, vcpuCpu: number, otherCpu: number): Promise<Running> {
  const net = tap();
  const reason = await net.available();
  if (reason !== undefined) throw new HarnessError(reason);
  let program: Program | undefined;
  try {
    await net.start();
    const command = [...net.wrapper, ...guestCommand(guest, MACHINE, net.netdev("n0"))];
    const started = new Program(guest.name, command);
    program = started;
    await pinThreads(started, vcpuCpu, otherCpu);
    const ready = () => started.ended || started.lines.some((line) => /"ready"|^ready/.test(line));
    await until(ready, READY_TIMEOUT_MS, () => `${guest.name} is not ready:\n${started.tail()}`);
    started.check();
    return { guest, net, program: started, times: [], lost: 0 };
  } catch (error) {
    await program?.stop();
    await net.stop();
    throw error;
  }
}

async function takeTurn(running: Running, clientCpu: number): Promise<void> {
  const { net, program, times } = running;
  program.thaw();
  const client = [PING, GUEST_IP, String(ECHO_PORT), String(ECHOES_A_ROUND)];
  const command = ["taskset", "-c", String(clientCpu), ...client];
  const result = await net.exec(command, { timeoutMs: PING_TIMEOUT_MS });
  program.freeze();
  program.check();
  if (result.status !== 0) throw new HarnessError(`udp-ping: ${result.stderr.trim()}`);
  const answered = result.stdout.split("\n").filter((line) => line !== "");
  times.push(...answered.map(Number));
  running.lost += ECHOES_A_ROUND - answered.length;
}

function rowOf({ id, name }: Guest, times: readonly number[], lost: number): LatencyRow {
  return {
    ...{ id, name, answered: times.length, lost },
    p50Us: percentile(times, 0.5),
    p99Us: percentile(times, 0.99),
    p999Us: percentile(times, 0.999),
  };
}

export async function measureLatency(
  guests: readonly Guest[],
  cpus: { readonly driver: number; readonly backend: number },
  progress: (text: string) => void,
): Promise<LatencyRow[]> {
  await buildPing();
  const skipped = new Map<Guest, string>();
  const running: Running[] = [];
  try {
    for (const guest of guests) {
      progress(`UDP echo: starting ${guest.name}`);
      try {
        const reason = await guest.unavailable();
        if (reason !== undefined) throw new HarnessError(reason);
        const started = await startGuest(guest, cpus.driver, cpus.backend);
        started.program.freeze();
        running.push(started);
      } catch (error) {
        skipped.set(guest, messageOf(error));
      }
    }
    for (let round = 1; round <= ROUNDS; round++) {
      for (const each of running.filter(({ guest }) => !skipped.has(guest))) {
        try {
          await takeTurn(each, cpus.backend);
        } catch (error) {
          skipped.set(each.guest, messageOf(error));
        }
        progress(`UDP echo: ${each.guest.name}, round ${round} of ${ROUNDS}`);
      }
    }
  } finally {
    for (const { program, net } of running) {
      await program.stop();
      await net.stop();
    }
  }
  return guests.map((guest): LatencyRow => {
    const found = running.find((each) => each.guest === guest);
    const reason = skipped.get(guest);
    if (reason !== undefined) return { ...rowOf(guest, [], 0), skipped: reason };
    return rowOf(guest, found?.times ?? [], found?.lost ?? 0);
  });
}
