// Waiting with deadlines: a promise with a limit, and a queue whose readers have one. Every wait in
// the package goes through here, so that none can last for ever.

import { DeadlineError } from "./errors";

/**
 * `promise`, or a DeadlineError after `timeoutMs` milliseconds that says what was awaited.
 * `what` is a function so that it can describe the state at the time of the failure.
 */
export async function withDeadline<T>(
  promise: Promise<T>,
  timeoutMs: number,
  what: () => string,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new DeadlineError(`no answer within ${timeoutMs} ms: ${what()}`)),
      timeoutMs,
    );
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Waits `ms` milliseconds. For pacing a load and for polling an outside program, never instead of
 * an event.
 */
export function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

interface Waiter<T> {
  readonly accept: (item: T) => boolean;
  readonly resolve: (item: T) => void;
  readonly reject: (error: Error) => void;
}

/**
 * A queue of items that arrive from outside, taken by readers with deadlines. Items nobody has
 * taken are kept up to `limit`, then the oldest is dropped and counted.
 */
export class Inbox<T> {
  private readonly items: T[] = [];
  private readonly waiters: Waiter<T>[] = [];
  private failure: Error | undefined;
  dropped = 0;

  constructor(
    private readonly what: string,
    private readonly limit = 65_536,
  ) {}

  get size(): number {
    return this.items.length;
  }

  /** Adds an item: the first waiting reader that accepts it gets it. */
  push(item: T): void {
    const index = this.waiters.findIndex((waiter) => waiter.accept(item));
    const waiter = index < 0 ? undefined : this.waiters.splice(index, 1)[0];
    if (waiter !== undefined) {
      waiter.resolve(item);
      return;
    }
    this.items.push(item);
    if (this.items.length > this.limit) {
      this.items.shift();
      this.dropped++;
    }
  }

  /** Ends the queue: present and future readers are rejected with `error`. */
  close(error: Error): void {
    this.failure ??= error;
    for (const waiter of this.waiters.splice(0)) waiter.reject(this.failure);
  }

  /** Takes out everything that has arrived and that nobody has taken. */
  take(): T[] {
    return this.items.splice(0);
  }

  /**
   * The next item that `accept` takes; items it refuses stay for others. Rejects after `timeoutMs`.
   */
  async next(timeoutMs: number, accept: (item: T) => boolean = () => true): Promise<T> {
    const index = this.items.findIndex(accept);
    const found = index < 0 ? [] : this.items.splice(index, 1);
    if (found.length === 1) return found[0] as T;
    if (this.failure !== undefined) throw this.failure;
    let own: Waiter<T> | undefined;
    const promise = new Promise<T>((resolve, reject) => {
      own = { accept, resolve, reject };
      this.waiters.push(own);
    });
    try {
      return await withDeadline(promise, timeoutMs, () => this.what);
    } finally {
      const at = own === undefined ? -1 : this.waiters.indexOf(own);
      if (at >= 0) this.waiters.splice(at, 1);
    }
  }
}
