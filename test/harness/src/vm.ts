// One QEMU with one guest image: starts it, reads its console, speaks to it, and judges how it
// ended. Made by `TestContext.vm` in tests and by `make run`.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { chooseAccelerator } from "./accelerator";
import type { Artifact } from "./backends/backend";
import { withDeadline } from "./deadline";
import { EnvironmentError, HarnessError } from "./errors";
import { EventLog, type WaitOptions } from "./event-log";
import type { EventNamed, GuestEvent, MessageEvent, StatsEvent } from "./events";
import { lineSplitter } from "./lines";
import { type Exit, type ManagedProcess, startProcess } from "./processes";
import { findQemu } from "./qemu";
import { Qmp } from "./qmp";
import { scratchDirectory } from "./run-scope";
import {
  type Accelerator,
  commandLine,
  defaultImage,
  printable,
  type VmOptions,
} from "./vm-options";

/** isa-debug-exit turns the guest's 0x10 into 33 and its 0x11 into 35. */
export const STATUS_SUCCESS = 33;
export const STATUS_FAILURE = 35;

const START_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 10_000;
/** QEMU's complaints come in several lines; this long is waited for the rest of them. */
const STDERR_SETTLE_MS = 50;

/** What QEMU may always say: with more vCPUs than CPUs it only advises. */
const STDERR_ALLOWED = [/exceeds the recommended cpus supported by KVM/];

export interface Finished {
  readonly status: number | null;
  readonly events: readonly GuestEvent[];
}

export interface Failed extends Finished {
  readonly error: MessageEvent;
}

export class Vm {
  readonly commandLine: string;
  private readonly log: EventLog;
  private readonly stderr: string[] = [];
  private exit: Exit | undefined;
  private silence: NodeJS.Timeout | undefined;
  private cleaned: Promise<void> | undefined;

  private constructor(
    readonly options: VmOptions,
    readonly accelerator: Accelerator,
    readonly qmp: Qmp,
    private readonly process: ManagedProcess,
    command: readonly string[],
  ) {
    this.commandLine = printable(command);
    this.log = new EventLog(() => this.process.kill(), options.errorsAllowed);
    const { stdout, stderr, stdin } = process.child;
    const consoleLines = lineSplitter((line) => this.log.add(line));
    stdout?.on("data", (chunk: Buffer) => {
      this.restartSilence();
      consoleLines(chunk);
    });
    const stderrLines = lineSplitter((line) => this.takeStderr(line));
    stderr?.on("data", stderrLines);
    // A write that races with QEMU's end is reported as that end.
    stdin?.on("error", () => undefined);
    this.restartSilence();
    void process.exited.then((exit) => {
      consoleLines.end();
      stderrLines.end();
      this.takeExit(exit);
    });
  }

  /** Starts the backends, then QEMU. Rejects with QEMU's own words when it does not come up. */
  static async start(options: VmOptions): Promise<Vm> {
    const image = options.image ?? defaultImage();
    if (!existsSync(image)) {
      throw new EnvironmentError(`image ${image} not found: build it with 'make image'`);
    }
    const qemu = findQemu();
    const accelerator =
      options.accelerator === "auto"
        ? (await chooseAccelerator(image)).accelerator
        : (options.accelerator ?? "tcg");
    const backends = (options.nics ?? []).map((nic) => nic.backend);
    try {
      for (const backend of backends) await backend.start();
      const qmpPath = join(scratchDirectory(), "qmp");
      const qmp = await Qmp.listen(qmpPath);
      const command = commandLine(qemu.path, accelerator, qmpPath, options);
      const [program = "", ...args] = command;
      const vm = new Vm(options, accelerator, qmp, startProcess(program, args), command);
      await vm.started();
      return vm;
    } catch (error) {
      for (const backend of backends) await backend.stop();
      throw error;
    }
  }

