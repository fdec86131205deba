/**
 * A console command's words, the items of a word that is a list, and the `error` event about one
 * that is wrong. One line at a time: whoever calls `split` is the only one who looks at it. Used by
 * control.ts, control-commands.ts and control-rss.ts.
 */
import * as events from "./events";
import { find, isText, parseName, parseNumber } from "./text";

const WORDS_MAX: u32 = 8;
const SPACE: u32 = 0x20;
const COMMA: u32 = 0x2c;

/** How many words there are, those beyond WORDS_MAX counted but not kept. */
export let count: u32 = 0;
/** Pointer and length of each. */
const words: usize = memory.data(64);

/** The item that `nextItem` found. */
export let item: usize = 0;
export let itemBytes: u32 = 0;
let rest: usize = 0;
let restBytes: u32 = 0;
let ended: bool = true;

/** Splits a line at its spaces; it must stay where it is. */
export function split(line: usize, bytes: u32): void {
  count = 0;
  let at: u32 = 0;
  while (at < bytes) {
    const length = find(line + at, bytes - at, SPACE);
    if (length > 0) {
      if (count < WORDS_MAX) {
        store<u32>(words + (count << 3), <u32>(line + at));
        store<u32>(words + (count << 3), length, 4);
      }
      count++;
    }
    at += length + 1;
  }
}

/** Where a word is; its length is 0 if there is none. */
export function word(index: u32): usize {
  return index < min(count, WORDS_MAX) ? <usize>load<u32>(words + (index << 3)) : 0;
}

export function length(index: u32): u32 {
  return index < min(count, WORDS_MAX) ? load<u32>(words + (index << 3), 4) : 0;
}

export function is(index: u32, text: string): bool {
  return isText(word(index), length(index), text);
}

/** The word's index in `names`, or -1. */
export function name(index: u32, names: StaticArray<string>): i32 {
  return length(index) == 0 ? -1 : parseName(word(index), length(index), names);
}

/** Whether it is a number from `low` to `high`, which is then in text.ts's `number`. */
export function isNumber(index: u32, low: u64, high: u64): bool {
  return parseNumber(word(index), length(index), low, high);
}

/** Begins with the items of a word that are separated by commas. */
export function openList(index: u32): void {
  rest = word(index);
  restBytes = length(index);
  ended = restBytes == 0;
}

/** Puts the next one into `item`; false when there are no more. */
export function nextItem(): bool {
  if (ended) return false;
  const bytes = find(rest, restBytes, COMMA);
  item = rest;
  itemBytes = bytes;
  ended = bytes == restBytes;
  rest += bytes + 1;
  if (!ended) restBytes -= bytes + 1;
  return true;
}

// ---- what is wrong ------------------------------------------------------------------------------

export const TOO_MANY: string = "is one too many";

/** The `error` event about bytes of the line. */
function wrongBytes(at: usize, bytes: u32, what: string): bool {
  events.begin("error");
  events.beginText("message");
  events.textPartBytes(word(0), length(0));
  events.textPart(': "');
  events.textPartBytes(at, bytes);
  events.textPart('" ');
  events.textPart(what);
  events.endText();
  events.end();
  return false;
}

export function wrong(index: u32, what: string): bool {
  return wrongBytes(word(index), length(index), what);
}

export function wrongItem(what: string): bool {
  return wrongBytes(item, itemBytes, what);
}

/** Whether there are no more words than `most`. */
export function noMore(most: u32): bool {
  return count <= most || wrong(most, TOO_MANY);
}
