// The errors this package throws. Every other file uses them; the runner and the command line turn
// them into results and exit statuses.

/** Something a test did or saw is wrong: the test fails. */
export class HarnessError extends Error {
  override name = "HarnessError";
}

/** The machine lacks something (QEMU, an image, a privilege): no test can say anything here. */
export class EnvironmentError extends HarnessError {
  override name = "EnvironmentError";
}

/** A wait ended without the awaited thing. */
export class DeadlineError extends HarnessError {
  override name = "DeadlineError";
}

/** The command line is wrong: one line says how, and the status is 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** Thrown by `TestContext.skip`: the test is counted as skipped, with this reason. */
export class SkipTest extends Error {
  override name = "SkipTest";
}

/** The message of whatever was thrown, which need not be an Error. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
