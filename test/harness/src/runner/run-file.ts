// Runs one test file in a process of its own and turns what it says, and how it ends, into results.
// Nothing a file can do makes it pass silently: a test that was announced and has no result is a
// failure, and so is a file that ends early.

import { execPath } from "node:process";
import type { Readable } from "node:stream";
import { messageOf } from "../errors";
import { lineSplitter } from "../lines";
import { type Exit, type ManagedProcess, startProcess } from "../processes";
import { RUN_VARIABLE } from "../run-scope";
import { bundleTest } from "./bundle";
import { sweep, whatStays } from "./leftovers";
import { type DoneMessage, type EndMessage, type Message, VARIABLES } from "./protocol";
import type { FileResult, TestResult } from "./results";

export interface FileOptions {
  /** The run's identifier with the file's own number; names everything the file makes. */
  readonly run: string;
  readonly grep?: string;
  readonly list?: boolean;
  /** The only tests to run, by testKey(). */
  readonly only?: readonly string[];
  readonly mayDefer?: boolean;
  readonly artifacts: string;
  readonly image?: string;
  /** A file that says nothing for so long is ended. */
  readonly noOutputMs: number;
  readonly onLog: (text: string) => void;
  readonly onStart: (test: string) => void;
}

/** Beyond a test's own deadline, for a file that is too busy to keep it. */
const GRACE_MS = 8000;
/** For hooks after the last test, and for the process to end. */
const CLOSING_MS = 20_000;

/** The state of a running file. */
class FileRun {
  readonly results: TestResult[] = [];
  readonly output: Buffer[] = [];
  private readonly announced: { suite: string; test: string }[] = [];
  private done: DoneMessage | undefined;
  private killed: string | undefined;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly file: string,
    private readonly options: FileOptions,
    private readonly process: ManagedProcess,
  ) {
    this.limit(options.noOutputMs, `nothing heard for ${options.noOutputMs} ms`);
  }

  limit(ms: number, reason: string): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.killed = reason;
      this.process.kill();
    }, ms);
  }

  take(message: Message): void {
    const { noOutputMs } = this.options;
    if (message.type === "suite") {
      for (const test of message.tests) this.announced.push({ suite: message.suite, test });
      if (message.only) this.fail(message.suite, "(.only)", "`.only` is left in: remove it");
    } else if (message.type === "start") {
      this.options.onStart(`${message.suite} › ${message.test}`);
      const limitMs = message.timeoutMs + GRACE_MS;
      this.limit(limitMs, `'${message.test}' exceeds its deadline of ${message.timeoutMs} ms`);
    } else if (message.type === "end") {
      this.results.push(this.resultOf(message));
      const last = this.missing().length === 0;
      this.limit(last ? CLOSING_MS : noOutputMs, last ? "it does not end" : "nothing heard");
    } else if (message.type === "hook") {
      this.fail(message.suite, `(${message.hook} hook)`, message.detail);
    } else if (message.type === "log") {
      this.options.onLog(message.text);
    } else {
      this.done = message;
    }
  }

  private resultOf({
    suite,
    test,
    outcome,
    durationMs,
    detail,
    artifacts,
  }: EndMessage): TestResult {
    const more = detail === undefined ? {} : { detail };
    return {
      file: this.file,
      suite,
      test,
      outcome,
      durationMs,
      artifacts: artifacts ?? [],
      ...more,
    };
  }

  private fail(suite: string, test: string, detail: string): void {
    this.results.push({ file: this.file, suite, test, outcome: "failed", durationMs: 0, detail });
  }

  private missing(): { suite: string; test: string }[] {
    const left = [...this.announced];
    for (const { suite, test } of this.results) {
      const at = left.findIndex((entry) => entry.suite === suite && entry.test === test);
      if (at >= 0) left.splice(at, 1);
    }
    return left;
  }

  /** Judges the end; `list` runs have no results to miss. */
  finish(exit: Exit): void {
    clearTimeout(this.timer);
    const status = exit.signal ?? `status ${exit.status}`;
    const how = this.killed === undefined ? `it ended with ${status}` : `ended: ${this.killed}`;
    if (this.options.list) {
      for (const { suite, test } of this.missing()) this.addListed(suite, test);
    }
    for (const { suite, test } of this.missing()) {
      this.fail(suite, test, `did not run to its end: ${how}\n${this.outputTail()}`);
    }
    for (const suite of this.done?.notRun ?? []) {
      this.fail(suite, "(suite)", `suite '${suite}' never ran: call its run() at the file's end`);
    }
    if ((this.done?.registered ?? 0) === 0 && this.announced.length === 0) {
      const why = this.done === undefined ? how : "the file registers no test";
      this.fail("(file)", "(no results)", `${why}\n${this.outputTail()}`);
    }
    const failed = this.results.some((result) => result.outcome === "failed");
    if (!failed && exit.status !== 0) this.fail("(file)", "(end)", `${how}\n${this.outputTail()}`);
  }

  /** Who came to the end by himself has to leave nothing. */
  judgeLeftovers(exit: Exit, left: readonly string[]): void {
    if (left.length === 0 || this.killed !== undefined || exit.status !== 0) return;
    this.fail("(file)", "nothing is left at the end", left.join("\n"));
  }

  private addListed(suite: string, test: string): void {
    const listed = { file: this.file, suite, test, outcome: "skipped", durationMs: 0 } as const;
    this.results.push(listed);
  }

  private outputTail(): string {
    return Buffer.concat(this.output).toString().trimEnd().split("\n").slice(-20).join("\n");
  }
}

