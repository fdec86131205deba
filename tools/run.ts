// What `make run` starts: the image in QEMU with user networking, no root needed. Says how to reach
// the guest and shows its counters every second until Ctrl-C (or for --seconds); then prints the
// totals.

import { parseArgs } from "node:util";
import { chooseAccelerator } from "../test/harness/src/accelerator";
import { type UserBackend, user } from "../test/harness/src/backends/user";
import { delay } from "../test/harness/src/deadline";
import { EnvironmentError, messageOf } from "../test/harness/src/errors";
import { type ReadyEvent, type StatsEvent, sumQueues } from "../test/harness/src/events";
import { findProgram } from "../test/harness/src/processes";
import { findQemu } from "../test/harness/src/qemu";
import { Vm } from "../test/harness/src/vm";
import {
  type Accelerator,
  defaultImage,
  MACHINES,
  type Machine,
} from "../test/harness/src/vm-options";

const USAGE = `usage: make run [RUN='options']

  --accelerator auto|kvm|tcg   default: auto (KVM where the image boots under it, else TCG)
  --machine q35|pc|microvm     default: q35
  --cpus N                     default: 1
  --append 'key=value …'       the guest's command line (default: app=echo ip=dhcp)
  --echo-port N                host UDP port for the guest's port 7 (default: 5007 or the next free)
  --seconds N                  stop by itself after N seconds
  --json                       one JSON object a line instead of text`;

const STATUS_FAILED = 1;
const STATUS_USAGE = 2;
const STATUS_ENVIRONMENT = 3;
const DEFAULT_ECHO_PORT = 5007;
const QUIET_INTERVAL_S = 10;
const SHOW_INTERVAL_MS = 1000;
const READY_TIMEOUT_MS = 60_000;

class UsageError extends Error {}

interface Settings {
  readonly accelerator: Accelerator | "auto";
  readonly machine: Machine;
  readonly cpus: number;
  readonly append: string | undefined;
  readonly echoPort: number;
  readonly seconds: number | undefined;
  readonly json: boolean;
}

function oneOf<T extends string>(option: string, text: string, allowed: readonly T[]): T {
  const found = allowed.find((value) => value === text);
  if (found === undefined) throw new UsageError(`${option} wants one of ${allowed.join(", ")}`);
  return found;
}

function wholeNumber(option: string, text: string, highest: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= highest) return value;
  throw new UsageError(`${option} wants a whole number from 1 to ${highest}, not '${text}'`);
}

function readSettings(args: readonly string[]): Settings | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      accelerator: { type: "string", default: "auto" },
      machine: { type: "string", default: "q35" },
      cpus: { type: "string", default: "1" },
      append: { type: "string" },
      "echo-port": { type: "string", default: String(DEFAULT_ECHO_PORT) },
      seconds: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return undefined;
  const { seconds } = values;
  return {
    accelerator: oneOf("--accelerator", values.accelerator, ["auto", "kvm", "tcg"]),
    machine: oneOf("--machine", values.machine, MACHINES),
    cpus: wholeNumber("--cpus", values.cpus, 64),
    append: values.append,
    echoPort: wholeNumber("--echo-port", values["echo-port"], 65_535),
    seconds: seconds === undefined ? undefined : wholeNumber("--seconds", seconds, 1_000_000),
    json: values.json,
  };
}

/** What a person pastes into another terminal to see an answer. */
function tryLine(port: number): string {
  if (findProgram("nc") !== undefined) return `echo hello | nc -u -w1 127.0.0.1 ${port}`;
  const script =
    `const s=require("dgram").createSocket("udp4");` +
    `s.on("message",m=>{console.log(String(m));s.close()});s.send("hello",${port},"127.0.0.1")`;
  return `node -e '${script}'`;
}

interface Totals {
  readonly packets: number;
  readonly bytes: number;
  readonly kicks: number;
  readonly interrupts: number;
}

function totalsOf(stats: StatsEvent, direction: "rx" | "tx"): Totals {
  return {
    packets: sumQueues(stats, direction, "packets"),
    bytes: sumQueues(stats, direction, "bytes"),
    kicks: sumQueues(stats, direction, "kicks"),
    interrupts: sumQueues(stats, direction, "interrupts"),
  };
}

/** Shows the counters: one live line on a terminal, a line every ten seconds elsewhere, or JSON. */
class Display {
  private previous: { rx: Totals; tx: Totals; us: number } | undefined;
  private shown = 0;

  constructor(private readonly json: boolean) {}

