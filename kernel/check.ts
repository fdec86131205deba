/**
 * Checks of what must hold whatever a device or a peer does. A failed one is a `panic` event with
 * the function's name, and ends the run. What a device or a peer did wrong is no check: that is
 * counted or reported by the code that found it.
 */
import * as machine from "./machine";

const MESSAGE_BYTES: i32 = 160;
const messageBytes: usize = memory.data(160);

/** Panics with `message` (ASCII, at most 160 characters) unless `condition` holds. */
// @ts-ignore: decorator
@inline
export function check(condition: bool, message: string): void {
  if (!condition) fail(message);
}

function fail(message: string): void {
  const length = min(message.length, MESSAGE_BYTES);
  for (let i = 0; i < length; i++) store<u8>(messageBytes + i, <u8>message.charCodeAt(i));
  machine.panic(messageBytes, length);
}

/** What the compiler calls where a `throw` would be (`--use abort=...` in asconfig.json). */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  fail(message != null ? message : "aborted");
}
