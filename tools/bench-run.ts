/**
 * Runs one case of the benchmark: starts every contender with a backend of its own, freezes them
 * all, and lets them take turns, a second each, round after round. So no contender is alone with a
 * good or a bad minute of the machine. Called by bench.ts.
 */
import { messageOf } from "../test/harness/src/errors";
import { BACKEND_MEMORY_MIB, BenchBackend, Program, pause, until } from "./bench-backend";
import { type Case, idOf, titleOf } from "./bench-cases";
import { type Contender, GUEST_MAC } from "./bench-contenders";
import { measureDistance, reserveHugepages } from "./bench-machine";

const SAMPLE_MS = 1000;
/** After a thaw: caches, and what had piled up. */
const SETTLE_MS = 150;
const STATS_TIMEOUT_MS = 5000;
const CYCLES_MS = 300;
/** Who may take so long to start is started beside the others. */
const SLOW_MS = 60_000;
const HUGEPAGE_MIB = 2;
/** More than its memory, for each pair of backend and contender. */
const SPARE_HUGEPAGES = 8;

export interface RunOptions {
  readonly samples: number;
  readonly backendCpu: number;
  readonly driverCpu: number;
  /** Whether large pages are asked for. */
  readonly hugepages: boolean;
  readonly progress: (text: string) => void;
}

/** Counted by our driver while the backend was measured. */
export interface OwnCounters {
  readonly kicksPerFrame: number;
  readonly interrupts: number;
  readonly cyclesPerFrame: number;
}

export interface Row {
  readonly case: string;
  readonly title: string;
  readonly contender: string;
  readonly name: string;
  /** Frames a second, by the backend's counters: one value a sample. */
  readonly samples: readonly number[];
  readonly median: number;
  /** Half of the range from the lowest to the highest sample, in percent of the median. */
  readonly spreadPercent: number;
  readonly own?: OwnCounters;
  /** Why there are no samples. */
  readonly skipped?: string;
  /** It should have run, but did not, or not to the end. */
  readonly failed?: boolean;
}

export interface CaseResult {
  readonly case: Case;
  readonly rows: readonly Row[];
  /** Cycles of a cache line's round trip between the two CPUs, before each round. */
  readonly distances: readonly number[];
  /** Whether guests, processes and backends had large pages; without them all are slower. */
  readonly hugepages: boolean;
}

interface Running {
  readonly contender: Contender;
  readonly backend: BenchBackend;
  readonly driver: Program;
  readonly samples: number[];
  own?: OwnCounters;
  failed?: string;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? 0)) / 2;
}

function rowOf(what: Case, contender: Contender, samples: readonly number[]): Row {
  const middle = median(samples);
  const range = samples.length === 0 ? 0 : Math.max(...samples) - Math.min(...samples);
  return {
    case: idOf(what),
    title: titleOf(what),
    contender: contender.id,
    name: contender.name,
    samples,
    median: middle,
    spreadPercent: middle === 0 ? 0 : (50 * range) / middle,
  };
}

async function start(
  contender: Contender,
  what: Case,
  options: RunOptions,
  hugepages: boolean,
): Promise<Running> {
  const cpu = options.backendCpu;
  const backend = new BenchBackend(what, { cpu, hugepages, guestMac: GUEST_MAC });
  let driver: Program | undefined;
  try {
    await backend.ready();
    const { socketPaths } = backend;
    const command = contender.command(what, { socketPaths, cpu: options.driverCpu, hugepages });
    driver = new Program(contender.name, command);
    await untilMoving(contender, backend, driver);
    return { contender, backend, driver, samples: [] };
  } catch (error) {
    await driver?.stop();
    await backend.stop();
    throw error;
  }
}

async function untilMoving(
  contender: Contender,
  backend: BenchBackend,
  driver: Program,
): Promise<void> {
  const end = performance.now() + contender.startTimeoutMs;
  for (;;) {
    driver.check();
    if (await backend.moves()) return;
    if (performance.now() > end) {
      throw new Error(
        `no frame within ${contender.startTimeoutMs / 1000} s; it says:\n${driver.tail()}`,
      );
    }
    await pause(100);
  }
}

function freeze({ backend, driver }: Running): void {
  driver.freeze();
  backend.freeze();
}

async function sample(running: Running): Promise<void> {
  const { backend, driver } = running;
  backend.thaw();
  driver.thaw();
  await pause(SETTLE_MS);
  driver.check();
  running.samples.push(await backend.rate(SAMPLE_MS));
  freeze(running);
}

interface QueueCounters {
  packets: number;
  kicks: number;
  interrupts: number;
  cycles: number;
}

type Queues = Record<"rx" | "tx", QueueCounters>;

