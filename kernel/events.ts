/**
 * Events: the only output of the kernel, one JSON object a line (DESIGN.md, section 6). Everything
 * above the drivers and the drivers themselves report through these functions; only a panic does
 * not (check.ts). An event is built field by field in one static buffer and written whole:
 *
 *   begin("link"); num("nic", 0); flag("up", true); end();
 *   {"event":"link","us":4711,"cpu":0,"nic":0,"up":true}
 *
 * A line that would outgrow the buffer stays well-formed: from the first field that does not fit
 * on, all are left out, what is open is closed, and the line ends in "truncated":true.
 */
import * as machine from "./machine";
import { check } from "./check";
import { nowUs } from "./time";

/** What is printed. Quiet leaves out boot, device, features, link and warning. */
export enum LogLevel {
  Info,
  Debug,
  Quiet,
}

const LINE_BYTES: usize = 16384;

/** Kept free for what closes a truncated line: brackets, the mark and the newline. */
const TAIL_BYTES: usize = 64;
const LIMIT: usize = LINE_BYTES - TAIL_BYTES;
const DEPTH_MAX: u32 = 8;
const DIGITS_MAX: u32 = 20;

const QUOTE: u8 = 0x22;
const BACKSLASH: u8 = 0x5c;

const line: usize = memory.data(16384);
/** The closing bracket of each open level; level 0 is the event itself. */
const closers: usize = memory.data(8);
const digits: usize = memory.data(20);

let level: LogLevel = LogLevel.Info;
let open: bool = false;
let silenced: bool = false;
let ended: bool = false;
/** Bytes in the line. May run past LIMIT within a field; nothing is stored there. */
let length: usize = 0;
let depth: u32 = 0;
let comma: bool = false;
let truncated: bool = false;
/** Levels that were opened after truncation, and so are not in the line. */
let skipped: u32 = 0;
/** Where the field that is being written began. */
let fieldStart: usize = 0;

export function logLevel(): LogLevel {
  return level;
}

export function setLogLevel(value: LogLevel): void {
  level = value;
}

// ---- bytes -------------------------------------------------------------------------------------

function putByte(byte: u8): void {
  if (length < LIMIT) store<u8>(line + length, byte);
  length++;
}

/** A literal of ours: ASCII that needs no escapes. */
function put(ascii: string): void {
  for (let i = 0; i < ascii.length; i++) putByte(<u8>ascii.charCodeAt(i));
}

function putHexDigit(digit: u32): void {
  putByte(<u8>(digit < 10 ? 0x30 + digit : 0x57 + digit));
}

function putHex(value: u64, width: u32): void {
  for (let i = width; i > 0; i--) putHexDigit(<u32>(value >> ((i - 1) << 2)) & 15);
}

/** One character inside quotes; what JSON or a terminal may not take literally is escaped. */
function putEscaped(code: u32): void {
  if (code == QUOTE || code == BACKSLASH) {
    putByte(BACKSLASH);
    putByte(<u8>code);
  } else if (code < 0x20 || code > 0x7e) {
    put("\\u");
    putHex(code, 4);
  } else {
    putByte(<u8>code);
  }
}

function putString(value: string): void {
  for (let i = 0; i < value.length; i++) putEscaped(value.charCodeAt(i));
}

function putNumber(value: u64): void {
  let count: u32 = 0;
  do {
    store<u8>(digits + DIGITS_MAX - ++count, <u8>(0x30 + (value % 10)));
    value /= 10;
  } while (value != 0);
  for (; count > 0; count--) putByte(load<u8>(digits + DIGITS_MAX - count));
}

// ---- fields ------------------------------------------------------------------------------------

/** Starts a field or an array's item. False when the line is full already. */
function startItem(): bool {
  if (truncated) return false;
  fieldStart = length;
  if (comma) putByte(0x2c);
  return true;
}

function startField(key: string): bool {
  if (!startItem()) return false;
  putByte(QUOTE);
  put(key);
  put('":');
  return true;
}

/** Keeps the field that was written, or takes all of it back when it did not fit. */
function commit(): bool {
  if (length <= LIMIT) {
    comma = true;
    return true;
  }
  length = fieldStart;
  truncated = true;
  return false;
}

function openLevel(started: bool, bracket: u8, closer: u8): void {
  if (started) {
    putByte(bracket);
    started = commit();
  }
  if (!started) {
    skipped++;
    return;
  }
  check(depth < DEPTH_MAX, "an event is nested too deep");
  store<u8>(closers + depth++, closer);
  comma = false;
}

/** Writes a closing bracket; TAIL_BYTES keeps room for all of them. */
function close(): void {
  store<u8>(line + length++, load<u8>(closers + --depth));
  comma = true;
}

function closeLevel(): void {
  if (skipped > 0) {
    skipped--;
    return;
  }
  check(depth > 1, "an event closes more than it opened");
  close();
}

/** Begins an event; every other function here works on the one that is open. */
export function begin(event: string): void {
  check(!open, "an event began within another");
  open = true;
  silenced = ended || isSilenced(event);
  length = 0;
  depth = 0;
  skipped = 0;
  comma = false;
  truncated = false;
  openLevel(startItem(), 0x7b, 0x7d);
  text("event", event);
  num("us", nowUs());
  num("cpu", machine.cpuIndex());
}

/** Closes the event and writes its line. */
export function end(): void {
  closeEvent();
  if (!silenced) machine.consoleWrite(line, <u32>length);
}

