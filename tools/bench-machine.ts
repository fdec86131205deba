/**
 * What a measurement depends on besides the drivers: the machine, the programs' versions, and how
 * far the two CPUs are from each other at that minute (docs/decisions.md). Used by bench.ts and
 * bench-run.ts.
 */
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { findProgram, mustRun, runCommand } from "../test/harness/src/processes";
import { findQemu } from "../test/harness/src/qemu";
import { atExit } from "../test/harness/src/run-scope";

const SOURCE = "test/bench/peers/cache-line.c";
const PROGRAM = "build/bench/cache-line";
const DISTANCE_TIMEOUT_MS = 20_000;
const PAGES = "/proc/sys/vm/nr_hugepages";
const PAGES_FREE = /HugePages_Free:\s*(\d+)/;

export interface Machine {
  readonly cpu: string;
  readonly cpus: number;
  readonly memoryGib: number;
  readonly kernel: string;
  readonly qemu: string;
  readonly dpdk: string;
  readonly gcc: string;
  readonly node: string;
  readonly commit: string;
}

async function firstLine(argv: readonly string[]): Promise<string> {
  const result = await runCommand(argv);
  return result.status === 0 ? (result.stdout.split("\n")[0] ?? "").trim() : "unknown";
}

export async function describeMachine(): Promise<Machine> {
  const all = cpus();
  return {
    cpu: all[0]?.model ?? "unknown",
    cpus: all.length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    qemu: findQemu().version,
    dpdk: (await firstLine(["dpkg-query", "-W", "dpdk-dev"])).split("\t")[1] ?? "unknown",
    gcc: await firstLine(["gcc", "-dumpfullversion"]),
    node: process.versions.node,
    commit: await firstLine(["git", "describe", "--always", "--dirty"]),
  };
}

/** Why nothing can be measured here, or undefined. */
export function measurementUnavailable(): string | undefined {
  if (cpus().length < 2) return "two CPUs are needed: one for the backend, one for the driver";
  const missing = ["dpdk-testpmd", "taskset", "gcc"].filter((name) => !findProgram(name));
  return missing.length > 0 ? `not installed: ${missing.join(", ")}` : undefined;
}

/** Cycles of a cache line's round trip between the two CPUs, now. */
export async function measureDistance(cpuA: number, cpuB: number): Promise<number> {
  if (!existsSync(PROGRAM) || statSync(PROGRAM).mtimeMs < statSync(SOURCE).mtimeMs) {
    await mustRun(["gcc", "-O2", "-Wall", "-Werror", "-pthread", SOURCE, "-o", PROGRAM]);
  }
  return Number(await mustRun([PROGRAM, String(cpuA), String(cpuB)], DISTANCE_TIMEOUT_MS));
}

/** `wanted` free hugepages of 2 MiB, if they can be had; reserved until `restore`. */
export function reserveHugepages(wanted: number): { enough: boolean; restore: () => void } {
  const none = { enough: false, restore: () => undefined };
  if (process.getuid?.() !== 0 || !existsSync("/dev/hugepages")) return none;
  const before = readFileSync(PAGES, "utf8").trim();
  const missing = wanted - freeHugepages();
  if (missing <= 0) return { enough: true, restore: () => undefined };
  writeFileSync(PAGES, String(Number(before) + missing));
  const back = () => writeFileSync(PAGES, before);
  const forget = atExit(back);
  const restore = () => {
    forget();
    back();
  };
  return { enough: freeHugepages() >= wanted, restore };
}

function freeHugepages(): number {
  return Number(PAGES_FREE.exec(readFileSync("/proc/meminfo", "utf8"))?.[1] ?? 0);
}
