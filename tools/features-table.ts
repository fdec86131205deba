// The feature table: what each backend offers, and what the driver makes of it. Pure functions over
// the guest's events, and the reader of docs/features.md. Used by features.ts and by tests.

import type { DeviceEvent, FeaturesEvent } from "../test/harness/src/events";

/** What came of one backend. */
export interface Column {
  readonly backend: string;
  /** Why it could not be asked; then the rest is empty. */
  readonly skipped?: string;
  readonly offered: readonly string[];
  readonly accepted: readonly string[];
  /** Reasons by name. */
  readonly declined: Readonly<Record<string, string>>;
}

/** Reasons that say: there is no code for it. */
const NO_CODE = /not implemented|there is no driver|is not used|not defined/;

export function columnOf(backend: string, device: DeviceEvent, features: FeaturesEvent): Column {
  const declined = Object.fromEntries(features.declined.map(({ name, reason }) => [name, reason]));
  return { backend, offered: device.offered, accepted: features.accepted, declined };
}

export function skippedColumn(backend: string, reason: string): Column {
  return { backend, skipped: reason, offered: [], accepted: [], declined: {} };
}

/** Every feature that a backend offers, in the order in which they come. */
export function featuresOf(columns: readonly Column[]): string[] {
  return [...new Set(columns.flatMap(({ offered }) => offered))].sort();
}

/** What stands in a cell: empty where the backend does not offer it. */
export function cellOf(column: Column, feature: string): string {
  if (column.accepted.includes(feature)) return "accepted";
  const reason = column.declined[feature];
  return reason === undefined ? "" : `declined`;
}

/** Features declined for want of code, each with the reason that the guest gave. */
export function withoutCode(columns: readonly Column[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const { declined } of columns) {
    for (const [feature, reason] of Object.entries(declined)) {
      if (NO_CODE.test(reason)) found.set(feature, reason);
    }
  }
  return found;
}

/** The table as text, its columns in line, then the reasons and what was skipped. */
export function formatTable(columns: readonly Column[]): string {
  const asked = columns.filter(({ skipped }) => skipped === undefined);
  const head = ["feature", ...asked.map(({ backend }) => backend)];
  const rows = featuresOf(asked).map((feature) => [
    feature,
    ...asked.map((column) => cellOf(column, feature)),
  ]);
  const widths = head.map((_, i) =>
    Math.max(...[head, ...rows].map((cells) => cells[i]?.length ?? 0)),
  );
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd();
  const rule = widths.map((width) => "-".repeat(width));
  return [...[head, rule, ...rows].map(line), ...reasonLines(asked), ...skipLines(columns)].join(
    "\n",
  );
}

function reasonLines(columns: readonly Column[]): string[] {
  const reasons = featuresOf(columns).flatMap((feature) => {
    const by = new Map<string, string[]>();
    for (const { backend, declined } of columns) {
      const reason = declined[feature];
      if (reason !== undefined) by.set(reason, [...(by.get(reason) ?? []), backend]);
    }
    return [...by].map(([reason, backends]) => `  ${feature} (${backends.join(", ")}): ${reason}`);
  });
  return reasons.length === 0 ? [] : ["", "declined, and why:", ...reasons];
}

function skipLines(columns: readonly Column[]): string[] {
  const skipped = columns.flatMap(({ backend, skipped: reason }) =>
    reason === undefined ? [] : [`  ${backend}: ${reason}`],
  );
  return skipped.length === 0 ? [] : ["", "not asked:", ...skipped];
}

/** The features that docs/features.md lists as declined, with its reasons. */
export function parseDeclinedList(markdown: string): Map<string, string> {
  const list = new Map<string, string>();
  for (const line of markdown.split("\n")) {
    const match = /^\| `([a-z0-9_]+)` \| (.+) \|$/.exec(line);
    if (match?.[1] === undefined || match[2] === undefined) continue;
    if (list.has(match[1])) throw new Error(`docs/features.md lists ${match[1]} twice`);
    list.set(match[1], match[2].trim());
  }
  if (list.size === 0) throw new Error("docs/features.md has no table of declined features");
  return list;
}