/** What each NIC's only pair has counted until now. */
async function readQueues({ backend, driver, contender }: Running): Promise<Queues[]> {
  const nics = backend.socketPaths.length;
  const answers: string[] = [];
  const listen = (line: string) => {
    if (line.startsWith('{"event":"stats"')) answers.push(line);
  };
  driver.onLine = listen;
  driver.send("stats");
  const seen = () => driver.ended || answers.length >= nics;
  await until(seen, STATS_TIMEOUT_MS, () => `${contender.name} gives no statistics`);
  driver.check();
  return answers.map((line) => {
    const [queues] = (JSON.parse(line) as { queues: Queues[] }).queues;
    if (queues === undefined) throw new Error(`${contender.name}: statistics without a queue`);
    return queues;
  });
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

/**
 * Our own driver's counters: of the queue that is measured, or of all that forward. Cycles are
 * those of a while without a freeze, which would count.
 */
async function readOwn(running: Running, what: Case): Promise<OwnCounters | undefined> {
  if (!running.contender.ours) return undefined;
  running.backend.thaw();
  running.driver.thaw();
  const before = await readQueues(running);
  await pause(CYCLES_MS);
  const after = await readQueues(running);
  const isForwarded = what.direction === "forward" || what.direction === "forward-both";
  const sent = (nics: readonly Queues[]) => sum(nics.map(({ tx }) => tx.packets));
  const received = (nics: readonly Queues[]) => sum(nics.map(({ rx }) => rx.packets));
  const frames = what.direction === "rx" ? received : sent;
  // A lane's cycles stand beside the frames that it received, but for those of a source.
  const timed = what.direction === "tx" ? "tx" : "rx";
  const cycles = (nics: readonly Queues[]) => sum(nics.map((nic) => nic[timed].cycles));
  const counted = after.flatMap(({ rx, tx }) => {
    if (isForwarded) return [rx, tx];
    return what.direction === "rx" ? [rx] : [tx];
  });
  return {
    kicksPerFrame: sum(counted.map(({ kicks }) => kicks)) / frames(after),
    interrupts: sum(counted.map(({ interrupts }) => interrupts)),
    cyclesPerFrame: (cycles(after) - cycles(before)) / (frames(after) - frames(before)),
  };
}

async function takeTurns(running: readonly Running[], what: Case, options: RunOptions) {
  const distances: number[] = [];
  for (const each of running) freeze(each);
  for (let round = 0; round < options.samples; round++) {
    distances.push(await measureDistance(options.driverCpu, options.backendCpu));
    for (const each of running) {
      if (each.failed !== undefined) continue;
      try {
        await sample(each);
      } catch (error) {
        each.failed = messageOf(error);
      }
      const rate = ((each.samples.at(-1) ?? 0) / 1e6).toFixed(2);
      const where = `${round + 1}/${options.samples}, ${distances.at(-1)} cycles apart`;
      options.progress(`${titleOf(what)}: ${each.contender.name} ${rate} Mpps (${where})`);
    }
  }
  for (const each of running) {
    if (each.failed !== undefined) continue;
    try {
      const own = await readOwn(each, what);
      if (own !== undefined) each.own = own;
    } catch (error) {
      each.failed = messageOf(error);
    }
    freeze(each);
  }
  return distances;
}

function hugepagesFor(contenders: readonly Contender[]): number {
  const mib = contenders.map(({ memoryMib }) => memoryMib + BACKEND_MEMORY_MIB);
  return sum(mib) / HUGEPAGE_MIB + SPARE_HUGEPAGES * contenders.length;
}

/** Measures all contenders that can take part; the others are rows with a reason. */
export async function runCase(
  what: Case,
  contenders: readonly Contender[],
  unavailable: ReadonlyMap<string, string>,
  options: RunOptions,
): Promise<CaseResult> {
  const skipped = new Map(unavailable);
  const failed = new Map<string, string>();
  for (const contender of contenders) {
    const reason = contender.declines(what);
    if (reason !== undefined && !skipped.has(contender.id)) skipped.set(contender.id, reason);
  }
  const taking = contenders.filter(({ id }) => !skipped.has(id));
  const pages = reserveHugepages(options.hugepages ? hugepagesFor(taking) : 0);
  const hugepages = options.hugepages && pages.enough;
  const running: Running[] = [];
  let distances: readonly number[] = [];
  try {
    const begin = async (contender: Contender) => {
      options.progress(`${titleOf(what)}: starting ${contender.name}`);
      try {
        const started = await start(contender, what, options, hugepages);
        freeze(started);
        running.push(started);
      } catch (error) {
        failed.set(contender.id, messageOf(error));
      }
    };
    // Those that boot for long do so beside the others.
    const slow = taking.filter(({ startTimeoutMs }) => startTimeoutMs >= SLOW_MS).map(begin);
    for (const contender of taking) {
      if (contender.startTimeoutMs < SLOW_MS) await begin(contender);
    }
    await Promise.all(slow);
    const place = ({ contender }: Running) => taking.indexOf(contender);
    running.sort((a, b) => place(a) - place(b));
    distances = await takeTurns(running, what, options);
  } finally {
    for (const { driver, backend } of running) {
      await driver.stop();
      await backend.stop();
    }
    pages.restore();
  }
  const rows = contenders.map((contender): Row => {
    const found = running.find((each) => each.contender === contender);
    const reason = failed.get(contender.id) ?? found?.failed;
    if (reason !== undefined) {
      return { ...rowOf(what, contender, []), skipped: `failed: ${reason}`, failed: true };
    }
    const row = rowOf(what, contender, found?.samples ?? []);
    const declined = skipped.get(contender.id);
    if (declined !== undefined) return { ...row, skipped: declined };
    return found?.own === undefined ? row : { ...row, own: found.own };
  });
  return { case: what, rows, distances, hugepages };
}