/** Runs `file` and returns its results; does not reject for anything the file does. */
export async function runFile(file: string, options: FileOptions): Promise<FileResult> {
  const begin = performance.now();
  const elapsed = () => Math.round(performance.now() - begin);
  let bundle: string;
  try {
    bundle = await bundleTest(file, options.only !== undefined);
  } catch (error) {
    const test: TestResult = {
      file,
      suite: "(file)",
      test: "(compile)",
      outcome: "failed",
      durationMs: 0,
      detail: messageOf(error),
    };
    return { file, durationMs: elapsed(), tests: [test], output: "" };
  }
  const process = startProcess(execPath, ["--enable-source-maps", bundle], {
    stdio: ["ignore", "pipe", "pipe", "pipe"],
    environment: environmentOf(options),
  });
  const run = new FileRun(file, options, process);
  const results = process.child.stdio[3] as Readable;
  results.on(
    "data",
    lineSplitter((line) => run.take(JSON.parse(line) as Message)),
  );
  process.child.stdout?.on("data", (chunk: Buffer) => run.output.push(chunk));
  process.child.stderr?.on("data", (chunk: Buffer) => run.output.push(chunk));
  const exit = await process.exited;
  const left = await whatStays(options.run);
  // A file that was ended by force could not clean up after itself.
  sweep(options.run);
  run.finish(exit);
  run.judgeLeftovers(exit, left);
  const output = Buffer.concat(run.output).toString();
  return { file, durationMs: elapsed(), tests: run.results, output };
}

/** What is undefined is unset: a test file may run a runner of its own. */
function environmentOf(options: FileOptions): Record<string, string | undefined> {
  const { only, list, mayDefer } = options;
  return {
    [RUN_VARIABLE]: options.run,
    [VARIABLES.results]: "1",
    [VARIABLES.artifacts]: options.artifacts,
    [VARIABLES.grep]: options.grep,
    [VARIABLES.list]: list ? "1" : undefined,
    [VARIABLES.only]: only === undefined ? undefined : JSON.stringify(only),
    [VARIABLES.mayDefer]: mayDefer ? "1" : undefined,
    ...(options.image === undefined ? {} : { QEMU_TEST_IMAGE: options.image }),
  };
}
