/**
 * The kernel: boot, and one turn of the event loop after the other. The host calls `boot` once and
 * `step` for ever, on every CPU (machine.ts). CPU 0 owns the devices and the first lane of each;
 * the others run further lanes (worker.ts).
 *
 *   boot: command line -> memory -> other CPUs -> PCI -> devices -> lanes
 *   step: console -> lanes (receive, answer, send) -> devices, mail, timers -> sleep
 */
import * as acpi from "./acpi";
import * as commandLine from "./command-line";
import * as config from "./config";
import * as configChecks from "./config-checks";
import * as console from "./console";
import * as cpus from "./cpus";
import * as events from "./events";
import * as hotplug from "./hotplug";
import * as lanes from "./lanes";
import * as machine from "./machine";
import * as nics from "./nics";
import * as stats from "./stats";
import * as worker from "./worker";
import { NO_VECTOR, allocateVector, routeLine } from "./interrupts";
import { seal } from "./memory/arena";
import { NEVER, deadlineIn } from "./time";
import { RING_PACKED, featureName } from "../drivers/virtio/features";
export { abort } from "./check";

const SECOND_US: u64 = 1000000;

let running: bool = false;
let statsDeadline: u64 = NEVER;
let consoleVector: u32 = NO_VECTOR;
let consoleInterrupts: u32 = 0;

// ---- boot ---------------------------------------------------------------------------------------

/** Called by the host, once on each CPU. */
export function boot(): void {
  if (machine.cpuIndex() != 0) {
    worker.boot();
    return;
  }
  if (!commandLine.parse() || !configChecks.checkWords()) {
    events.giveUp("the command line is wrong");
    return;
  }
  configChecks.warnUnused();
  const found = acpi.read();
  if (!cpus.divideMemory()) {
    events.giveUp("too little memory");
    return;
  }
  cpus.printBoot(cpus.count());
  if (!found) events.warning("no ACPI tables: one CPU, PCI by ports, no console interrupts");
  if (acpi.cpusIgnored != 0) events.warning("more CPUs than can be used");
  cpus.startOthers();
  bootDevices();
}

function bootDevices(): void {
  let leftOut = featuresLeftOut();
  if (events.isEnded()) return;
  if (config.ring == config.Ring.Split) leftOut |= (<u64>1) << RING_PACKED;
  if (!nics.bringUp(leftOut)) return;
  openConsole(unchecked(acpi.apicIds[0]));
  nics.printLinks();
  if (config.stats != 0) statsDeadline = deadlineIn(config.stats * SECOND_US);
  hotplug.prepare();
  seal();
  running = true;
}

/** The feature bits that `features=` leaves out. A name that no feature has ends the run. */
function featuresLeftOut(): u64 {
  let leftOut: u64 = 0;
  for (let i: u32 = 0; i < config.leftOutCount(); i++) {
    let known = false;
    for (let bit: u32 = 0; bit < 128; bit++) {
      const name = featureName(bit);
      if (name == null || !config.leftOutIs(i, name)) continue;
      known = true;
      if (bit < 64) leftOut |= (<u64>1) << bit;
    }
    if (!known) {
      commandLine.rejectLeftOut(i);
      events.giveUp("the command line is wrong");
      return 0;
    }
  }
  return leftOut;
}

/** Leads the console's interrupt to this CPU, so that a line typed wakes it. */
function openConsole(apicId: u32): void {
  if (acpi.ioApic == 0) return;
  consoleVector = allocateVector();
  if (consoleVector == NO_VECTOR) return;
  if (!routeLine(acpi.ioApic, acpi.consoleLine, consoleVector, apicId)) {
    events.warning("no console interrupts: the I/O APIC cannot be reached");
  }
  obeyAll();
}

// ---- the event loop -----------------------------------------------------------------------------

/** One turn. Answers until when this CPU may sleep, 0 for not at all. Called by the host. */
export function step(): u64 {
  if (machine.cpuIndex() != 0) return worker.step();
  if (!running || events.isEnded()) return NEVER;
  const start = machine.tsc();
  listen();
  const worked = lanes.step(start);
  const deadline = nics.attend(start);
  if (start >= statsDeadline) {
    statsDeadline = deadlineIn(config.stats * SECOND_US);
    nics.printStatistics();
  }
  if (nics.areDone()) end("done");
  if (events.isEnded()) return NEVER;
  if (console.more) return 0;
  return lanes.rest(worked, min(deadline, statsDeadline));
}

/** Console lines: one comparison when there is none. */
function listen(): void {
  if (consoleVector == NO_VECTOR) return;
  const count = machine.interruptCount(consoleVector);
  if (count == consoleInterrupts && !console.more) return;
  consoleInterrupts = count;
  obeyAll();
}

// ---- events and commands ------------------------------------------------------------------------

/** Lines typed so far; bounded by what the console holds, which is a few bytes at a time. */
function obeyAll(): void {
  let command = console.poll();
  while (command != console.Command.None && !events.isEnded()) {
    obey(command);
    command = console.poll();
  }
}

function obey(command: console.Command): void {
  if (console.nic >= nics.count) {
    console.rejectNic(nics.count);
    return;
  }
  const nic = nics.get(console.nic);
  if (command == console.Command.Exit) end("exit was asked for on the console");
  else if (command == console.Command.Help) console.printHelp(nic.device);
  else if (command == console.Command.Stats) {
    if (console.namesNic) stats.print(nic);
    else nics.printStatistics();
  } else if (!nic.present) console.rejectAbsent();
  else if (!nic.control.take(console.line, console.length)) console.reject();
}

function end(message: string): void {
  nics.printStatistics();
  events.finish(message);
}
