/**
 * The backend of every measurement: DPDK's testpmd with one vhost-user port, asked for its counters
 * on its console. One for each contender, so that all can be there at once and take turns. Used by
 * bench-run.ts.
 *
 * The rate is testpmd's own: packets since the last `show port stats`, by its own clock.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { DeadlineError, HarnessError } from "../test/harness/src/errors";
import { lineSplitter } from "../test/harness/src/lines";
import { type ManagedProcess, startProcess } from "../test/harness/src/processes";
import { scratchDirectory, uniqueName } from "../test/harness/src/run-scope";
import type { Case } from "./bench-cases";

const START_TIMEOUT_MS = 30_000;
const ANSWER_TIMEOUT_MS = 10_000;
const POLL_MS = 20;
const MEMORY_MIB = 128;
const TAIL_LINES = 12;

/**
 * Ahead of the host's other work, where that is allowed. Where the kernel groups processes by
 * session, a niceness counts within the session only, and the session has one of its own.
 */
const FIRST = '{ echo -15 >/proc/self/autogroup; } 2>/dev/null; exec nice -n -15 "$0" "$@"';

export interface Counters {
  readonly rxPackets: number;
  readonly txPackets: number;
  /** Frames a second since the counters were last asked for. */
  readonly rxPps: number;
  readonly txPps: number;
}

export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Waits until `done` holds; rejects with `what` after `timeoutMs`. */
export async function until(done: () => boolean, timeoutMs: number, what: () => string) {
  const end = performance.now() + timeoutMs;
  while (!done()) {
    if (performance.now() > end) throw new DeadlineError(what());
    await pause(POLL_MS);
  }
}

/** A program with its console: what it said last, and whether it has ended. */
export class Program {
  readonly lines: string[] = [];
  readonly process: ManagedProcess;
  ended = false;

  constructor(
    readonly name: string,
    argv: readonly string[],
    onLine: (line: string) => void = () => undefined,
  ) {
    const isRoot = process.getuid?.() === 0;
    const [program = "", ...rest] = isRoot ? ["sh", "-c", FIRST, ...argv] : argv;
    this.process = startProcess(program, rest);
    const take = (line: string) => {
      this.lines.push(line);
      if (this.lines.length > 200) this.lines.splice(0, 100);
      onLine(line);
    };
    this.process.child.stdout?.on("data", lineSplitter(take));
    this.process.child.stderr?.on("data", lineSplitter(take));
    // Writing to a program that ends is reported as its end.
    this.process.child.stdin?.on("error", () => undefined);
    void this.process.exited.then(() => {
      this.ended = true;
    });
  }

  send(line: string): void {
    this.process.child.stdin?.write(`${line}\n`);
  }

  freeze(): void {
    this.process.kill("SIGSTOP");
  }

  thaw(): void {
    this.process.kill("SIGCONT");
  }

  tail(): string {
    return this.lines.slice(-TAIL_LINES).join("\n");
  }

  /** Throws when the program has ended by itself. */
  check(): void {
    if (this.ended) throw new HarnessError(`${this.name} has ended:\n${this.tail()}`);
  }

  async stop(): Promise<void> {
    if (this.process.running) await this.process.stop();
  }
}

export interface BackendOptions {
  readonly cpu: number;
  readonly hugepages: boolean;
  readonly guestMac: string;
}

export class BenchBackend {
  readonly socketPath = join(scratchDirectory(), "vhost");
  private readonly program: Program;
  private answer: Partial<Record<keyof Counters, number>> = {};
  private answers = 0;

  constructor(
    readonly what: Case,
    options: BackendOptions,
  ) {
    this.program = new Program("testpmd", this.command(options), (line) => this.take(line));
  }

  private command({ cpu, hugepages, guestMac }: BackendOptions): string[] {
    const { direction, frameBytes, tso } = this.what;
    const device = `net_vhost0,iface=${this.socketPath},queues=1${tso ? ",tso=1" : ""}`;
    const sends = [`--txpkts=${frameBytes}`, `--eth-peer=0,${guestMac}`];
    return [
      // Into a pipe it would print only when a buffer is full.
      ...[
        "stdbuf",
        "-oL",
        "dpdk-testpmd",
        "--lcores",
        `0@${cpu},1@${cpu}`,
        "-m",
        String(MEMORY_MIB),
      ],
      ...(hugepages ? ["--in-memory"] : ["--no-huge"]),
      ...[`--file-prefix=${uniqueName()}`, "--no-pci", "--vdev", device, "--"],
      ...["-i", "--auto-start", `--forward-mode=${direction === "tx" ? "rxonly" : "txonly"}`],
      ...["--burst=64", "--total-num-mbufs=16384", "--rxq=1", "--txq=1"],
      ...(direction === "rx" ? sends : []),
    ];
  }

  /** Waits until its socket is there. */
  async ready(): Promise<void> {
    const seen = () => this.program.ended || existsSync(this.socketPath);
    await until(seen, START_TIMEOUT_MS, () => `testpmd makes no socket:\n${this.program.tail()}`);
    this.program.check();
  }

  private take(line: string): void {
    const fields: [RegExp, keyof Counters][] = [
      [/RX-packets:\s*(\d+)/, "rxPackets"],
      [/TX-packets:\s*(\d+)/, "txPackets"],
      [/Rx-pps:\s*(\d+)/, "rxPps"],
      [/Tx-pps:\s*(\d+)/, "txPps"],
    ];
    for (const [pattern, field] of fields) {
      const match = pattern.exec(line);
      if (match === null) continue;
      this.answer[field] = Number(match[1]);
      if (field === "txPps") this.answers++;
    }
  }

  /** Its counters now. */
  async counters(): Promise<Counters> {
    const wanted = this.answers + 1;
    this.program.send("show port stats 0");
    const answered = () => this.program.ended || this.answers >= wanted;
    await until(answered, ANSWER_TIMEOUT_MS, () => `testpmd is silent:\n${this.program.tail()}`);
    this.program.check();
    return { rxPackets: 0, txPackets: 0, rxPps: 0, txPps: 0, ...this.answer };
  }

  /** Frames a second of the case's direction over the next `ms` milliseconds. */
  async rate(ms: number): Promise<number> {
    await this.counters();
    await pause(ms);
    const { rxPps, txPps } = await this.counters();
    return this.what.direction === "tx" ? rxPps : txPps;
  }

  freeze(): void {
    this.program.freeze();
  }

  thaw(): void {
    this.program.thaw();
  }

  stop(): Promise<void> {
    return this.program.stop();
  }
}
