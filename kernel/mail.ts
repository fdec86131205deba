/**
 * Mail between CPU 0 and the others: 1,024 words a CPU in memory that all CPUs share (machine.ts).
 * CPU 0 owns the devices, another CPU only queue pairs of them: CPU 0 sends commands, the other one
 * answers, and both publish what the other side may look at. Used by crew.ts and worker.ts.
 *
 * The words of one CPU; CPU 0's hold what is the same for all others:
 *
 *     0  command number | 1 command | 2 number answered | 3 NIC         commands, one at a time
 *     4  a bit for each NIC whose app is done                            the other CPU writes
 *     8  fault of the queue pair, a word a NIC                           the other CPU writes
 *    16  arguments of a command, 48 words                                CPU 0 writes
 *    64  results of a command, 32 words                                 the other CPU writes
 *    96  statistics of one lane, as stats.ts lays them out, 416 words    their CPU writes
 *   512  bytes and NIC of a frame for CPU 0 (0: none) | 513.. the frame  the other CPU, then CPU 0
 *
 * CPU 0 gets no commands and leaves no frames; in their places it has what it publishes:
 *
 *    16  state, see State                                               CPU 0 writes
 *   512  state of each NIC, 48 words each, see NicState; from the 16th   CPU 0 writes
 *        on its IPv6 addresses, as net/mirror6.ts lays them out
 *
 * Words are written and read in program order by each CPU, and on x86 seen in that order by others.
 */
import * as machine from "./machine";

const WORDS: u32 = 1024;
const NUMBER: u32 = 0;
const COMMAND: u32 = 1;
const ANSWERED: u32 = 2;
const COMMAND_NIC: u32 = 3;
const DONE: u32 = 4;
const BROKEN: u32 = 8;
const ARGUMENTS: u32 = 16;
const RESULTS: u32 = 64;
const STATISTICS: u32 = 96;
const FRAME_HEAD: u32 = 512;
const FRAME: u32 = 513;
const STATE: u32 = 16;
const NIC_STATE: u32 = 512;
const NIC_STATE_WORDS: u32 = 48;
/** Where a NIC's IPv6 addresses begin in its words. */
const STATE6: u32 = 16;

/** In the word before a frame: its bytes below, its NIC above. */
const FRAME_NIC_SHIFT: u32 = 16;

/** The longest frame that fits into the mail. */
export const FRAME_BYTES_MAX: u32 = (WORDS - FRAME) * 4;

/** Each is about one NIC's lane, except Seal. */
export enum Command {
  None,
  /** Make a queue pair for a device that was reset, and say where its rings are. */
  SetUp,
  /** The device runs: begin. */
  Start,
  /** The device is about to be reset: keep away from the rings. */
  Stop,
  /** The device is gone: take back every packet that it had. */
  Empty,
  /** Run or pause, as NicState.Active says. */
  Turn,
  /** Publish your statistics. */
  Report,
  /** All lanes are made: nothing is allocated any more. */
  Seal,
  /** One of your queues was reset alone: empty it, argument 0 says which. */
  Renew,
  /** It is the device's again: go on. */
  Resume,
  /** You are paused: say how many frames you have yet to send, for somebody else to do it. */
  Yield,
}

/** What CPU 0 publishes for all. */
export enum State {
  Cpus,
  ArenaPages,
  LogLevel,
  ApicId,
}

/** What CPU 0 publishes of each NIC. */
export enum NicState {
  /** Counts up when the others have changed. */
  Sequence,
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

export function nicState(nic: u32, item: NicState): u32 {
  return machine.mailboxRead(word(0, NIC_STATE + nic * NIC_STATE_WORDS + item));
}

export function setNicState(nic: u32, item: NicState, value: u32): void {
  machine.mailboxWrite(word(0, NIC_STATE + nic * NIC_STATE_WORDS + item), value);
}

/** A NIC's IPv6 addresses, as net/mirror6.ts lays them out. */
export function state6(nic: u32, index: u32): u32 {
  return machine.mailboxRead(word(0, NIC_STATE + nic * NIC_STATE_WORDS + STATE6 + index));
}

export function setState6(nic: u32, index: u32, value: u32): void {
  machine.mailboxWrite(word(0, NIC_STATE + nic * NIC_STATE_WORDS + STATE6 + index), value);
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
export function send(cpu: u32, nic: u32, command: Command): void {
  machine.mailboxWrite(word(cpu, COMMAND), command);
  machine.mailboxWrite(word(cpu, COMMAND_NIC), nic);
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

/** The NIC whose lane the pending command is about. */
export function pendingNic(cpu: u32): u32 {
  return machine.mailboxRead(word(cpu, COMMAND_NIC));
}

export function answer(cpu: u32): void {
  machine.release();
  machine.mailboxWrite(word(cpu, ANSWERED), machine.mailboxRead(word(cpu, NUMBER)));
}

/** A queue pair of this CPU is broken; `fault` is a number of QueuePair.fault(), not 0. */
export function setBroken(cpu: u32, nic: u32, fault: u32): void {
  machine.mailboxWrite(word(cpu, BROKEN + nic), fault);
}

/** The fault that a CPU reported, once; 0 for none. */
export function takeBroken(cpu: u32, nic: u32): u32 {
  const fault = machine.mailboxRead(word(cpu, BROKEN + nic));
  if (fault != 0) machine.mailboxWrite(word(cpu, BROKEN + nic), 0);
  return fault;
}

/** The app of this CPU has come to its end on a NIC. */
export function setDone(cpu: u32, nic: u32): void {
  const done = machine.mailboxRead(word(cpu, DONE));
  machine.mailboxWrite(word(cpu, DONE), done | (1 << nic));
}

export function isDone(cpu: u32, nic: u32): bool {
  return ((machine.mailboxRead(word(cpu, DONE)) >> nic) & 1) != 0;
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
export function leaveFrame(cpu: u32, nic: u32, frame: usize, bytes: u32): bool {
  if (bytes > FRAME_BYTES_MAX || machine.mailboxRead(word(cpu, FRAME_HEAD)) != 0) return false;
  // Whole words: a buffer has room behind every frame, and what is there does not matter.
  for (let i: u32 = 0; i < bytes; i += 4) {
    machine.mailboxWrite(word(cpu, FRAME + (i >> 2)), load<u32>(frame + i));
  }
  machine.release();
  machine.mailboxWrite(word(cpu, FRAME_HEAD), bytes | (nic << FRAME_NIC_SHIFT));
  return true;
}

/** Fetches the frame that a CPU left, into a buffer with room for it; answers its bytes, or 0. */
export function fetchFrame(cpu: u32, frame: usize): u32 {
  const bytes = machine.mailboxRead(word(cpu, FRAME_HEAD)) & ((1 << FRAME_NIC_SHIFT) - 1);
  if (bytes == 0) return 0;
  machine.acquire();
  for (let i: u32 = 0; i < bytes; i += 4) {
    store<u32>(frame + i, machine.mailboxRead(word(cpu, FRAME + (i >> 2))));
  }
  machine.release();
  machine.mailboxWrite(word(cpu, FRAME_HEAD), 0);
  return bytes;
}

/** Whether a CPU left a frame that came in through this NIC. */
export function hasFrame(cpu: u32, nic: u32): bool {
  const head = machine.mailboxRead(word(cpu, FRAME_HEAD));
  return head != 0 && head >> FRAME_NIC_SHIFT == nic;
}
