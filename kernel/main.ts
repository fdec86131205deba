/**
 * The kernel: boot, and one turn of the event loop after the other. The host calls `boot` once and
 * `step` for ever, on every CPU (machine.ts). CPU 0 owns the device; the others only report in.
 *
 *   boot: command line -> memory -> other CPUs -> PCI -> device -> stack -> app
 *   step: console, configuration -> app (receive, answer, send) -> timers -> sleep
 */
import * as acpi from "./acpi";
import * as config from "./config";
import * as console from "./console";
import * as cpus from "./cpus";
import * as events from "./events";
import * as machine from "./machine";
import * as stats from "./stats";
import { NO_VECTOR, allocateVector, routeLine } from "./interrupts";
import { seal } from "./memory/arena";
import { Stack } from "./net/stack";
import { NEVER, deadlineIn } from "./time";
import { Runner } from "./apps/runner";
import { NO_FUNCTION, nextFunction } from "../drivers/pci/bus";
import { setBarWindow } from "../drivers/pci/bar-window";
import { PciFunction } from "../drivers/pci/function";
import { useEcam } from "../drivers/pci/config-space";
import { NetDevice, isNetDevice } from "../drivers/net/device";
import { QueuePair } from "../drivers/net/queue-pair";
import { featureName } from "../drivers/virtio/features";
export { abort } from "./check";

/** How often a device without interrupts is looked at. */
const POLL_US: u64 = 1000;
const SECOND_US: u64 = 1000000;

/** All of this is set when `running` is. */
let device: NetDevice = changetype<NetDevice>(0);
let pair: QueuePair = changetype<QueuePair>(0);
let stack: Stack = changetype<Stack>(0);
let runner: Runner = changetype<Runner>(0);
let running: bool = false;

let announced: bool = false;
let stackDeadline: u64 = 0;
let statsDeadline: u64 = NEVER;
let consoleVector: u32 = NO_VECTOR;
let consoleInterrupts: u32 = 0;

// ---- boot ----------------------------------------------------------------------------------------

/** Called by the host, once on each CPU. */
export function boot(): void {
  if (machine.cpuIndex() != 0) {
    cpus.join();
    return;
  }
  if (!config.parse()) {
    events.giveUp("the command line is wrong");
    return;
  }
  const found = acpi.read();
  if (!cpus.divideMemory()) {
    events.giveUp("too little memory");
    return;
  }
  cpus.printBoot(cpus.count());
  if (!found) events.warning("no ACPI tables: one CPU, PCI by ports, no console interrupts");
  if (acpi.cpusIgnored != 0) events.warning("more CPUs than can be used");
  cpus.startOthers();
  bootDevice();
}

function bootDevice(): void {
  if (config.app == config.App.Forward) {
    events.fatal("app: forward is not in this version");
    return;
  }
  if (config.ring == config.Ring.Packed) {
    events.fatal("ring: packed is not in this version");
    return;
  }
  const leftOut = featuresLeftOut();
  if (events.isEnded()) return;
  const pci = findDevice();
  if (pci == null) {
    events.fatal("no virtio-net device on the PCI buses");
    return;
  }
  const apicId = unchecked(acpi.apicIds[0]);
  device = new NetDevice(0, pci, leftOut, config.mode == config.Mode.Poll, apicId);
  const problem = device.bringUp();
  const queues = device.pair;
  if (problem != null || queues == null) {
    events.fatal(problem != null ? problem : "the device has no queues");
    return;
  }
  pair = queues;
  stack = new Stack(device, pair, config.nic(0));
  runner = new Runner(pair, stack);
  openConsole(apicId);
  device.printLink();
  if (config.stats != 0) statsDeadline = deadlineIn(config.stats * SECOND_US);
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
      config.rejectLeftOut(i);
      events.giveUp("the command line is wrong");
      return 0;
    }
  }
  return leftOut;
}

/** The first virtio network device, or null. */
function findDevice(): PciFunction | null {
  useEcam(acpi.ecamBase);
  setBarWindow(acpi.ecamBase, machine.memoryEnd());
  for (let bdf = nextFunction(NO_FUNCTION); bdf != NO_FUNCTION; bdf = nextFunction(bdf)) {
    const pci = new PciFunction(bdf);
    if (isNetDevice(pci)) return pci;
  }
  return null;
}

