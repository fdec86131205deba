// One boot of the matrix: up to six cells, each a card of the same guest, and what came of each. Also
// asks a backend what it offers. Called by run.ts.

import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { delay } from "../deadline";
import { DeadlineError, HarnessError, messageOf } from "../errors";
import { type StatsEvent, sumDrops, sumQueues } from "../events";
import { inLab } from "../lab/lab";
import { Vm } from "../vm";
import type { NicOptions } from "../vm-options";
import type { Bench, Card, Exchanged, FrameCounts } from "./bench";
import { type Cell, FEATURES, flowsFor, idOf, PAYLOADS } from "./cells";

export interface CellResult {
  readonly id: string;
  readonly verdict: "PROVED" | "SKIPPED" | "FAILED";
  /** Of what is not proved. */
  readonly reason?: string;
  /** Datagrams that came back unchanged, of all sizes. */
  readonly datagrams?: number;
  /** Frames by the guest's count. */
  readonly received?: number;
  readonly sent?: number;
  /** Where the guest's console and all else is that may say why the cell failed. */
  readonly kept?: string;
}

const READY_MS = 60_000;
const EXCHANGE_MS = 20_000;
const SETTLED_MS = 5000;
const POLL_MS = 50;
/** Nothing is under way when the counters stay as they are for so long. */
const REST_MS = 500;
const RESTLESS_MS = 30_000;
/** All feature bits on: what the backend then offers, it has. */
const EVERYTHING = Object.fromEntries(FEATURES.map(({ name }) => [name, true])) as Record<
  (typeof FEATURES)[number]["name"],
  boolean
>;

/** QEMU's properties of a device that offers just the cell's features, of those in question. */
function deviceOf({ features }: Cell) {
  return {
    packed: features.ring_packed,
    in_order: features.in_order,
    mrg_rxbuf: features.mrg_rxbuf,
    event_idx: features.event_idx,
    indirect_desc: features.indirect_desc,
  };
}

async function start(
  image: string | undefined,
  cells: readonly Cell[],
  cards: readonly Card[],
  stderrAllowed: readonly RegExp[],
): Promise<Vm> {
  const cpus = Math.max(...cells.map(({ queues }) => queues));
  const nics = cells.flatMap((cell, index): NicOptions[] => {
    const card = cards[index];
    if (card === undefined) throw new HarnessError(`no card for ${idOf(cell)}`);
    return [{ backend: card.backend, options: { ...deviceOf(cell), ...card.options } }];
  });
  const addresses = cards.map(({ address }, nic) => {
    const suffix = nic === 0 ? "" : String(nic);
    return `ip${suffix}=${address} ip6${suffix}=off`;
  });
  return Vm.start({
    ...(image === undefined ? {} : { image }),
    accelerator: inLab() ? "auto" : "tcg",
    append: `app=echo ${addresses.join(" ")}`,
    cpus,
    memoryMib: 64 + 64 * cells.length,
    nics,
    stderrAllowed,
  });
}

/** The features that a backend offers when QEMU is asked for all of them. */
export async function offeredBy(bench: Bench, image: string | undefined): Promise<string[]> {
  const cell = { backend: bench.name, features: EVERYTHING, queues: bench.mostQueues };
  try {
    const cards = await bench.cards([cell]);
    // A backend has less than QEMU was asked for, which QEMU says.
    const vm = await start(image, [cell], cards, [/warning: /]);
    try {
      const { offered } = await vm.waitFor("device", { timeoutMs: READY_MS });
      await vm.waitFor("ready", { timeoutMs: READY_MS });
      await vm.stop();
      return [...offered];
    } finally {
      await vm.kill();
    }
  } finally {
    await bench.release();
  }
}

interface Judged {
  readonly vm: Vm;
  readonly nic: number;
  readonly cell: Cell;
  readonly card: Card;
  readonly bench: Bench;
}

