// What `make soak` starts: random guests, random traffic and random faults for as long as one likes.
// What fails is made small, and a command line that repeats it is printed.

import { parseArgs } from "node:util";
import { tapUnavailable } from "../test/harness/src/backends/tap";
import { EnvironmentError, messageOf, UsageError } from "../test/harness/src/errors";
import { exitOnSignals } from "../test/harness/src/run-scope";
import { describe, type Episode, episodeOf, PLAIN_KEYS } from "./soak-plan";
import { runEpisode } from "./soak-run";
import { applied, reproduction, shrink } from "./soak-shrink";

const USAGE = `usage: make soak [SOAK='options']

  Episodes, each a guest of random configuration that goes through random steps: loads, garbage, bad
  networks, link flaps, stops, resets of the device and of queues, changes of the number of queues,
  unplugging and plugging in. After each step everything must come back unchanged. The first failure
  is shrunk, and a command line that repeats it is printed.

  --minutes N   begin no episode after so long (default: 10)
  --seconds N   the same in seconds
  --seed N      of all episodes (default: from the clock; it is printed)
  --episode N   only the episode with this number (from 0 on)
  --steps A,B   only these steps of it (from 1 on)
  --plain K,L   these parts of its configuration as plain as can be: ${PLAIN_KEYS.join(", ")}
  --image PATH  the image (default: build/vireo.elf)
  --list        print the episode's configuration and steps, or ten episodes', and run nothing
  --planted     with a fault in the network that the soak must find (its own test)`;

const STATUS_FAILED = 1;
const STATUS_USAGE = 2;
const STATUS_ENVIRONMENT = 3;
const DEFAULT_MINUTES = 10;
const SHRINK_MS = 240_000;
const EPISODES_LISTED = 10;

interface Options {
  readonly budgetMs: number;
  readonly seed: number;
  readonly episode: number | undefined;
  readonly steps: readonly number[] | undefined;
  readonly plain: readonly string[];
  readonly image: string | undefined;
  readonly list: boolean;
  readonly planted: boolean;
}

function number(option: string, text: string, least: number): number {
  const value = Number(text);
  if (Number.isFinite(value) && value >= least) return value;
  throw new UsageError(`${option} wants a number from ${least} on, not '${text}'`);
}

function whole(option: string, text: string, least: number): number {
  const value = number(option, text, least);
  if (Number.isInteger(value)) return value;
  throw new UsageError(`${option} wants a whole number, not '${text}'`);
}

function parse(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      minutes: { type: "string", default: String(DEFAULT_MINUTES) },
      seconds: { type: "string" },
      seed: { type: "string" },
      episode: { type: "string" },
      steps: { type: "string" },
      plain: { type: "string" },
      image: { type: "string" },
      list: { type: "boolean", default: false },
      planted: { type: "boolean", default: false },
    },
  });
  const { episode, plain, seconds, seed, steps } = values;
  const keys = plain?.split(",") ?? [];
  const unknown = keys.find((key) => !PLAIN_KEYS.includes(key));
  if (unknown !== undefined) throw new UsageError(`--plain: there is no part '${unknown}'`);
  if (steps !== undefined && episode === undefined) {
    throw new UsageError("--steps are of one episode: say --episode N as well");
  }
  return {
    budgetMs:
      seconds === undefined
        ? number("--minutes", values.minutes, 0) * 60_000
        : number("--seconds", seconds, 0) * 1000,
    seed: seed === undefined ? Date.now() % 1_000_000 : whole("--seed", seed, 0),
    episode: episode === undefined ? undefined : whole("--episode", episode, 0),
    steps: steps?.split(",").map((step) => whole("--steps", step, 1) - 1),
    plain: keys,
    image: values.image,
    list: values.list,
    planted: values.planted,
  };
}

function describeEpisode({ config, steps }: Episode): string {
  const lines = steps.map((step, i) => `  ${i + 1}. ${describe(step)}`);
  return [`  ${JSON.stringify(config)}`, ...lines].join("\n");
}

/** The episode, or what is asked for of it. */
function chosen(options: Options, index: number, taps: boolean): Episode {
  const episode = episodeOf(options.seed, index, taps);
  const steps = options.steps ?? [...episode.steps.keys()];
  return applied(episode, { steps, plain: options.plain });
}

async function soak(options: Options): Promise<number> {
  const { seed, planted } = options;
  const noTaps = tapUnavailable();
  const taps = noTaps === undefined;
  const first = options.episode ?? 0;
  if (options.list) {
    const count = options.episode === undefined ? EPISODES_LISTED : 1;
    for (let index = first; index < first + count; index++) {
      console.log(`episode ${index}:\n${describeEpisode(chosen(options, index, taps))}`);
    }
    return 0;
  }
  console.log(`seed ${seed}${taps ? "" : `; without taps: ${noTaps}`}`);
  const end = performance.now() + options.budgetMs;
  const image = options.image === undefined ? {} : { image: options.image };
  const run = (episode: Episode) => runEpisode(episode, { ...image, planted });
  let [episodes, steps] = [0, 0];
  for (let index = first; ; index++) {
    const episode = chosen(options, index, taps);
    const begin = performance.now();
    const outcome = await run(episode);
    episodes++;
    steps += outcome.survived;
    const { machine, cpus, backend, packed } = episode.config;
    const what = `${machine}, ${cpus} vCPUs, ${backend}, ${packed ? "packed" : "split"}`;
    const seconds = ((performance.now() - begin) / 1000).toFixed(1);
    console.log(`episode ${index}: ${what}: ${outcome.survived} steps (${seconds} s)`);
    if (outcome.failure !== undefined) {
      console.log(`FAILED ${outcome.failure}\n${outcome.commandLine}`);
      if (options.steps === undefined) {
        const until = performance.now() + SHRINK_MS;
        const small = await shrink(episode, outcome, run, () => performance.now() < until);
        const left = applied(episode, small.choice);
        console.log(`shrunk in ${small.runs} runs to\n${describeEpisode(left)}`);
        console.log(`FAILED ${small.outcome.failure}`);
        const choice = { ...small.choice, plain: [...options.plain, ...small.choice.plain] };
        console.log(`again: ${reproduction(seed, index, choice, planted)}`);
      }
      return STATUS_FAILED;
    }
    if (options.episode !== undefined || performance.now() >= end) break;
  }
  console.log(`${episodes} episodes with ${steps} steps, none failed; seed ${seed}`);
  return 0;
}

async function main(): Promise<number> {
  const args = process.argv.slice(2);
  if (args.includes("--help") || args.includes("-h")) {
    console.log(USAGE);
    return 0;
  }
  try {
    return await soak(parse(args));
  } catch (error) {
    const code = (error as { code?: string }).code ?? "";
    console.error(messageOf(error));
    if (error instanceof UsageError || code.startsWith("ERR_PARSE_ARGS")) return STATUS_USAGE;
    if (error instanceof EnvironmentError) return STATUS_ENVIRONMENT;
    throw error;
  }
}

exitOnSignals();
process.exit(await main());