/** Leads the console's interrupt to this CPU, so that a line typed wakes it. */
function openConsole(apicId: u32): void {
  if (acpi.ioApic == 0) return;
  consoleVector = allocateVector();
  if (consoleVector == NO_VECTOR) return;
  if (!routeLine(acpi.ioApic, acpi.consoleLine, consoleVector, apicId)) {
    events.warning("no console interrupts: the I/O APIC cannot be reached");
  }
  obey(console.poll());
}

// ---- the event loop ------------------------------------------------------------------------------

/** One turn. Answers until when this CPU may sleep, 0 for not at all. Called by the host. */
export function step(): u64 {
  if (!running || events.isEnded()) return NEVER;
  const start = machine.tsc();
  listen();
  pair.disarm();
  const worked = runner.step(start);
  if (worked) account(start);
  if (pair.isBroken()) recover();
  if (start >= stackDeadline || stack.listens) stackDeadline = stack.poll(start);
  if (!announced && stack.ready) announce();
  if (start >= statsDeadline) {
    statsDeadline = deadlineIn(config.stats * SECOND_US);
    stats.print(device, pair, stack);
  }
  if (runner.done) end("done");
  if (events.isEnded()) return NEVER;
  return rest(worked);
}

/** Console lines and configuration changes; each costs one comparison when there is nothing. */
function listen(): void {
  if (consoleVector != NO_VECTOR) {
    const count = machine.interruptCount(consoleVector);
    if (count != consoleInterrupts) {
      consoleInterrupts = count;
      obeyAll();
    }
  }
  if (device.hasConfigInterrupt()) {
    const recoveries = device.recoveries;
    const wasUp = device.linkUp;
    device.handleConfigChange();
    if (device.recoveries != recoveries) runner.restart();
    if (device.linkUp && !wasUp) stack.announce();
  }
}

/** Time spent on work, for both directions: their packets are handled in one go. */
function account(start: u64): void {
  const cycles = machine.tsc() - start;
  pair.rx.statistics.polls++;
  pair.rx.statistics.cycles += cycles;
  pair.tx.statistics.polls++;
  pair.tx.statistics.cycles += cycles;
}

/** The queues went wrong: only a reset of the device helps, and then everything begins anew. */
function recover(): void {
  device.recover(pair.faultMessage());
  if (!events.isEnded()) runner.restart();
}

/** How long to sleep: not while there is work, nor in poll mode, nor if packets just came. */
function rest(worked: bool): u64 {
  if (config.mode == config.Mode.Poll) return 0;
  if (worked && config.mode == config.Mode.Adaptive) return 0;
  if (pair.arm()) return 0;
  const deadline = min(min(runner.deadline(), stackDeadline), statsDeadline);
  return pair.rxVector == NO_VECTOR ? min(deadline, deadlineIn(POLL_US)) : deadline;
}

// ---- events and commands -------------------------------------------------------------------------

function announce(): void {
  announced = true;
  events.begin("ready");
  events.num("nic", device.index);
  events.mac("mac", device.mac);
  events.ip("ip", stack.ip);
  events.num("prefix", stack.prefix);
  events.num("mtu", device.mtu);
  events.num("queues", 1);
  events.text("ring", "split");
  events.text("mode", config.modeName());
  events.text("app", config.appName());
  events.num("rx_size", pair.rx.ring.size);
  events.num("tx_size", pair.tx.ring.size);
  events.end();
}

/** Lines typed so far; bounded by what the console holds, which is a few bytes at a time. */
function obeyAll(): void {
  let command = console.poll();
  while (command != console.Command.None && !events.isEnded()) {
    obey(command);
    command = console.poll();
  }
}

function obey(command: console.Command): void {
  if (command == console.Command.Stats) stats.print(device, pair, stack);
  else if (command == console.Command.Help) console.printHelp();
  else if (command == console.Command.Exit) end("exit was asked for on the console");
}

function end(message: string): void {
  stats.print(device, pair, stack);
  events.finish(message);
}
