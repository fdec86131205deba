// The console of the guest: what it writes is parsed into events, what a test types is read by it.
// Owned by Machine.

import { type EventNamed, type GuestEvent, parseEvent } from "qemu-test-harness";
import type { Violations } from "../errors";

export class Console {
  readonly lines: string[] = [];
  readonly events: GuestEvent[] = [];
  private readonly input: number[] = [];

  /** `onInput` is told when there is something to read: the serial port's interrupt. */
  constructor(
    private readonly violations: Violations,
    private readonly onInput: () => void,
  ) {}

  /** Takes one write of the guest, which must be one whole line and an event. */
  write(text: string): void {
    const line = text.replace(/\n$/, "");
    this.lines.push(line);
    const event = parseEvent(line);
    if (event === undefined || !text.endsWith("\n") || line.includes("\n")) {
      this.violations.add(`this console output is not one event and a newline: ${text}`);
      return;
    }
    if (this.find("exit") !== undefined) this.violations.add(`an event after exit: ${line}`);
    this.events.push(event);
  }

  /** The next byte typed, or -1. */
  read(): number {
    return this.input.shift() ?? -1;
  }

  /** Types a line. */
  type(line: string): void {
    this.input.push(...Buffer.from(`${line}\n`, "latin1"));
    this.onInput();
  }

  all<Name extends string>(name: Name): EventNamed<Name>[] {
    return this.events.filter(({ event }) => event === name) as unknown as EventNamed<Name>[];
  }

  find<Name extends string>(name: Name): EventNamed<Name> | undefined {
    return this.all(name)[0];
  }
}
