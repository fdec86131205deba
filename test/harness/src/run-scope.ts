// What one run owns: its identifier, its directory under the system's temporary directory, and
// everything to undo when the process ends for whatever reason. Called by whatever starts processes
// or creates namespaces, sockets or directories.
//
// The identifiers travel to child processes in the environment, so that the runner can find and end
// what a killed test file left behind: processes by their environment, namespaces and directories
// by their names.

import { mkdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Short, because a socket's path is limited to 107 bytes. */
export const NAME_PREFIX = "qth";
export const RUN_VARIABLE = "QEMU_TEST_HARNESS_RUN";

const runId =
  process.env[RUN_VARIABLE] ?? `${process.pid.toString(36)}${Date.now().toString(36).slice(-4)}`;
const cleanups = new Set<() => void>();
let serial = 0;
let directoryMade = false;

/** This run's identifier (letters and digits, with `-N` for the N-th test file). */
export function currentRun(): string {
  return runId;
}

/** A name no other run uses, for a namespace, of at most `NAME_PREFIX` + run + counter. */
export function uniqueName(): string {
  return `${NAME_PREFIX}-${runId}-${serial++}`;
}

/** The run's directory, which holds sockets and logs and is removed at the end. */
export function runDirectoryOf(id: string): string {
  return join(tmpdir(), `${NAME_PREFIX}-${id}`);
}

/** A new directory inside the run's directory. */
export function scratchDirectory(): string {
  const root = runDirectoryOf(runId);
  if (!directoryMade) {
    directoryMade = true;
    atExit(() => rmSync(root, { recursive: true, force: true }));
  }
  const path = join(root, String(serial++));
  mkdirSync(path, { recursive: true, mode: 0o700 });
  return path;
}

/**
 * Runs `undo` when the process ends, in reverse order; it must be synchronous. Returns a function
 * that cancels it.
 */
export function atExit(undo: () => void): () => void {
  if (cleanups.size === 0) process.on("exit", runCleanups);
  cleanups.add(undo);
  return () => {
    cleanups.delete(undo);
    if (cleanups.size === 0) process.off("exit", runCleanups);
  };
}

function runCleanups(): void {
  for (const undo of [...cleanups].reverse()) {
    cleanups.delete(undo);
    try {
      undo();
    } catch {
      // The process is ending: the other clean-ups matter more than this one's reason.
    }
  }
}

/**
 * Makes SIGINT, SIGTERM and SIGHUP end the process through its clean-ups, with the shell's status
 * (128 + number).
 */
export function exitOnSignals(): void {
  const numbers = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
  for (const [signal, number] of Object.entries(numbers)) {
    process.once(signal, () => process.exit(128 + number));
  }
}
