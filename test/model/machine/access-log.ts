// What the driver did to the device, in order: register accesses by name, barriers, suppression
// words. Written by the regions and the vCPUs, read by tests that assert an order.

export type Action = "read" | "write" | "barrier";

export interface Access {
  readonly action: Action;
  /** The register or the word, such as `common.device_status` or `rx.avail_idx`. */
  readonly place: string;
  readonly value: number;
}

/** Enough for a boot and some hundred packets; what comes after is not kept. */
const ACCESSES_MAX = 200_000;

export class AccessLog {
  readonly entries: Access[] = [];
  /** Off for runs of many packets, which would only fill memory. */
  enabled = true;

  add(action: Action, place: string, value: number): void {
    if (!this.enabled || this.entries.length >= ACCESSES_MAX) return;
    this.entries.push({ action, place, value });
  }

  /** As text, `write common.device_status 1`, those that match only. */
  lines(pattern: RegExp): string[] {
    return this.entries
      .map(({ action, place, value }) => `${action} ${place} ${value}`)
      .filter((line) => pattern.test(line));
  }

  clear(): void {
    this.entries.length = 0;
  }
}