  private async started(): Promise<void> {
    // A guest may do its work and end before QEMU has answered on QMP; and a QEMU that
    // refuses its arguments drops the connection before it ends.
    const { exited } = this.process;
    const up = Promise.race([this.qmp.ready.catch(() => exited), exited]);
    try {
      await withDeadline(up, START_TIMEOUT_MS, () => `QEMU does not start: ${this.commandLine}`);
    } catch (error) {
      await this.process.stop();
      throw error;
    }
    if (this.exit !== undefined && this.log.events.length === 0) {
      throw new HarnessError(`${this.describeExit()}\n${this.commandLine}`);
    }
  }

  private takeStderr(line: string): void {
    this.stderr.push(line);
    if (this.allowed(line)) return;
    setTimeout(() => {
      this.log.fail(new HarnessError(`QEMU's standard error says:\n${this.unexpectedStderr()}`));
    }, STDERR_SETTLE_MS);
  }

  private allowed(line: string): boolean {
    const ofBackends = (this.options.nics ?? []).flatMap((nic) => nic.backend.stderrAllowed ?? []);
    const patterns = [...STDERR_ALLOWED, ...ofBackends, ...(this.options.stderrAllowed ?? [])];
    return patterns.some((pattern) => pattern.test(line));
  }

  private unexpectedStderr(): string {
    return this.stderr.filter((line) => !this.allowed(line)).join("\n");
  }

  private takeExit(exit: Exit): void {
    this.exit = exit;
    clearTimeout(this.silence);
    this.qmp.close();
    this.log.end(this.describeExit());
  }

  private describeExit(): string {
    const how = this.exit?.signal ?? `status ${this.exit?.status}`;
    const said = this.stderr.length === 0 ? "" : `; its standard error:\n${this.stderr.join("\n")}`;
    return `QEMU has ended with ${how}${said}`;
  }