function closeEvent(): void {
  check(open && depth == 1 && skipped == 0, "an event was not closed in order");
  if (truncated) {
    const mark = ',"truncated":true';
    for (let i = 0; i < mark.length; i++) store<u8>(line + length++, <u8>mark.charCodeAt(i));
  }
  close();
  store<u8>(line + length++, 0x0a);
  open = false;
}

function isSilenced(event: string): bool {
  if (event == "debug") return level != LogLevel.Debug;
  if (level != LogLevel.Quiet) return false;
  return (
    event == "boot" ||
    event == "device" ||
    event == "features" ||
    event == "link" ||
    event == "warning"
  );
}

export function num(key: string, value: u64): void {
  if (!startField(key)) return;
  putNumber(value);
  commit();
}

export function flag(key: string, value: bool): void {
  if (!startField(key)) return;
  put(value ? "true" : "false");
  commit();
}

export function text(key: string, value: string): void {
  beginText(key);
  textPart(value);
  endText();
}

/** `length` bytes at `pointer` as a string, each byte one character. */
export function textBytes(key: string, pointer: usize, length: u32): void {
  beginText(key);
  textPartBytes(pointer, length);
  endText();
}

/** A string in parts: beginText, any of the textPart functions, endText. */
export function beginText(key: string): void {
  if (startField(key)) putByte(QUOTE);
}

export function textPart(value: string): void {
  if (!truncated) putString(value);
}

export function textPartBytes(pointer: usize, length: u32): void {
  if (truncated) return;
  for (let i: u32 = 0; i < length; i++) putEscaped(load<u8>(pointer + i));
}

export function textPartNum(value: u64): void {
  if (!truncated) putNumber(value);
}

/** `value` in `width` hexadecimal digits, 1 to 16. */
export function textPartHex(value: u64, width: u32): void {
  if (!truncated) putHex(value, width);
}

export function endText(): void {
  if (truncated) return;
  putByte(QUOTE);
  commit();
}

/** A string of `width` digits, 1 to 16. */
export function hex(key: string, value: u64, width: u32): void {
  beginText(key);
  textPartHex(value, width);
  endText();
}

/** The Ethernet address in the six bytes at `pointer`. */
export function mac(key: string, pointer: usize): void {
  if (!startField(key)) return;
  for (let i: usize = 0; i < 6; i++) {
    putByte(i == 0 ? QUOTE : 0x3a);
    putHex(load<u8>(pointer + i), 2);
  }
  putByte(QUOTE);
  commit();
}

/** An IPv4 address as it is in memory: its first byte in the low bits. */
export function ip(key: string, address: u32): void {
  if (!startField(key)) return;
  for (let i: u32 = 0; i < 4; i++) {
    putByte(i == 0 ? QUOTE : 0x2e);
    putNumber((address >> (i << 3)) & 255);
  }
  putByte(QUOTE);
  commit();
}

function group6(address: usize, index: u32): u32 {
  return bswap<u16>(load<u16>(address + 2 * index));
}

/** The IPv6 address in the 16 bytes at `address`, as RFC 5952 wants it written. */
export function ip6(key: string, address: usize): void {
  // The longest run of zero groups, the first of equals, from two on, is written "::".
  let gap: u32 = 8;
  let gapEnd: u32 = 8;
  let longest: u32 = 1;
  let start: u32 = 0;
  for (let i: u32 = 0; i < 8; i++) {
    if (group6(address, i) != 0) start = i + 1;
    else if (i + 1 - start > longest) {
      longest = i + 1 - start;
      gap = start;
      gapEnd = i + 1;
    }
  }
  beginText(key);
  for (let i: u32 = 0; i < 8; i++) {
    if (i == gap) textPart("::");
    if (i >= gap && i < gapEnd) continue;
    if (i > 0 && i != gapEnd) textPart(":");
    const value = group6(address, i);
    const digits = max<u32>(1, (35 - clz(value)) >> 2);
    textPartHex(value, digits);
  }
  endText();
}

export function beginObject(key: string): void {
  openLevel(startField(key), 0x7b, 0x7d);
}

export function endObject(): void {
  closeLevel();
}

export function beginArray(key: string): void {
  openLevel(startField(key), 0x5b, 0x5d);
}

export function endArray(): void {
  closeLevel();
}

/** A string in an array. */
export function item(value: string): void {
  if (!startItem()) return;
  putByte(QUOTE);
  putString(value);
  putByte(QUOTE);
  commit();
}

/** An object in an array. */
export function beginItem(): void {
  openLevel(startItem(), 0x7b, 0x7d);
}

export function endItem(): void {
  closeLevel();
}

// ---- whole events ------------------------------------------------------------------------------

function report(event: string, message: string): void {
  begin(event);
  text("message", message);
  end();
}

export function debug(message: string): void {
  report("debug", message);
}

export function warning(message: string): void {
  report("warning", message);
}

export function error(message: string): void {
  report("error", message);
}

/** The last line of a run, and its end: no event is written after it. */
function exit(status: string, message: string, code: u32): void {
  begin("exit");
  text("status", status);
  text("message", message);
  closeEvent();
  ended = true;
  machine.exit(code, line, <u32>length);
}

/** Ends the run well. Where the host comes back from exit, so does this: return after it. */
export function finish(message: string): void {
  if (!ended) exit("success", message, 0);
}

/** Ends the run in failure, after an `error` event that said why. Return after it. */
export function giveUp(message: string): void {
  if (!ended) exit("failure", message, 1);
}

/** Says why and ends the run in failure. Return after it. */
export function fatal(message: string): void {
  error(message);
  giveUp(message);
}

/** Whether the run was ended; the host has then only to stop calling. */
export function isEnded(): bool {
  return ended;
}
