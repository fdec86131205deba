// What the soak does, made from a seed: episodes, each a configuration of a guest and steps that it
// must survive. Pure, so that a seed, an episode's number and a choice of its steps say everything.
// Used by soak-run.ts, soak-shrink.ts and soak.ts.

import { Random } from "../test/harness/src/random";

export type SoakMachine = "q35" | "pc" | "microvm";

export interface Config {
  readonly machine: SoakMachine;
  readonly cpus: number;
  /** `tap` has a queue pair for each vCPU and the Linux kernel as the peer. */
  readonly backend: "stream" | "tap";
  readonly mode: "adaptive" | "poll" | "irq";
  readonly packed: boolean;
  /** QEMU's properties of the card that are switched off; `in_order` is on unless it is here. */
  readonly off: readonly string[];
  readonly ringSize: number;
  readonly mtu: number;
}

/** Each of these but the MTU, which the loads are made for, can go back to its value here while a failure is shrunk. */
export const PLAIN: Config = {
  machine: "q35",
  cpus: 1,
  backend: "stream",
  mode: "adaptive",
  packed: false,
  off: ["in_order"],
  ringSize: 256,
  mtu: 1500,
};

export const PLAIN_KEYS = Object.keys(PLAIN).filter((key) => key !== "mtu");

const SWITCHES = [
  ...["in_order", "mrg_rxbuf", "event_idx", "indirect_desc"],
  ...["csum", "guest_csum", "ctrl_rx", "ctrl_vlan", "status"],
];

/** `noise`: unchecked traffic goes on meanwhile, of which some may be lost. */
export type Step =
  | {
      readonly kind: "load";
      readonly count: number;
      readonly window: number;
      readonly bytes: number;
    }
  | { readonly kind: "garbage"; readonly count: number; readonly seed: number }
  | { readonly kind: "bad-network"; readonly count: number; readonly seed: number }
  | { readonly kind: "flap"; readonly times: number; readonly noise: boolean }
  | { readonly kind: "stop"; readonly ms: number }
  | { readonly kind: "pause"; readonly ms: number }
  | { readonly kind: "reset"; readonly noise: boolean }
  | { readonly kind: "reset-queue"; readonly queue: number; readonly noise: boolean }
  | { readonly kind: "queues"; readonly pairs: number; readonly noise: boolean }
  | { readonly kind: "replug"; readonly noise: boolean }
  | { readonly kind: "command"; readonly line: string }
  | { readonly kind: "idle"; readonly ms: number };

export interface Episode {
  readonly config: Config;
  readonly steps: readonly Step[];
}

const STEPS_LEAST = 5;
const STEPS_MOST = 14;
const EPISODE_STRIDE = 0x9e3779b1;

function configOf(random: Random, tap: boolean): Config {
  const backend = tap && random.below(3) === 0 ? "tap" : "stream";
  const mtu = backend === "tap" ? 1500 : random.pick([1500, 1500, 4000, 9000]);
  const off = new Set(SWITCHES.filter(() => random.below(4) === 0));
  // In-order use of merged buffers stops in QEMU where the ring begins anew (docs/decisions.md).
  if (mtu > 1500) off.add("in_order");
  return {
    machine: random.pick(["q35", "pc", "microvm"] as const),
    cpus: random.pick([1, 1, 2, 4]),
    backend,
    mode: random.pick(["adaptive", "adaptive", "irq", "poll"] as const),
    packed: random.below(2) === 0,
    off: [...off],
    ringSize: random.pick([256, 512, 1024]),
    mtu,
  };
}

type Make = (random: Random, config: Config) => Step;

const COMMANDS = ["rx promiscuous on", "rx promiscuous off", "rx allmulti on", "announce"];
const VLAN_COMMANDS = ["vlan add 5", "vlan del 5"];

const MAKERS: Record<Step["kind"], Make> = {
  load: (random, { mtu }) => ({
    kind: "load",
    count: 50 + random.below(1500),
    window: 1 + random.below(300),
    bytes: 18 + random.below(mtu - 28 - 18 + 1),
  }),
  garbage: (random) => ({
    kind: "garbage",
    count: 50 + random.below(500),
    seed: random.below(1 << 30),
  }),
  "bad-network": (random) => ({
    kind: "bad-network",
    count: 100 + random.below(500),
    seed: random.below(1 << 30),
  }),
  flap: (random) => ({ kind: "flap", times: 1 + random.below(3), noise: random.below(2) === 0 }),
  stop: (random) => ({ kind: "stop", ms: 5 + random.below(200) }),
  pause: (random) => ({ kind: "pause", ms: 5 + random.below(200) }),
  reset: (random) => ({ kind: "reset", noise: random.below(2) === 0 }),
  "reset-queue": (random, { cpus, backend }) => {
    const queue = random.below(2 * (backend === "tap" ? cpus : 1));
    // QEMU aborts when a transmit queue is reset while packets wait in it (docs/decisions.md).
    const receives = queue % 2 === 0;
    return { kind: "reset-queue", queue, noise: receives && random.below(2) === 0 };
  },
  queues: (random, { cpus }) => ({
    kind: "queues",
    pairs: 1 + random.below(cpus),
    noise: random.below(2) === 0,
  }),
  replug: (random) => ({ kind: "replug", noise: random.below(2) === 0 }),
  command: (random, { off }) => ({
    kind: "command",
    line: random.pick(off.includes("ctrl_vlan") ? COMMANDS : [...COMMANDS, ...VLAN_COMMANDS]),
  }),
  idle: (random) => ({ kind: "idle", ms: 10 + random.below(300) }),
};

/** What can happen to a guest so configured; a kind that is here twice happens twice as often. */
function kindsFor({ machine, backend, cpus, packed, off }: Config): Step["kind"][] {
  const kinds: Step["kind"][] = ["load", "load", "stop", "reset", "reset-queue", "idle"];
  if (backend === "stream") kinds.push("garbage", "bad-network", "pause");
  if (backend === "tap" && cpus > 1) kinds.push("queues", "queues");
  // What QEMU does to packed and to in-order rings that are in use when the link goes down is no test
  // of the guest (docs/decisions.md); and a guest announces itself whenever the link comes up.
  const survives = !packed && off.includes("in_order");
  if (survives && !off.includes("status")) kinds.push("flap");
  if (!off.includes("ctrl_rx")) kinds.push("command");
  if (machine !== "microvm" && backend === "stream") kinds.push("replug");
  return kinds;
}

/** The episode with this number of the run with this seed. `tap`: whether there are taps. */
export function episodeOf(seed: number, number: number, tap: boolean): Episode {
  const random = new Random(seed + Math.imul(number + 1, EPISODE_STRIDE));
  const config = configOf(random, tap);
  const kinds = kindsFor(config);
  const count = STEPS_LEAST + random.below(STEPS_MOST - STEPS_LEAST + 1);
  const steps = Array.from({ length: count }, () => MAKERS[random.pick(kinds)](random, config));
  return { config, steps };
}

/** The configuration with the named parts as in `PLAIN`. */
export function plainer(config: Config, keys: readonly string[]): Config {
  return Object.fromEntries(
    Object.entries(config).map(([key, value]) => [
      key,
      keys.includes(key) ? PLAIN[key as keyof Config] : value,
    ]),
  ) as unknown as Config;
}

/** One line for people. */
export function describe(step: Step): string {
  const { kind, ...rest } = step;
  const words = Object.entries(rest).map(([key, value]) => `${key}=${value}`);
  return [kind, ...words].join(" ");
}
