/**
 * Mail between CPU 0 and the others: 1,024 words a CPU in memory that all CPUs share (machine.ts).
 * CPU 0 owns the device, another CPU only a queue pair of it: CPU 0 sends commands, the other one
 * answers, and both publish what the other side may look at. Used by crew.ts and worker.ts.
 *
 * The words of one CPU; CPU 0's hold what is the same for all others:
 *
 *     0  command number | 1 command | 2 number answered                commands, one at a time
 *     4  whether the app is done | 5 fault of the queue pair             the other CPU writes
 *     8  arguments of a command, 24 words                               CPU 0 writes
 *    32  results of a command, 32 words                                 the other CPU writes
 *    64  state                                                          CPU 0 writes, see State
 *    96  statistics, as stats.ts lays them out, 384 words               their CPU writes
 *   480  IPv6 addresses, as net/mirror6.ts lays them out                CPU 0 writes
 *   512  bytes of a frame for CPU 0 (0: none) | 513.. the frame         the other CPU, then CPU 0
 *
 * Words are written and read in program order by each CPU, and on x86 seen in that order by others.
 */
import * as machine from "./machine";

const WORDS: u32 = 1024;
const NUMBER: u32 = 0;
const COMMAND: u32 = 1;
const ANSWERED: u32 = 2;
const DONE: u32 = 4;
const BROKEN: u32 = 5;
const ARGUMENTS: u32 = 8;
const RESULTS: u32 = 32;
const STATE: u32 = 64;
const STATISTICS: u32 = 96;
const STATE6: u32 = 480;
const FRAME_BYTES: u32 = 512;
const FRAME: u32 = 513;

/** The longest frame that fits into the mail. */
export const FRAME_BYTES_MAX: u32 = (WORDS - FRAME) * 4;

export enum Command {
  None,
  /** Make a queue pair for a device that was reset, and say where its rings are. */
  SetUp,
  /** The device runs: begin. */
  Start,
  /** The device is about to be reset: keep away from the rings. */
  Stop,
  /** Run or pause, as State.Active says. */
  Turn,
  /** Publish your statistics. */
  Report,
  /** One of your queues was reset alone: empty it, argument 0 says which. */
  Renew,
  /** It is the device's again: go on. */
  Resume,
  /** You are paused: say how many frames you have yet to send, for somebody else to do it. */
  Yield,
}

/** What CPU 0 publishes for all: word 64 and following of its own words. */
export enum State {
  /** Counts up when the others have changed. */
  Sequence,
  Cpus,
  ArenaPages,
  LogLevel,
  ApicId,
  Ip,
  Prefix,
  Gateway,
  Configuring,
  LinkUp,
  HopKnown,
  HopMacLow,
  HopMacHigh,
  /** Our own Ethernet address. */
  MacLow,
  MacHigh,
  /** Lanes that run: the first ones. */
  Active,
}

function word(cpu: u32, index: u32): u32 {
  return cpu * WORDS + index;
}

// ---- state -------------------------------------------------------------------------------------

export function state(item: State): u32 {
  return machine.mailboxRead(word(0, STATE + item));
}

export function setState(item: State, value: u32): void {
  machine.mailboxWrite(word(0, STATE + item), value);
}

export function state6(index: u32): u32 {
  return machine.mailboxRead(word(0, STATE6 + index));
}

export function setState6(index: u32, value: u32): void {
  machine.mailboxWrite(word(0, STATE6 + index), value);
}

// ---- commands ----------------------------------------------------------------------------------

export function setArgument(cpu: u32, index: u32, value: u32): void {
  machine.mailboxWrite(word(cpu, ARGUMENTS + index), value);
}

export function argument(cpu: u32, index: u32): u32 {
  return machine.mailboxRead(word(cpu, ARGUMENTS + index));
}

export function setResult(cpu: u32, index: u32, value: u32): void {
  machine.mailboxWrite(word(cpu, RESULTS + index), value);
}

export function result(cpu: u32, index: u32): u32 {
  return machine.mailboxRead(word(cpu, RESULTS + index));
}

/** A 64-bit result in two words. */
export function setResult64(cpu: u32, index: u32, value: u64): void {
  setResult(cpu, index, <u32>value);
  setResult(cpu, index + 1, <u32>(value >> 32));
}