  private restartSilence(): void {
    const limitMs = this.options.noOutputMs;
    if (limitMs === undefined) return;
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      this.log.fail(new HarnessError(`the console is silent for ${limitMs} ms; ${this.tail()}`));
    }, limitMs);
  }

  /** The console's last lines, for messages. */
  tail(): string {
    return this.log.tail();
  }

  /** Every console line so far, the firmware's included. */
  get console(): readonly string[] {
    return this.log.lines;
  }

  get running(): boolean {
    return this.process.running;
  }

  /** QEMU's process (a wrapper such as taskset has replaced itself by QEMU). */
  get pid(): number | undefined {
    return this.process.child.pid;
  }

  /**
   * The first event of that name, past or future (with `fresh`: future only). Rejects at once, with
   * the console's tail, when QEMU ends or the guest reports an error or panic that nobody asked
   * for, and after `timeoutMs` (10 s).
   */
  waitFor<Name extends string>(
    name: Name,
    options?: WaitOptions<EventNamed<Name>>,
  ): Promise<EventNamed<Name>> {
    return this.log.waitFor(name, options);
  }

  /** Every event from the first on until QEMU ends; rejects when none comes for `timeoutMs`. */
  events(options: { timeoutMs?: number } = {}): AsyncGenerator<GuestEvent, void, void> {
    return this.log.iterate(options.timeoutMs ?? 10_000);
  }

  /** Every event so far. */
  get history(): readonly GuestEvent[] {
    return this.log.events;
  }

  /** Writes a line to the guest's console. */
  send(line: string): void {
    this.process.child.stdin?.write(`${line}\n`);
  }

  /**
   * Stops reading the console, so that it fills up to the guest; `resumeConsole` reads on. With a
   * no-output deadline the silence counts.
   */
  pauseConsole(): void {
    this.process.child.stdout?.pause();
  }

  resumeConsole(): void {
    this.process.child.stdout?.resume();
  }

  /** Asks the guest for its counters. */
  stats(options: { nic?: number; timeoutMs?: number } = {}): Promise<StatsEvent> {
    const { nic, timeoutMs = 10_000 } = options;
    const where = (event: StatsEvent) => event.nic === (nic ?? 0);
    const answer = this.waitFor("stats", { timeoutMs, where, fresh: true });
    // Asked for by name only one comes, so that none is taken for the answer to a later question.
    this.send(nic === undefined ? "stats" : `nic ${nic} stats`);
    return answer;
  }

  /**
   * Asks the guest to exit. Rejects unless it ends with success: status 33 and a last `exit` event
   * that says so.
   */
  async stop(options: { timeoutMs?: number } = {}): Promise<Finished> {
    if (this.running) this.send("exit");
    return this.finished({ timeoutMs: options.timeoutMs ?? STOP_TIMEOUT_MS });
  }

  /** Waits until the guest ends by itself; rejects unless it ends with success. */
  async finished(options: { timeoutMs: number }): Promise<Finished> {
    await this.ended(options.timeoutMs);
    return this.judge(STATUS_SUCCESS, "success");
  }

  /**
   * Waits until the guest reports an error or a panic and ends with failure (35); rejects when it
   * succeeds.
   */
  async failure(options: { timeoutMs?: number } = {}): Promise<Failed> {
    await this.ended(options.timeoutMs ?? STOP_TIMEOUT_MS);
    this.log.claimAll();
    const error = this.history.find((event) => event.event === "error" || event.event === "panic");
    if (error === undefined) {
      throw new HarnessError(`no error or panic event; ${this.describeExit()}\n${this.tail()}`);
    }
    const finished = this.judge(STATUS_FAILURE, "failure");
    return { ...finished, error: error as unknown as MessageEvent };
  }

  private async ended(timeoutMs: number): Promise<void> {
    try {
      await withDeadline(
        this.process.exited,
        timeoutMs,
        () => `the guest does not end; ${this.tail()}`,
      );
    } finally {
      // The backends stay: a test may want to compare their counters with the guest's.
      if (this.process.running) await this.process.stop();
    }
  }

  private judge(wanted: number, wantedStatus: string): Finished {
    const complaints: string[] = [];
    const last = this.history.at(-1);
    if (this.exit?.status !== wanted) complaints.push(`${this.describeExit()}, not ${wanted}`);
    if (last?.event !== "exit") complaints.push("the last event is not 'exit'");
    else if (last.status !== wantedStatus) complaints.push(`the exit event says '${last.status}'`);
    const bad = this.log.unclaimed();
    if (bad !== undefined) complaints.push(`the guest reported ${JSON.stringify(bad)}`);
    const stderr = this.unexpectedStderr();
    if (stderr !== "") complaints.push(`QEMU's standard error says:\n${stderr}`);
    if (complaints.length > 0) throw new HarnessError(`${complaints.join("; ")}\n${this.tail()}`);
    return { status: this.exit?.status ?? null, events: this.history };
  }

  /**
   * What is wrong with this VM although no wait has failed for it yet; undefined when nothing is.
   */
  problem(): string | undefined {
    const bad = this.log.unclaimed();
    if (bad !== undefined) return `the guest reported ${JSON.stringify(bad)}\n${this.tail()}`;
    const stderr = this.unexpectedStderr();
    return stderr === "" ? undefined : `QEMU's standard error says:\n${stderr}`;
  }

  /** Ends QEMU at once if it still runs, and the backends. Harmless when repeated. */
  kill(): Promise<void> {
    this.cleaned ??= this.cleanUp();
    return this.cleaned;
  }

  private async cleanUp(): Promise<void> {
    clearTimeout(this.silence);
    if (this.process.running) await this.process.stop();
    for (const nic of this.options.nics ?? []) await nic.backend.stop();
  }

  /** Everything worth keeping of a failed test. */
  artifacts(): Artifact[] {
    return [
      { name: "console.log", content: this.log.lines.map((line) => `${line}\n`).join("") },
      { name: "qemu-command.txt", content: `${this.commandLine}\n` },
      { name: "qmp.log", content: this.qmp.log.map((line) => `${line}\n`).join("") },
      { name: "stderr.log", content: this.stderr.map((line) => `${line}\n`).join("") },
      ...this.backendArtifacts(),
    ];
  }

  /** With several cards each has its number before its files' names. */
  private backendArtifacts(): Artifact[] {
    const nics = this.options.nics ?? [];
    return nics.flatMap(({ backend }, index) =>
      backend.artifacts().map(({ name, content }) => ({
        name: nics.length > 1 ? `net${index}-${name}` : name,
        content,
      })),
    );
  }
}
