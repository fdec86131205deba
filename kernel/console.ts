/**
 * Console input: lines of one command each. main.ts calls poll() once in a while on CPU 0 and does
 * what the command says; lines that are not for the kernel itself go to control.ts.
 */
import * as machine from "./machine";
import * as controlHelp from "./control-help";
import * as events from "./events";
import { parseName } from "./text";

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
export const line: usize = memory.data(1024);
/** Bytes in the line so far, those beyond LINE_BYTES counted but not kept. */
export let length: u32 = 0;
/** The last call ended before the input did: call again, no interrupt tells of the rest. */
export let more: bool = false;
let complete: bool = false;

/** The next whole line's command. A line that is too long is a `warning`, and no command. */
export function poll(): Command {
  if (complete) length = 0;
  complete = false;
  more = false;
  for (let i: u32 = 0; i < POLL_MAX; i++) {
    const byte = machine.consoleRead();
    if (byte < 0) return Command.None;
    if (byte == 0x0a || byte == 0x0d) {
      const command = parse();
      complete = command != Command.None;
      if (complete) return command;
      length = 0;
    } else {
      if (length < LINE_BYTES) store<u8>(line + length, <u8>byte);
      length = min(length + 1, LINE_BYTES + 1);
    }
  }
  more = true;
  return Command.None;
}

function parse(): Command {
  // The other half of CR LF, or a key struck for nothing.
  if (length == 0) return Command.None;
  if (length > LINE_BYTES) {
    reject();
    return Command.None;
  }
  const command = parseName(line, length, NAMES);
  return command > 0 ? <Command>command : Command.Other;
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

/** What `help` prints; `accepted` features decide which commands there are. */
export function printHelp(accepted: u64): void {
  events.begin("help");
  events.beginArray("commands");
  for (let i = 1; i < NAMES.length; i++) events.item(NAMES[i]);
  controlHelp.printAvailable(accepted);
  events.endArray();
  controlHelp.printUnavailable(accepted);
  events.end();
}
