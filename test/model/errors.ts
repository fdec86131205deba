// How a guest can end, as exceptions that unwind out of Wasm, and how the device says that the
// driver broke a rule. Thrown by the imports of vcpu.ts and by the device; caught by Vcpu and by
// Violations.

/** The guest called `exit`: 0 is success. */
export class GuestExit extends Error {
  constructor(readonly status: number) {
    super(`the guest ended with status ${status}`);
  }
}

/** The guest called `panic`, or trapped. */
export class GuestPanic extends Error {}

/** The model is used wrongly, or the guest does not come to an end: the test cannot go on. */
export class ModelError extends Error {}

/** The driver did what a driver must not do; the message names the clause where there is one. */
export class DriverError extends Error {}

/** The device has come upon what it wrote itself, against the rules: the driver has no part in it. */
export class OwnLie extends DriverError {}

/** Everything that the driver did wrong in one run. A test fails when any is left at its end. */
export class Violations {
  readonly list: string[] = [];

  /** Notes a broken rule; the first hundred suffice. */
  add(text: string): void {
    if (this.list.length < 100) this.list.push(`the driver broke the rules: ${text}`);
  }

  /** Runs `work`; a DriverError in it is noted unless it is an OwnLie, and `undefined` answered. */
  guard<Result>(work: () => Result): Result | undefined {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof DriverError)) throw error;
      if (!(error instanceof OwnLie)) this.add(error.message);
      return undefined;
    }
  }

  /** Takes out those that match: for tests that expect them. */
  take(pattern: RegExp): string[] {
    const taken = this.list.filter((text) => pattern.test(text));
    this.list.splice(0, this.list.length, ...this.list.filter((text) => !pattern.test(text)));
    return taken;
  }
}
