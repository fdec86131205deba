/**
 * The backend of every measurement: DPDK's testpmd with a vhost-user port for each NIC, asked for
 * its counters on its console. One for each contender, so that all can be there at once and take
 * turns. Used by bench-run.ts.
 *
 * The rate is testpmd's own: packets since the last `show port stats`, by its own clock. What a
 * driver forwards comes from a null port (an endless source of frames) and ends in one:
 *
 *   forward        null 0 -> vhost 1 -> driver -> vhost 2 -> null 0
 *   forward-both   null 0 <-> vhost 1 <-> driver <-> vhost 2 <-> null 3
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { DeadlineError, HarnessError } from "../test/harness/src/errors";
import { lineSplitter } from "../test/harness/src/lines";
import { type ManagedProcess, startProcess } from "../test/harness/src/processes";
import { scratchDirectory, uniqueName } from "../test/harness/src/run-scope";
import { type Case, isForward } from "./bench-cases";

const START_TIMEOUT_MS = 30_000;
const ANSWER_TIMEOUT_MS = 10_000;
const POLL_MS = 20;
export const BACKEND_MEMORY_MIB = 128;
const TAIL_LINES = 12;
const MBUFS = 16384;
/** What fits into one of its buffers. */
const SEGMENT_BYTES = 2048;
const MULTI_SEGS = "0x8000";
/** TCP and UDP. */
const CHECKSUMS = "0xc";

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
    /** Who else wants to see each line. */
    public onLine: (line: string) => void = () => undefined,
  ) {
    const isRoot = process.getuid?.() === 0;
    const [program = "", ...rest] = isRoot ? ["sh", "-c", FIRST, ...argv] : argv;
    this.process = startProcess(program, rest);
    const take = (line: string) => {
      this.lines.push(line);
      if (this.lines.length > 200) this.lines.splice(0, 100);
      this.onLine(line);
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

/** testpmd's words for frames of `bytes`: one segment, or as many as it takes. */
export function segmentWords(bytes: number): string[] {
  const whole = Math.floor(bytes / SEGMENT_BYTES);
  const rest = bytes % SEGMENT_BYTES;
  const segments = [...Array<number>(whole).fill(SEGMENT_BYTES), ...(rest > 0 ? [rest] : [])];
  const words = [`--txpkts=${segments.join(",")}`];
  return segments.length > 1 ? [...words, `--tx-offloads=${MULTI_SEGS}`] : words;
}

type PortCounters = Partial<Record<keyof Counters, number>>;

export class BenchBackend {
  /** One for each NIC. */
  readonly socketPaths: readonly string[];
  private readonly program: Program;
  /** The vhost-user ports whose counters are the figure. */
  private readonly ports: readonly number[];
  private readonly answers = new Map<number, PortCounters>();
  private answering = 0;
  private answered = 0;

  constructor(
    readonly what: Case,
    options: BackendOptions,
  ) {
    const folder = scratchDirectory();
    const nics = isForward(what) ? 2 : 1;
    this.socketPaths = Array.from({ length: nics }, (_, nic) => join(folder, `vhost${nic}`));
    const ports = { tx: [0], rx: [0], forward: [2], "forward-both": [1, 2] };
    this.ports = ports[what.direction];
    this.program = new Program("testpmd", this.command(options), (line) => this.take(line));
  }

  private devices(): string[] {
    const { direction, frameBytes, large } = this.what;
    const cuts = large && direction === "tx" ? ",tso=1" : "";
    const vhosts = this.socketPaths.map(
      (path, nic) => `net_vhost${nic},iface=${path},queues=1${cuts}`,
    );
    const nothing = (nic: number) => `net_null${nic},size=${frameBytes},copy=1`;
    if (direction === "forward") return [nothing(0), ...vhosts];
    if (direction === "forward-both") return [nothing(0), ...vhosts, nothing(1)];
    return vhosts;
  }

  private forwarding(guestMac: string): string[] {
    const { direction, frameBytes } = this.what;
    // Without an offload of its own the port would compute every checksum that is asked for.
    if (direction === "tx") return ["--forward-mode=rxonly", `--rx-offloads=${CHECKSUMS}`];
    const sends = [...segmentWords(frameBytes), `--eth-peer=0,${guestMac}`];
    if (direction === "rx") return ["--forward-mode=txonly", ...sends];
    const topology = direction === "forward" ? "chained" : "paired";
    return ["--forward-mode=io", `--port-topology=${topology}`];
  }

  private command({ cpu, hugepages, guestMac }: BackendOptions): string[] {
    return [
      // Into a pipe it would print only when a buffer is full.
      ...["stdbuf", "-oL", "dpdk-testpmd", "--lcores", `0@${cpu},1@${cpu}`],
      ...["-m", String(BACKEND_MEMORY_MIB), ...(hugepages ? ["--in-memory"] : ["--no-huge"])],
      ...[`--file-prefix=${uniqueName()}`, "--no-pci"],
      ...this.devices().flatMap((device) => ["--vdev", device]),
      ...["--", "-i", "--auto-start", ...this.forwarding(guestMac)],
      ...["--burst=64", `--total-num-mbufs=${MBUFS}`, "--rxq=1", "--txq=1"],
    ];
  }

  /** Waits until its sockets are there. */
  async ready(): Promise<void> {
    const seen = () => this.program.ended || this.socketPaths.every((path) => existsSync(path));
    await until(seen, START_TIMEOUT_MS, () => `testpmd makes no socket:\n${this.program.tail()}`);
    this.program.check();
  }

  private take(line: string): void {
    const port = /NIC statistics for port (\d+)/.exec(line)?.[1];
    if (port !== undefined) {
      this.answering = Number(port);
      this.answers.set(this.answering, {});
    }
    const fields: [RegExp, keyof Counters][] = [
      [/RX-packets:\s*(\d+)/, "rxPackets"],
      [/TX-packets:\s*(\d+)/, "txPackets"],
      [/Rx-pps:\s*(\d+)/, "rxPps"],
      [/Tx-pps:\s*(\d+)/, "txPps"],
    ];
    const answer = this.answers.get(this.answering);
    if (answer === undefined) return;
    for (const [pattern, field] of fields) {
      const match = pattern.exec(line);
      if (match === null) continue;
      answer[field] = Number(match[1]);
      if (field === "txPps") this.answered++;
    }
  }

  /** The counters of its measured ports now. */
  async counters(): Promise<Counters[]> {
    const wanted = this.answered + this.ports.length;
    for (const port of this.ports) this.program.send(`show port stats ${port}`);
    const answered = () => this.program.ended || this.answered >= wanted;
    await until(answered, ANSWER_TIMEOUT_MS, () => `testpmd is silent:\n${this.program.tail()}`);
    this.program.check();
    const none = { rxPackets: 0, txPackets: 0, rxPps: 0, txPps: 0 };
    return this.ports.map((port) => ({ ...none, ...this.answers.get(port) }));
  }

  /** Whether each measured port has moved a frame in the case's direction. */
  async moves(): Promise<boolean> {
    const isReceived = this.what.direction !== "rx";
    const counters = await this.counters();
    return counters.every(({ rxPackets, txPackets }) => (isReceived ? rxPackets : txPackets) > 0);
  }

  /** Frames a second in the case's direction over the next `ms` milliseconds, mean of the ports. */
  async rate(ms: number): Promise<number> {
    await this.counters();
    await pause(ms);
    const isReceived = this.what.direction !== "rx";
    const rates = (await this.counters()).map(({ rxPps, txPps }) => (isReceived ? rxPps : txPps));
    return rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
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