/** What the guest has agreed with the device is what the cell is about. */
async function checkBringUp({ vm, nic, cell }: Judged): Promise<void> {
  const where = (event: { nic: number }) => event.nic === nic;
  const { accepted } = await vm.waitFor("features", { where, timeoutMs: READY_MS });
  for (const { name } of FEATURES) {
    const has = accepted.includes(name);
    if (has === cell.features[name]) continue;
    throw new HarnessError(has ? `${name} is accepted but was off` : `${name} is not accepted`);
  }
  const ready = await vm.waitFor("ready", { where, timeoutMs: READY_MS });
  const ring = cell.features.ring_packed ? "packed" : "split";
  if (ready.ring !== ring) throw new HarnessError(`the ring is ${ready.ring}`);
  if (ready.queues !== cell.queues) throw new HarnessError(`${ready.queues} queue pairs are used`);
}

/** How far the backend's counts are from the guest's; frames that were there before the guest. */
async function difference({ vm, nic, card }: Judged): Promise<FrameCounts | undefined> {
  const counts = await card.counts();
  if (counts === undefined) return undefined;
  const stats = await vm.stats({ nic });
  return {
    toGuest: counts.toGuest - sumQueues(stats, "rx", "packets"),
    fromGuest: counts.fromGuest - sumQueues(stats, "tx", "packets"),
  };
}

const same = (a: FrameCounts | undefined, b: FrameCounts | undefined) =>
  a?.toGuest === b?.toGuest && a?.fromGuest === b?.fromGuest;

/** The difference when nothing is under way: it stays the same for a while. */
async function differenceAtRest(judged: Judged): Promise<FrameCounts | undefined> {
  const begin = performance.now();
  let last = await difference(judged);
  let since = performance.now();
  while (performance.now() - begin < RESTLESS_MS) {
    await delay(POLL_MS);
    const next = await difference(judged);
    if (!same(last, next)) since = performance.now();
    else if (performance.now() - since > REST_MS) return next;
    last = next;
  }
  throw new DeadlineError(`the counters do not rest: ${JSON.stringify(last)}`);
}

/** Backend and guest have counted the same frames; the last ones may be under way for a moment. */
async function checkCounts(judged: Judged, before: FrameCounts | undefined): Promise<void> {
  const begin = performance.now();
  for (;;) {
    const after = await difference(judged);
    if (same(before, after)) return;
    if (performance.now() - begin > SETTLED_MS) {
      const [was, is] = [JSON.stringify(before), JSON.stringify(after)];
      throw new HarnessError(`backend and guest have not counted the same: ${was}, then ${is}`);
    }
    await delay(POLL_MS);
  }
}

/** What was dropped, but for what one card tells all others on its link about itself. */
function dropsOf({ bench }: Judged, stats: StatsEvent, direction: "rx" | "tx"): string {
  const { arp = 0, ...others } = sumDrops(stats, direction);
  return JSON.stringify(bench.oneLink ? others : { arp, ...others });
}

function checkStats(judged: Judged, before: StatsEvent, after: StatsEvent): void {
  const { bench, cell } = judged;
  for (const direction of ["rx", "tx"] as const) {
    const drops = dropsOf(judged, after, direction);
    if (drops !== dropsOf(judged, before, direction)) {
      throw new HarnessError(`${direction} has dropped frames: ${drops}`);
    }
    const idle = after.queues.filter(
      (queue, i) => queue[direction].packets === before.queues[i]?.[direction].packets,
    );
    if (bench.spreads ? idle.length > 0 : idle.length === cell.queues) {
      throw new HarnessError(`${direction} queue ${idle[0]?.index} has carried nothing`);
    }
  }
  if (after.recoveries !== before.recoveries) throw new HarnessError("the device was reset");
}

/** All packets are free again; one that has been sent is noticed a moment later. */
async function checkPool({ vm, nic }: Judged, before: StatsEvent): Promise<void> {
  const free = (stats: StatsEvent) => stats.queues.map((queue) => queue.pool_free).join(", ");
  const begin = performance.now();
  for (;;) {
    const now = free(await vm.stats({ nic }));
    if (now === free(before)) return;
    if (performance.now() - begin > SETTLED_MS) {
      throw new HarnessError(`packets have leaked: ${now} are free, before ${free(before)}`);
    }
    await delay(POLL_MS);
  }
}

