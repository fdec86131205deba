// Starts outside programs so that none survives us. Called by the VM, the backends and the runner.
//
// Each program gets a process group of its own (so that all its children can be ended at once, and
// so that Ctrl-C on the terminal reaches only us), and, where util-linux's setpriv exists, the
// kernel's order to die with its parent.

import { type ChildProcess, type StdioOptions, spawn, spawnSync } from "node:child_process";
import { withDeadline } from "./deadline";
import { EnvironmentError, HarnessError } from "./errors";
import { atExit, currentRun, RUN_VARIABLE } from "./run-scope";

export interface Exit {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface StartOptions {
  readonly stdio?: StdioOptions;
  /** Beside our own; what is undefined is unset. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

let parentDeath: readonly string[] | undefined;

function parentDeathPrefix(): readonly string[] {
  if (parentDeath === undefined) {
    const found = spawnSync("setpriv", ["--pdeathsig", "KILL", "true"]).status === 0;
    parentDeath = found ? ["setpriv", "--pdeathsig", "KILL"] : [];
  }
  return parentDeath;
}

/** A running program with its own process group. */
export class ManagedProcess {
  readonly exited: Promise<Exit>;
  private ended = false;

  constructor(
    readonly child: ChildProcess,
    private readonly name: string,
  ) {
    const forget = atExit(() => this.kill());
    this.exited = new Promise((resolve) => {
      const end = (exit: Exit) => {
        this.ended = true;
        forget();
        resolve(exit);
      };
      child.once("close", (status, signal) => end({ status, signal }));
      child.once("error", () => end({ status: 127, signal: null }));
    });
  }

  get running(): boolean {
    return !this.ended;
  }

  /** Ends the whole group at once; harmless when it has ended already. */
  kill(signal: NodeJS.Signals = "SIGKILL"): void {
    if (this.ended || this.child.pid === undefined) return;
    try {
      process.kill(-this.child.pid, signal);
    } catch {
      // It ended between the check and the call.
    }
  }

  /** Ends the group and waits until it is gone. */
  async stop(): Promise<void> {
    this.kill();
    await withDeadline(this.exited, 10_000, () => `${this.name} ignores SIGKILL`);
  }
}

/** Starts `command`; a program that does not exist ends with status 127. */
export function startProcess(
  command: string,
  args: readonly string[],
  options: StartOptions = {},
): ManagedProcess {
  const [program, ...rest] = [...parentDeathPrefix(), command, ...args];
  const child = spawn(program as string, rest, {
    stdio: options.stdio ?? "pipe",
    detached: true,
    env: { ...process.env, [RUN_VARIABLE]: currentRun(), ...options.environment },
  });
  return new ManagedProcess(child, command);
}

export interface CommandResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end, with `input` on its standard input. Rejects when it outlives
 * `timeoutMs`.
 */
export async function runCommand(
  argv: readonly string[],
  options: { timeoutMs?: number; input?: string | Uint8Array } = {},
): Promise<CommandResult> {
  const [command = "", ...args] = argv;
  const started = startProcess(command, args);
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  started.child.stdout?.on("data", (chunk: Buffer) => out.push(chunk));
  started.child.stderr?.on("data", (chunk: Buffer) => err.push(chunk));
  // A program that ends without reading its input is judged by its status, not by the broken pipe.
  started.child.stdin?.on("error", () => undefined);
  started.child.stdin?.end(options.input ?? "");
  try {
    const timeoutMs = options.timeoutMs ?? 10_000;
    const exit = await withDeadline(started.exited, timeoutMs, () => `'${argv.join(" ")}' runs on`);
    return {
      status: exit.status,
      stdout: Buffer.concat(out).toString(),
      stderr: Buffer.concat(err).toString(),
    };
  } finally {
    started.kill();
  }
}

/** Runs a program that must succeed; a failure carries its standard error. */
export async function mustRun(argv: readonly string[], timeoutMs = 10_000): Promise<string> {
  const result = await runCommand(argv, { timeoutMs });
  if (result.status === 0) return result.stdout;
  if (result.status === 127) {
    throw new EnvironmentError(`'${argv[0]}' is not installed: install it and run again`);
  }
  throw new HarnessError(
    `'${argv.join(" ")}' ended with ${result.status}: ${result.stderr.trim()}`,
  );
}

/** The path of a program, or undefined when no directory of PATH has it. */
export function findProgram(name: string): string | undefined {
  const found = spawnSync("sh", ["-c", 'command -v "$0"', name], { encoding: "utf8" });
  return found.status === 0 ? found.stdout.trim() : undefined;
}
