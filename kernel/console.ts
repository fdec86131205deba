/**
 * Console input: lines of one command each. main.ts calls poll() once in a while on CPU 0 and does
 * what the command says; lines that are not for the kernel itself go to control.ts.
 */
import * as machine from "./machine";
import * as controlHelp from "./control-help";
import * as events from "./events";
import { find, isText, number, parseName, parseNumber } from "./text";
import { NICS_MAX } from "./config";
import { NetDevice } from "../drivers/net/device";

export enum Command {
  None,
  Stats,
  Exit,
  Help,
  /** Something else: `line` and `length`, until the next poll. */
  Other,
}

const NAMES: StaticArray<string> = ["", "stats", "exit", "help"];

/** Bytes read in one call at most: whoever types must not hold up the packets. */
const POLL_MAX: u32 = 64;
const LINE_BYTES: u32 = 1024;
const SPACE: u32 = 0x20;
const buffer: usize = memory.data(1024);
/** Bytes in the line so far, those beyond LINE_BYTES counted but not kept. */
let typed: u32 = 0;
/** The command that `poll` found, without the NIC in front. */
export let line: usize = buffer;
export let length: u32 = 0;
/** The NIC that it is for, and whether it names one; else it is for NIC 0. */
export let nic: u32 = 0;
export let namesNic: bool = false;
/** The last call ended before the input did: call again, no interrupt tells of the rest. */
export let more: bool = false;
let complete: bool = false;

/** The next whole line's command. A line that is too long is a `warning`, and no command. */
export function poll(): Command {
  if (complete) typed = 0;
  complete = false;
  more = false;
  for (let i: u32 = 0; i < POLL_MAX; i++) {
    const byte = machine.consoleRead();
    if (byte < 0) return Command.None;
    if (byte == 0x0a || byte == 0x0d) {
      const command = parse();
      complete = command != Command.None;
      if (complete) return command;
      typed = 0;
    } else {
      if (typed < LINE_BYTES) store<u8>(buffer + typed, <u8>byte);
      typed = min(typed + 1, LINE_BYTES + 1);
    }
  }
  more = true;
  return Command.None;
}

function parse(): Command {
  line = buffer;
  length = typed;
  nic = 0;
  // The other half of CR LF, or a key struck for nothing.
  if (length == 0) return Command.None;
  if (length > LINE_BYTES) {
    reject();
    return Command.None;
  }
  namesNic = takeNic();
  const command = parseName(line, length, NAMES);
  return command > 0 ? <Command>command : Command.Other;
}

/** Takes `nic <number>` off the line. False if there is none in front of a command. */
function takeNic(): bool {
  const word = find(line, length, SPACE);
  if (!isText(line, word, "nic") || word == length) return false;
  const rest = length - word - 1;
  const digits = find(line + word + 1, rest, SPACE);
  if (digits >= rest || !parseNumber(line + word + 1, digits, 0, NICS_MAX - 1)) return false;
  nic = <u32>number;
  line += word + digits + 2;
  length = rest - digits - 1;
  return true;
}

/** The `warning` about a line that nobody knows. */
export function reject(): void {
  events.begin("warning");
  events.beginText("message");
  events.textPart('"');
  events.textPartBytes(line, min(length, 64));
  events.textPart('" is no command: see help');
  events.endText();
  events.end();
}

/** The `error` about a command for a NIC that was not there at boot; there are `count`. */
export function rejectNic(count: u32): void {
  events.begin("error");
  events.beginText("message");
  events.textPart("nic ");
  events.textPartNum(nic);
  events.textPart(": the last one is NIC ");
  events.textPartNum(count - 1);
  events.endText();
  events.end();
}

/** The `error` about a command for a NIC that was plugged out. */
export function rejectAbsent(): void {
  events.begin("error");
  events.beginText("message");
  events.textPart("nic ");
  events.textPartNum(nic);
  events.textPart(": it is not plugged in");
  events.endText();
  events.end();
}

/** What `help` prints; the features that the device accepted decide which commands there are. */
export function printHelp(device: NetDevice): void {
  const accepted = device.accepted;
  events.begin("help");
  events.num("nic", device.link.index);
  events.beginArray("commands");
  for (let i = 1; i < NAMES.length; i++) events.item(NAMES[i]);
  events.item("nic <0-7> <command>");
  controlHelp.printAvailable(accepted);
  events.endArray();
  controlHelp.printUnavailable(accepted);
  events.end();
}