/** What was lost was lost before the guest or behind it: the counters say which. */
async function checkExchange(
  judged: Judged,
  { sent, right, wrong }: Exchanged,
  wanted: number,
  before: FrameCounts | undefined,
): Promise<void> {
  if (wrong === "" && right >= wanted) return;
  const after = await difference(judged);
  const { queues } = await judged.vm.stats({ nic: judged.nic });
  const counts = queues.map(({ rx, tx }) => `rx ${rx.packets} tx ${tx.packets}`).join(", ");
  const [was, is] = [JSON.stringify(before), JSON.stringify(after)];
  const what = wrong === "" ? `${wanted} were wanted` : wrong;
  throw new HarnessError(
    `${what}; ${right} of ${sent} datagrams were right; the backend was ahead by ${was}, ` +
      `is by ${is}; guest: ${counts}`,
  );
}

async function judge(judged: Judged, broughtUp: Promise<void>): Promise<CellResult> {
  const { vm, nic, cell, card } = judged;
  const id = idOf(cell);
  try {
    await broughtUp;
    const atRest = await differenceAtRest(judged);
    const before = await vm.stats({ nic });
    const flows = flowsFor(cell.queues);
    const { window } = judged.bench;
    const load = { bytes: PAYLOADS, flows, window, timeoutMs: EXCHANGE_MS };
    const exchanged = await card.exchange(load);
    await checkExchange(judged, exchanged, flows * PAYLOADS.length, atRest);
    await checkCounts(judged, atRest);
    const after = await vm.stats({ nic });
    checkStats(judged, before, after);
    await checkPool(judged, before);
    return {
      id,
      verdict: "PROVED",
      datagrams: exchanged.right,
      received: sumQueues(after, "rx", "packets"),
      sent: sumQueues(after, "tx", "packets"),
    };
  } catch (error) {
    return { id, verdict: "FAILED", reason: messageOf(error) };
  }
}

/** What was asked for in one boot. */
export interface BootOptions {
  readonly image: string | undefined;
  /** The files of boots with a failed cell go below this directory. */
  readonly artifacts: string;
}

/** Keeps what the guest of failed cells has left, in a directory named after the first of them. */
function keep(vm: Vm, results: readonly CellResult[], artifacts: string): CellResult[] {
  const failed = results.find(({ verdict }) => verdict === "FAILED");
  if (failed === undefined) return [...results];
  const directory = join(artifacts, failed.id.replaceAll("/", "-"));
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  for (const { name, content } of vm.artifacts()) writeFileSync(join(directory, name), content);
  return results.map((result) =>
    result.verdict === "FAILED" ? { ...result, kept: directory } : result,
  );
}

/** Boots one guest with a card for each cell; an answer for every cell, whatever happens. */
export async function runBoot(
  bench: Bench,
  cells: readonly Cell[],
  { image, artifacts }: BootOptions,
): Promise<CellResult[]> {
  let results: CellResult[] = [];
  let vm: Vm | undefined;
  try {
    const cards = await bench.cards(cells);
    const guest = await start(image, cells, cards, []);
    vm = guest;
    try {
      const judged = cells.flatMap((cell, nic): Judged[] => {
        const card = cards[nic];
        return card === undefined ? [] : [{ vm: guest, nic, cell, card, bench }];
      });
      // All cards are up before the first frame: what they announce is then over for all.
      const broughtUp = judged.map(checkBringUp);
      await Promise.allSettled(broughtUp);
      for (const [i, one] of judged.entries()) {
        results.push(await judge(one, broughtUp[i] ?? Promise.resolve()));
      }
      await guest.stop();
    } finally {
      await guest.kill();
    }
  } catch (error) {
    // What is wrong with the guest is wrong with every cell in it.
    const reason = messageOf(error);
    results = cells.map((cell) => ({ id: idOf(cell), verdict: "FAILED", reason }));
  }
  if (vm !== undefined) results = keep(vm, results, artifacts);
  await bench.release();
  return results;
}
