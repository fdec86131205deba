/**
 * The other CPUs: how RAM is divided among them, their start, and what they are told through the
 * mailbox. Called by main.ts. Each CPU has an arena of its own; CPU 0's is where the image put it.
 *
 *   2 MiB          + arena        + arena                       - blocks          end of RAM
 *   | arena CPU 0  | arena CPU 1  | ...             | unused    | blocks 1, 2 ... |
 */
import * as acpi from "./acpi";
import * as events from "./events";
import * as machine from "./machine";
import * as mail from "./mail";
import { growTo } from "./memory/arena";

const ARENA_BASE: u64 = 2 << 20;
const LARGE_PAGE: u64 = 2 << 20;
const BLOCK_BYTES: u64 = 128 << 10;
const ARENA_BYTES_MIN: u64 = 4 << 20;
/** More than rings and packets of a queue pair ever need. */
const ARENA_BYTES_MAX: u64 = 64 << 20;

let arenaBytes: u64 = 0;
/** CPUs that have come up, this one included. */
let running: u32 = 1;

/** How many CPUs there are, at least this one. */
export function count(): u32 {
  return max<u32>(acpi.cpuCount, 1);
}

/** How many CPUs run, this one included; they are numbered from 0. */
export function started(): u32 {
  return running;
}

/** Divides RAM and takes CPU 0's part. False when it is too little; then an event said so. */
export function divideMemory(): bool {
  const end = machine.memoryEnd();
  const blocks = <u64>(count() - 1) * BLOCK_BYTES;
  const usable = end > ARENA_BASE + blocks ? end - ARENA_BASE - blocks : 0;
  arenaBytes = min((usable / count()) & ~(LARGE_PAGE - 1), ARENA_BYTES_MAX);
  if (arenaBytes >= ARENA_BYTES_MIN && growTo(<usize>arenaBytes)) return true;
  const needed = ARENA_BASE + blocks + ARENA_BYTES_MIN * count();
  events.begin("error");
  events.text("message", "too little memory for this number of CPUs");
  events.num("usable_kib", end >> 10);
  events.num("needed_kib", needed >> 10);
  events.num("cpus", count());
  events.end();
  return false;
}

/** Starts all other CPUs, one after the other. One that does not come up is a warning. */
export function startOthers(): void {
  mail.setState(mail.State.Cpus, count());
  mail.setState(mail.State.ArenaPages, <u32>(arenaBytes >> 16));
  mail.setState(mail.State.LogLevel, events.logLevel());
  mail.setState(mail.State.ApicId, unchecked(acpi.apicIds[0]));
  const end = machine.memoryEnd();
  for (let index: u32 = 1; index < count(); index++) {
    const block = (end & ~(BLOCK_BYTES - 1)) - <u64>index * BLOCK_BYTES;
    const arena = ARENA_BASE + <u64>index * arenaBytes;
    const apicId = unchecked(acpi.apicIds[index]);
    if (machine.cpuStart(index, apicId, block, arena, arenaBytes)) {
      running++;
      continue;
    }
    events.begin("warning");
    events.text("message", "a CPU did not start");
    events.num("index", index);
    events.num("apic_id", apicId);
    events.end();
    return;
  }
}

/** What another CPU does first: takes its part of RAM. */
export function join(): void {
  events.setLogLevel(<events.LogLevel>mail.state(mail.State.LogLevel));
  growTo((<usize>mail.state(mail.State.ArenaPages)) << 16);
  printBoot(mail.state(mail.State.Cpus));
}

/** The `boot` event of this CPU. */
export function printBoot(cpus: u32): void {
  events.begin("boot");
  events.text("version", "0.1.0");
  events.num("cpus", cpus);
  events.num("memory_mib", (machine.memoryEnd() + (1 << 19)) >> 20);
  events.end();
}
