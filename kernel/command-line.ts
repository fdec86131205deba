/**
 * The command line's words. main.ts calls parse() first of all. Nothing is ignored in silence: a
 * word that is wrong ends the run with an `error` event that names it.
 */
import * as config from "./config";
import { Key, NICS_MAX } from "./config";
import * as events from "./events";
import * as machine from "./machine";
import { find, parseName } from "./text";

const LINE_BYTES: u32 = 2048;

const line: usize = memory.data(2048);
/** Where the value of each key stands, for errors that show only once all are known. */
const seenAt: usize = memory.data(2048);
/** A word a NIC: a bit for each key that was given. */
const seen: usize = memory.data(32);

/**
 * Reads the command line into config.ts. False after an `error` event; the caller then ends the
 * run.
 */
export function parse(): bool {
  const length = machine.commandLine(line, LINE_BYTES);
  if (length > LINE_BYTES) {
    events.error("the command line is longer than 2048 bytes");
    return false;
  }
  let start: u32 = 0;
  for (let i: u32 = 0; i <= length; i++) {
    const c: u32 = i < length ? load<u8>(line + i) : 0x20;
    if (c != 0x20 && c != 0x09 && c != 0x0a && c != 0x0d && c != 0) continue;
    if (i > start && !parseWord(line + start, i - start)) return false;
    start = i + 1;
  }
  return true;
}

function parseWord(word: usize, length: u32): bool {
  const equals = find(word, length, 0x3d);
  if (equals == length) return rejectWord(word, length, "is not key=value");

  // ip1, gw1, ip61 and so on belong to the NIC of that number; NIC 0 is written without one.
  let nicIndex: u32 = 0;
  let key = parseName(word, equals, config.KEYS);
  if (key < 0 && (equals == 3 || equals == 4)) {
    nicIndex = <u32>load<u8>(word + equals - 1) - 0x30;
    key = nicIndex - 1 < NICS_MAX - 1 ? parseName(word, equals - 1, config.KEYS) : -1;
    if (key != Key.Ip && key != Key.Gw && key != Key.Ip6 && key != Key.Gw6) key = -1;
  }
  if (key < 0) return rejectWord(word, equals, "is not a key that vireo knows");
  if (wasSeen(key, nicIndex)) return rejectWord(word, length, "repeats a key");
  store<u32>(seen + (nicIndex << 2), load<u32>(seen + (nicIndex << 2)) | (1 << key));

  const value = word + equals + 1;
  const at = seenAt + ((<u32>key + (nicIndex << 5)) << 3);
  store<u32>(at, <u32>value);
  store<u32>(at, length - equals - 1, 4);
  const wrong = config.apply(key, nicIndex, value, length - equals - 1);
  if (wrong == null) return true;
  reject(config.KEYS[key], nicIndex, value, length - equals - 1, wrong);
  return false;
}

/** Whether the key was given for that NIC. */
export function wasSeen(key: Key, nicIndex: u32): bool {
  return ((load<u32>(seen + (nicIndex << 2)) >> key) & 1) != 0;
}

/** The `error` event for a word that was right by itself; false for the caller to hand on. */
export function rejectSeen(key: Key, nicIndex: u32, wrong: string): bool {
  const at = seenAt + ((<u32>key + (nicIndex << 5)) << 3);
  reject(config.KEYS[key], nicIndex, load<u32>(at), load<u32>(at, 4), wrong);
  return false;
}

/** Emits the `error` event for the `index`th name, which the driver's table does not have. */
export function rejectLeftOut(index: u32): void {
  const start = config.leftOutAt(index);
  reject("features", 0, start, config.leftOutBytes(index), "is not a feature of this driver");
}

/** The `error` event: key: "value" and what is wrong with it. */
function reject(key: string, nic: u32, value: usize, length: u32, wrong: string): void {
  events.begin("error");
  events.beginText("message");
  events.textPart(key);
  if (nic > 0) events.textPartNum(nic);
  events.textPart(': "');
  events.textPartBytes(value, length);
  events.textPart('" ');
  events.textPart(wrong);
  events.endText();
  events.end();
}

function rejectWord(word: usize, length: u32, wrong: string): bool {
  events.begin("error");
  events.beginText("message");
  events.textPart('"');
  events.textPartBytes(word, length);
  events.textPart('" ');
  events.textPart(wrong);
  events.endText();
  events.end();
  return false;
}