  show(stats: StatsEvent): void {
    const now = { rx: totalsOf(stats, "rx"), tx: totalsOf(stats, "tx"), us: stats.us };
    const before = this.previous ?? { ...now, us: now.us - 1_000_000 };
    this.previous = now;
    const due = this.shown++ % QUIET_INTERVAL_S === 0;
    if (this.json) {
      this.line(JSON.stringify({ event: "stats", ...now }));
      return;
    }
    const seconds = (now.us - before.us) / 1e6;
    const rate = (d: "rx" | "tx") => Math.round((now[d].packets - before[d].packets) / seconds);
    const part = (d: "rx" | "tx") => `${d} ${now[d].packets} (${rate(d)}/s)`;
    const kicks = now.rx.kicks + now.tx.kicks;
    const interrupts = now.rx.interrupts + now.tx.interrupts;
    const text = `${part("rx")}  ${part("tx")}  kicks ${kicks}  interrupts ${interrupts}`;
    if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${text}`);
    else if (due) this.line(text);
  }

  line(text: string): void {
    process.stdout.write(`${text}\n`);
  }

  /** The closing table. */
  total(stats: StatsEvent): void {
    const totals = { rx: totalsOf(stats, "rx"), tx: totalsOf(stats, "tx") };
    if (this.json) {
      this.line(JSON.stringify({ event: "total", ...totals }));
      return;
    }
    if (process.stdout.isTTY) this.line("");
    const head = ["", "packets", "bytes", "kicks", "interrupts"];
    const rows = (["rx", "tx"] as const).map((direction) => {
      const { packets, bytes, kicks, interrupts } = totals[direction];
      return [direction, ...[packets, bytes, kicks, interrupts].map(String)];
    });
    const lines = [head, ...rows];
    const width = Math.max(...lines.flat().map((cell) => cell.length)) + 2;
    for (const cells of lines) this.line(cells.map((cell) => cell.padStart(width)).join(""));
  }
}

function announce(settings: Settings, ready: ReadyEvent, net: UserBackend, reason: string): void {
  const qemu = findQemu();
  if (settings.json) {
    const { echoPort, discardPort } = net;
    console.log(
      JSON.stringify({ ...ready, qemu: qemu.version, accelerator: reason, echoPort, discardPort }),
    );
    return;
  }
  const us = `${(ready.us / 1000).toFixed(1)} ms`;
  console.log(`Guest ready after ${us}: ${ready.mac}, ${ready.ip}, MTU ${ready.mtu}, ${ready.app}`);
  console.log(`UDP ${net.echoPort} on this host leads to the guest's echo (7),`);
  console.log(`UDP ${net.discardPort} to its discard (9). Try, in another terminal:\n`);
  console.log(`  ${tryLine(net.echoPort)}\n`);
  console.log(settings.seconds === undefined ? "Ctrl-C ends it." : `Runs ${settings.seconds} s.`);
}

/** Resolves when the person wants the end. */
function interrupted(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => resolve());
  });
}

/** Shows the counters every second until `end`, then the totals, and stops the guest. */
async function watch(vm: Vm, display: Display, end: Promise<void>): Promise<void> {
  let ended = false;
  void end.then(() => {
    ended = true;
  });
  while (!ended) {
    display.show(await vm.stats());
    await Promise.race([delay(SHOW_INTERVAL_MS), end]);
  }
  display.total(await vm.stats());
  await vm.stop();
}

async function runGuest(settings: Settings): Promise<void> {
  const qemu = findQemu();
  const wanted = interrupted();
  const { accelerator, reason } =
    settings.accelerator === "auto"
      ? await chooseAccelerator(defaultImage())
      : { accelerator: settings.accelerator, reason: "asked for." };
  if (!settings.json) console.log(`QEMU ${qemu.version}, ${accelerator}: ${reason}`);
  const net = user({ echoPort: settings.echoPort });
  const { machine, cpus, append } = settings;
  const vm = await Vm.start({
    machine,
    cpus,
    accelerator,
    nics: [{ backend: net, options: { mac: "52:54:00:12:34:56" } }],
    ...(append === undefined ? {} : { append }),
  });
  try {
    const ready = await Promise.race([
      vm.waitFor("ready", { timeoutMs: READY_TIMEOUT_MS }),
      wanted,
    ]);
    // Interrupted during the boot, when the guest does not listen to its console yet.
    if (ready === undefined) return;
    announce(settings, ready, net, `${accelerator}: ${reason}`);
    const { seconds, json } = settings;
    const end = seconds === undefined ? wanted : Promise.race([delay(seconds * 1000), wanted]);
    await watch(vm, new Display(json), end);
  } finally {
    await vm.kill();
  }
}

async function main(): Promise<number> {
  try {
    const settings = readSettings(process.argv.slice(2));
    if (settings === undefined) console.log(USAGE);
    else await runGuest(settings);
    return 0;
  } catch (error) {
    const code = (error as { code?: string }).code ?? "";
    const usage = error instanceof UsageError || code.startsWith("ERR_PARSE_ARGS");
    console.error(usage ? `${messageOf(error)}; see --help` : messageOf(error));
    if (usage) return STATUS_USAGE;
    return error instanceof EnvironmentError ? STATUS_ENVIRONMENT : STATUS_FAILED;
  }
}

process.exit(await main());
