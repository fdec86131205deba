/**
 * Checks of what must hold whatever a device or a peer does. A failed one is a `panic` event with
 * the function's name, and ends the run. What a device or a peer did wrong is no check: that is
 * counted or reported by the code that found it.
 */
import * as machine from "./machine";

/** Panics with `message` unless `condition` holds. Inlined, so that the panic names the caller. */
export function check(condition: bool, message: string): void {
  if (!condition) machine.panic(changetype<usize>(message), message.length);
}

/** What the compiler calls where a `throw` would be (`--use abort=...` in asconfig.json). */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  // The length of a string is in front of it, in bytes. Asking the string itself would come here.
  const text = changetype<usize>(message);
  machine.panic(text, text != 0 ? load<u32>(text - 4) >> 1 : 0);
}
