/**
 * Console input: lines of one command each. main.ts calls poll() once in a while on CPU 0 and does
 * what the command says.
 */
import * as machine from "./machine";
import * as events from "./events";
import { parseName } from "./text";

export enum Command {
  None,
  Stats,
  Exit,
  Help,
}

const NAMES: StaticArray<string> = ["", "stats", "exit", "help"];

/** Bytes read in one call at most: whoever types must not hold up the packets. */
const POLL_MAX: u32 = 64;
const LINE_BYTES: u32 = 64;
const line: usize = memory.data(64);
/** Bytes in the line so far, those beyond LINE_BYTES counted but not kept. */
let length: u32 = 0;

/** The next whole line's command. An unknown one is a `warning` that says so, and no command. */
export function poll(): Command {
  for (let i: u32 = 0; i < POLL_MAX; i++) {
    const byte = machine.consoleRead();
    if (byte < 0) return Command.None;
    if (byte == 0x0a || byte == 0x0d) {
      const command = parse();
      length = 0;
      if (command != Command.None) return command;
    } else {
      if (length < LINE_BYTES) store<u8>(line + length, <u8>byte);
      length = min(length + 1, LINE_BYTES + 1);
    }
  }
  return Command.None;
}

function parse(): Command {
  // The other half of CR LF, or a key struck for nothing.
  if (length == 0) return Command.None;
  const command = parseName(line, min(length, LINE_BYTES), NAMES);
  if (command > 0 && length <= LINE_BYTES) return <Command>command;
  events.begin("warning");
  events.beginText("message");
  events.textPart('"');
  events.textPartBytes(line, min(length, LINE_BYTES));
  events.textPart('" is not stats, exit or help');
  events.endText();
  events.end();
  return Command.None;
}

/** What `help` prints. */
export function printHelp(): void {
  events.begin("help");
  events.beginArray("commands");
  for (let i = 1; i < NAMES.length; i++) events.item(NAMES[i]);
  events.endArray();
  events.end();
}
