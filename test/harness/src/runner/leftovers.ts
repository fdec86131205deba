// Finds and removes what a run's processes may have left: processes (by the run's identifier in
// their environment), network namespaces with their taps, and directories with their sockets (by
// their names). Called by the runner after each file, where anything found is a failure unless the
// file was ended by force, and at the end of a run.

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { delay } from "../deadline";
import { NAME_PREFIX, RUN_VARIABLE } from "../run-scope";

const END_ATTEMPTS = 100;
const END_PAUSE_MS = 10;
const NAMESPACES = "/run/netns";

/** One line for each thing of the run `run` (and of its files `run-N`) that still exists. */
export function findLeftovers(run: string): string[] {
  return [
    ...processesOf(run).map(({ pid, command }) => `process ${pid}: ${command}`),
    ...namesIn(NAMESPACES, run).map((name) => `network namespace ${name}`),
    ...namesIn(tmpdir(), run).map((name) => `directory ${join(tmpdir(), name)}`),
  ];
}

/** What still exists after the time that the kernel needs to take processes apart. */
export async function whatStays(run: string): Promise<string[]> {
  let left = findLeftovers(run);
  for (let i = 0; left.length > 0 && i < END_ATTEMPTS; i++) {
    await delay(END_PAUSE_MS);
    left = findLeftovers(run);
  }
  return left;
}

/** Ends and removes all of it; synchronous, because it also runs while our own process ends. */
export function sweep(run: string): void {
  const found = processesOf(run);
  for (const { pid } of found) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It ended by itself in the meantime.
    }
  }
  if (found.length > 0) awaitEnd(run);
  for (const name of namesIn(NAMESPACES, run)) spawnSync("ip", ["netns", "delete", name]);
  for (const name of namesIn(tmpdir(), run)) {
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}

/**
 * A killed process exists until the kernel has taken it apart; what lasts longer is reported as
 * left.
 */
function awaitEnd(run: string): void {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let i = 0; i < END_ATTEMPTS && processesOf(run).length > 0; i++) {
    Atomics.wait(pause, 0, 0, END_PAUSE_MS);
  }
}

function belongs(id: string, run: string): boolean {
  return id === run || id.startsWith(`${run}-`);
}

function namesIn(directory: string, run: string): string[] {
  const prefix = `${NAME_PREFIX}-`;
  return list(directory).filter(
    (name) => name.startsWith(prefix) && belongs(name.slice(prefix.length), run),
  );
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function processesOf(run: string): { pid: number; command: string }[] {
  const found: { pid: number; command: string }[] = [];
  for (const name of list("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const id = read(`/proc/${name}/environ`)
      .split("\0")
      .find((entry) => entry.startsWith(`${RUN_VARIABLE}=`))
      ?.slice(RUN_VARIABLE.length + 1);
    if (id === undefined || !belongs(id, run)) continue;
    const command = read(`/proc/${name}/cmdline`).replaceAll("\0", " ").trim();
    // A process that has ended and awaits its parent has no command line left.
    if (command !== "") found.push({ pid, command });
  }
  return found;
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
