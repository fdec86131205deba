// Everything one guest wrote on its console, and the waits for it. Used by the VM only.

import { DeadlineError, HarnessError } from "./errors";
import { type EventNamed, type GuestEvent, parseEvent } from "./events";

export interface WaitOptions<Event> {
  /** Milliseconds; 10,000 unless given. */
  readonly timeoutMs?: number;
  /** Which of the events of that name is meant. */
  readonly where?: (event: Event) => boolean;
  /** Only events that arrive after the call; by default what has already arrived counts too. */
  readonly fresh?: boolean;
}

interface Waiter {
  readonly name: string;
  readonly where: (event: GuestEvent) => boolean;
  readonly resolve: (event: GuestEvent) => void;
  readonly reject: (error: Error) => void;
}

const TAIL_LINES = 20;
const FATAL = new Set(["error", "panic"]);

export class EventLog {
  readonly lines: string[] = [];
  readonly events: GuestEvent[] = [];
  private readonly waiters = new Set<Waiter>();
  private readonly arrivals = new Set<() => void>();
  /** Error and panic events that a test has asked for by name. */
  private readonly claimed = new Set<GuestEvent>();
  private failure: Error | undefined;
  private ended = false;

  /**
   * `onFailure` hears of the first thing that makes this log worthless. `errorsAllowed` are messages
   * of `error` events that nobody need ask for.
   */
  constructor(
    private readonly onFailure: (error: Error) => void,
    private readonly errorsAllowed: readonly RegExp[] = [],
  ) {}

  /** Takes one console line. */
  add(line: string): void {
    if (line.trim() === "") return;
    this.lines.push(line);
    const event = parseEvent(line);
    if (event === undefined) {
      // Before the first event the firmware may speak; after it nobody but the guest writes here.
      if (this.events.length > 0) this.fail(new HarnessError(`console line is no event: ${line}`));
      return;
    }
    this.events.push(event);
    if (this.isAllowed(event)) this.claimed.add(event);
    for (const waiter of [...this.waiters]) this.offer(waiter, event);
    if (FATAL.has(event.event) && !this.claimed.has(event)) this.rejectUnclaimed(event);
    this.notify();
  }

  private isAllowed(event: GuestEvent): boolean {
    if (event.event !== "error") return false;
    return this.errorsAllowed.some((pattern) => pattern.test(String(event.message)));
  }

  private offer(waiter: Waiter, event: GuestEvent): void {
    if (waiter.name !== event.event || !waiter.where(event)) return;
    this.waiters.delete(waiter);
    if (FATAL.has(event.event)) this.claimed.add(event);
    waiter.resolve(event);
  }

  /**
   * Waits for other events end at an error nobody asked for; a later wait for that error still
   * finds it.
   */
  private rejectUnclaimed(event: GuestEvent): void {
    const error = new HarnessError(`the guest reports ${JSON.stringify(event)}\n${this.tail()}`);
    for (const waiter of [...this.waiters]) {
      if (FATAL.has(waiter.name)) continue;
      this.waiters.delete(waiter);
      waiter.reject(error);
    }
  }

  private notify(): void {
    for (const wake of [...this.arrivals]) wake();
  }

  /** The first error or panic event that no wait has asked for. */
  unclaimed(): GuestEvent | undefined {
    return this.events.find((event) => FATAL.has(event.event) && !this.claimed.has(event));
  }

  /**
   * Counts every error and panic event as asked for: the caller expects a failure and judges it
   * itself.
   */
  claimAll(): void {
    for (const event of this.events) if (FATAL.has(event.event)) this.claimed.add(event);
  }

  /** The console's last lines, for messages. */
  tail(): string {
    const shown = this.lines.slice(-TAIL_LINES).map((line) => `  ${line}`);
    return shown.length === 0 ? "the console is empty" : `the console ends:\n${shown.join("\n")}`;
  }

  /** Ends every wait, present and future, with `error`; only the first counts. */
  fail(error: Error): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    this.rejectAll(error);
    this.onFailure(error);
  }

  /** No further line comes; waits that are still open end with `reason`. */
  end(reason: string): void {
    this.ended = true;
    this.rejectAll(new HarnessError(`${reason}\n${this.tail()}`));
    this.notify();
  }

  private rejectAll(error: Error): void {
    for (const waiter of this.waiters) waiter.reject(error);
    this.waiters.clear();
    this.notify();
  }

  async waitFor<Name extends string>(
    name: Name,
    options: WaitOptions<EventNamed<Name>> = {},
  ): Promise<EventNamed<Name>> {
    const where = (options.where ?? (() => true)) as (event: GuestEvent) => boolean;
    const past = options.fresh
      ? undefined
      : this.events.find((event) => event.event === name && where(event));
    if (past !== undefined) {
      if (FATAL.has(name)) this.claimed.add(past);
      return past as EventNamed<Name>;
    }
    this.refuseHopelessWait(name);
    try {
      return (await this.wait(name, where, options.timeoutMs ?? 10_000)) as EventNamed<Name>;
    } catch (error) {
      // The stack of whoever waits says more than that of the console's reader.
      if (error instanceof Error) Error.captureStackTrace(error);
      throw error;
    }
  }

  private refuseHopelessWait(name: string): void {
    if (this.failure !== undefined) throw this.failure;
    const bad = this.unclaimed();
    if (bad !== undefined && !FATAL.has(name)) {
      throw new HarnessError(`the guest reports ${JSON.stringify(bad)}\n${this.tail()}`);
    }
    if (this.ended) throw new HarnessError(`QEMU has ended without '${name}'\n${this.tail()}`);
  }

  private wait(
    name: string,
    where: (event: GuestEvent) => boolean,
    timeoutMs: number,
  ): Promise<GuestEvent> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiters.delete(waiter);
        reject(new DeadlineError(`no '${name}' event within ${timeoutMs} ms; ${this.tail()}`));
      }, timeoutMs);
      const waiter: Waiter = {
        name,
        where,
        resolve: (event) => {
          clearTimeout(timer);
          resolve(event);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      };
      this.waiters.add(waiter);
    });
  }

  /** Every event from the first on, until QEMU ends; rejects when none comes for `timeoutMs`. */
  async *iterate(timeoutMs: number): AsyncGenerator<GuestEvent, void, void> {
    for (let next = 0; ; ) {
      const event = this.events[next];
      if (event !== undefined) {
        next++;
        yield event;
        continue;
      }
      if (this.failure !== undefined) throw this.failure;
      if (this.ended) return;
      await this.arrival(timeoutMs);
    }
  }

  private arrival(timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.arrivals.delete(wake);
        reject(new DeadlineError(`no event within ${timeoutMs} ms; ${this.tail()}`));
      }, timeoutMs);
      const wake = () => {
        clearTimeout(timer);
        this.arrivals.delete(wake);
        resolve();
      };
      this.arrivals.add(wake);
    });
  }
}