export function result64(cpu: u32, index: u32): u64 {
  return <u64>result(cpu, index) | ((<u64>result(cpu, index + 1)) << 32);
}

/** Gives a CPU a command, whose arguments are set; it must have answered the one before. */
export function send(cpu: u32, command: Command): void {
  machine.mailboxWrite(word(cpu, COMMAND), command);
  machine.release();
  machine.mailboxWrite(word(cpu, NUMBER), machine.mailboxRead(word(cpu, NUMBER)) + 1);
}

/** Whether the CPU has answered its last command, and what. */
export function isAnswered(cpu: u32): bool {
  const answered = machine.mailboxRead(word(cpu, ANSWERED));
  machine.acquire();
  return answered == machine.mailboxRead(word(cpu, NUMBER));
}

/** The command that this CPU has not answered yet. */
export function pending(cpu: u32): Command {
  const number = machine.mailboxRead(word(cpu, NUMBER));
  machine.acquire();
  if (number == machine.mailboxRead(word(cpu, ANSWERED))) return Command.None;
  return <Command>machine.mailboxRead(word(cpu, COMMAND));
}

export function answer(cpu: u32): void {
  machine.release();
  machine.mailboxWrite(word(cpu, ANSWERED), machine.mailboxRead(word(cpu, NUMBER)));
}

/** The queue pair of this CPU is broken; `fault` is a number of QueuePair.fault(), not 0. */
export function setBroken(cpu: u32, fault: u32): void {
  machine.mailboxWrite(word(cpu, BROKEN), fault);
}

/** The fault that a CPU reported, once; 0 for none. */
export function takeBroken(cpu: u32): u32 {
  const fault = machine.mailboxRead(word(cpu, BROKEN));
  if (fault != 0) machine.mailboxWrite(word(cpu, BROKEN), 0);
  return fault;
}

/** The app of this CPU has come to its end. */
export function setDone(cpu: u32): void {
  machine.mailboxWrite(word(cpu, DONE), 1);
}

export function isDone(cpu: u32): bool {
  return machine.mailboxRead(word(cpu, DONE)) != 0;
}

// ---- statistics --------------------------------------------------------------------------------

export function setStatistic(cpu: u32, index: u32, value: u64): void {
  machine.mailboxWrite(word(cpu, STATISTICS + 2 * index), <u32>value);
  machine.mailboxWrite(word(cpu, STATISTICS + 2 * index + 1), <u32>(value >> 32));
}

export function statistic(cpu: u32, index: u32): u64 {
  const low = machine.mailboxRead(word(cpu, STATISTICS + 2 * index));
  return ((<u64>machine.mailboxRead(word(cpu, STATISTICS + 2 * index + 1))) << 32) | low;
}

// ---- frames for CPU 0 --------------------------------------------------------------------------

/** Leaves a frame for CPU 0. False when it has not fetched the last one, or it is too long. */
export function leaveFrame(cpu: u32, frame: usize, bytes: u32): bool {
  if (bytes > FRAME_BYTES_MAX || machine.mailboxRead(word(cpu, FRAME_BYTES)) != 0) return false;
  // Whole words: a buffer has room behind every frame, and what is there does not matter.
  for (let i: u32 = 0; i < bytes; i += 4) {
    machine.mailboxWrite(word(cpu, FRAME + (i >> 2)), load<u32>(frame + i));
  }
  machine.release();
  machine.mailboxWrite(word(cpu, FRAME_BYTES), bytes);
  return true;
}

/** Fetches the frame that a CPU left, into a buffer with room for it; answers its bytes, or 0. */
export function fetchFrame(cpu: u32, frame: usize): u32 {
  const bytes = machine.mailboxRead(word(cpu, FRAME_BYTES));
  if (bytes == 0) return 0;
  machine.acquire();
  for (let i: u32 = 0; i < bytes; i += 4) {
    store<u32>(frame + i, machine.mailboxRead(word(cpu, FRAME + (i >> 2))));
  }
  machine.release();
  machine.mailboxWrite(word(cpu, FRAME_BYTES), 0);
  return bytes;
}

export function hasFrame(cpu: u32): bool {
  return machine.mailboxRead(word(cpu, FRAME_BYTES)) != 0;
}
