/**
 * The kernel: boot, and one turn of the event loop after the other. The host calls `boot` once and
 * `step` for ever, on every CPU (machine.ts). CPU 0 owns the device and the first lane; the others
 * run a lane each (worker.ts).
 *
 *   boot: command line -> memory -> other CPUs -> PCI -> device -> lanes
 *   step: console, configuration, mail -> lane (receive, answer, send) -> timers -> sleep
 */
import * as acpi from "./acpi";
import * as config from "./config";
import * as console from "./console";
import * as cpus from "./cpus";
import * as crew from "./crew";
import * as events from "./events";
import * as machine from "./machine";
import * as stats from "./stats";
import * as worker from "./worker";
import { NO_VECTOR, allocateVector, routeLine } from "./interrupts";
import { Lane } from "./lane";
import { seal } from "./memory/arena";
import { Nic } from "./nic";
import { NEVER, deadlineIn } from "./time";
import { NO_FUNCTION, nextFunction } from "../drivers/pci/bus";
import { setBarWindow } from "../drivers/pci/bar-window";
import { PciFunction } from "../drivers/pci/function";
import { useEcam } from "../drivers/pci/config-space";
import { NetDevice, isNetDevice } from "../drivers/net/device";
import { printLink } from "../drivers/net/device-report";
import { RING_PACKED, featureName } from "../drivers/virtio/features";
export { abort } from "./check";

const SECOND_US: u64 = 1000000;

/** All of this is set when `running` is. */
let nic: Nic = changetype<Nic>(0);
let lane: Lane = changetype<Lane>(0);
let running: bool = false;

let announced: bool = false;
let stackDeadline: u64 = 0;
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
  if (!config.parse()) {
    events.giveUp("the command line is wrong");
    return;
  }
  config.warnUnused();
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
  let leftOut = featuresLeftOut();
  if (events.isEnded()) return;
  if (config.ring == config.Ring.Split) leftOut |= (<u64>1) << RING_PACKED;
  const pci = findDevice();
  if (pci == null) {
    events.fatal("no virtio-net device on the PCI buses");
    return;
  }
  const polling = config.mode == config.Mode.Poll;
  const mustPack = config.ring == config.Ring.Packed;
  const device = new NetDevice(0, pci, leftOut, mustPack, polling, unchecked(acpi.apicIds[0]));
  nic = new Nic(device, config.nic(0));
  const problem = nic.bringUp();
  if (problem != null) {
    events.fatal(problem);
    return;
  }
  lane = nic.lane;
  openConsole(unchecked(acpi.apicIds[0]));
  printLink(device.link, device.accepted);
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
  obeyAll();
}

// ---- the event loop -----------------------------------------------------------------------------

/** One turn. Answers until when this CPU may sleep, 0 for not at all. Called by the host. */
export function step(): u64 {
  if (machine.cpuIndex() != 0) return worker.step();
  if (!running || events.isEnded()) return NEVER;
  const start = machine.tsc();
  listen();
  const worked = lane.step(start);
  attend();
  if (start >= stackDeadline || lane.stack.listens) stackDeadline = lane.stack.poll(start);
  // After the timers: an address that has just become ours, or is no longer, is every lane's.
  crew.publish(lane.stack, nic.device.link.linkUp);
  if (!announced && lane.stack.ready) announce();
  if (start >= statsDeadline) {
    statsDeadline = deadlineIn(config.stats * SECOND_US);
    printStatistics();
  }
  if (lane.runner.done && crew.isDone()) end("done");
  if (events.isEnded()) return NEVER;
  if (console.more) return 0;
  return lane.rest(worked, min(min(stackDeadline, statsDeadline), nic.control.deadline));
}

/** Console lines: one comparison when there is none. */
function listen(): void {
  if (consoleVector == NO_VECTOR) return;
  const count = machine.interruptCount(consoleVector);
  if (count == consoleInterrupts && !console.more) return;
  consoleInterrupts = count;
  obeyAll();
}

/** What the device and the other CPUs have for us; a few comparisons when that is nothing. */
function attend(): void {
  if (lane.pair.isBroken()) nic.heal(0, lane.pair.fault());
  nic.attend();
  if (crew.lanes == 1) return;
  crew.receiveFrames(lane.stack);
  const fault = crew.takeFault();
  if (fault != 0) nic.heal(crew.faultyCpu, fault);
}

// ---- events and commands ------------------------------------------------------------------------

function announce(): void {
  announced = true;
  const stack = lane.stack;
  events.begin("ready");
  events.num("nic", nic.device.link.index);
  events.mac("mac", nic.device.link.mac);
  events.ip("ip", stack.ip);
  events.num("prefix", stack.prefix);
  events.num("mtu", nic.device.link.mtu);
  events.num("queues", crew.lanes);
  events.text("ring", nic.device.setup.packed != 0 ? "packed" : "split");
  events.text("mode", config.modeName());
  events.text("app", config.appName());
  events.num("rx_size", lane.pair.rx.ring.size);
  events.num("tx_size", lane.pair.tx.ring.size);
  events.end();
}

function printStatistics(): void {
  stats.print(nic.device.link.index, lane, nic.recoveries, nic.queueResets);
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
  if (command == console.Command.Stats) printStatistics();
  else if (command == console.Command.Help) console.printHelp(nic.device.accepted);
  else if (command == console.Command.Exit) end("exit was asked for on the console");
  else if (!nic.control.take(console.line, console.length)) console.reject();
}

function end(message: string): void {
  printStatistics();
  events.finish(message);
}
