/**
 * All NICs, on CPU 0: found on the buses in their order and numbered from 0, brought up, attended
 * to in each turn, and reported. Called by main.ts.
 */
import * as acpi from "./acpi";
import * as config from "./config";
import * as configChecks from "./config-checks";
import * as crew from "./crew";
import * as events from "./events";
import * as forward from "./nics-forward";
import * as hotplug from "./hotplug";
import * as lanes from "./lanes";
import * as machine from "./machine";
import * as stats from "./stats";
import { Nic } from "./nic";
import { NEVER } from "./time";
import { NO_FUNCTION, nextFunction } from "../drivers/pci/bus";
import { setBarWindow } from "../drivers/pci/bar-window";
import { PciFunction } from "../drivers/pci/function";
import { useEcam } from "../drivers/pci/config-space";
import { NetDevice, isNetDevice } from "../drivers/net/device";
import { printLink } from "../drivers/net/device-report";

const table = new StaticArray<Nic>(config.NICS_MAX);
export let count: u32 = 0;

/** `index` is below `count`. */
export function get(index: u32): Nic {
  return unchecked(table[index]);
}

// ---- boot ---------------------------------------------------------------------------------------

/** Finds the devices and brings them up. False when the run is over, after an event that says why. */
export function bringUp(leftOut: u64): bool {
  if (!findAll(leftOut)) return false;
  if (!configChecks.checkNics(count)) {
    events.giveUp("the command line is wrong");
    return false;
  }
  const problem = config.app == config.App.Forward ? forward.bringUp(count) : bringUpAll();
  if (problem != null) {
    events.fatal(problem);
    return false;
  }
  crew.sealAll();
  return true;
}

function findAll(leftOut: u64): bool {
  useEcam(acpi.ecamBase);
  setBarWindow(acpi.ecamBase, machine.memoryEnd());
  const mustPack = config.ring == config.Ring.Packed;
  const polling = config.mode == config.Mode.Poll;
  for (let bdf = nextFunction(NO_FUNCTION); bdf != NO_FUNCTION; bdf = nextFunction(bdf)) {
    const pci = new PciFunction(bdf);
    if (!isNetDevice(pci)) continue;
    if (count == config.NICS_MAX) {
      events.fatal("more than 6 virtio-net devices on the PCI buses");
      return false;
    }
    const apicId = unchecked(acpi.apicIds[0]);
    const device = new NetDevice(count, pci, leftOut, mustPack, polling, apicId);
    unchecked((table[count] = new Nic(device, config.nic(count))));
    count++;
  }
  if (count != 0) return true;
  events.fatal("no virtio-net device on the PCI buses");
  return false;
}

function bringUpAll(): string | null {
  for (let i: u32 = 0; i < count; i++) {
    const nic = get(i);
    nic.device.shares = count - i;
    const problem = nic.bringUp();
    if (problem != null) return problem;
  }
  return null;
}

/** The first `link` event of each. */
export function printLinks(): void {
  for (let i: u32 = 0; i < count; i++) {
    const device = get(i).device;
    printLink(device.link, device.accepted);
  }
}

// ---- the event loop -----------------------------------------------------------------------------

/** What devices and other CPUs have for us; answers when to look again at the latest. */
export function attend(start: u64): u64 {
  let deadline = hotplug.deadline;
  if (start >= deadline) deadline = hotplug.look();
  for (let i: u32 = 0; i < count; i++) {
    const nic = get(i);
    if (nic.present) deadline = min(deadline, attendTo(nic, start));
  }
  return deadline;
}

/** A few comparisons when there is nothing. */
function attendTo(nic: Nic, start: u64): u64 {
  const lane = nic.lane;
  if (lane.pair.isBroken()) nic.heal(0, lane.pair.fault());
  if (nic.present) nic.attend();
  const others = nic.crew;
  if (others.lanes > 1 && nic.present) {
    others.receiveFrames(lane.stack);
    const fault = others.takeFault();
    if (fault != 0) nic.heal(others.faultyCpu, fault);
  }
  if (!nic.present) return NEVER;
  if (start >= nic.stackDeadline || lane.stack.listens) nic.stackDeadline = lane.stack.poll(start);
  // After the timers: an address that has just become ours, or is no longer, is every lane's.
  others.publish(lane.stack, nic.device.link.linkUp);
  if (!nic.readyPrinted && lane.stack.ready) announce(nic);
  return min(nic.stackDeadline, nic.control.deadline);
}

/** Whether the app has come to its end on all of them; one that is not there has not. */
export function areDone(): bool {
  for (let i: u32 = 0; i < count; i++) {
    const nic = get(i);
    if (!nic.lane.runner.done || !nic.crew.isDone()) return false;
  }
  return true;
}

// ---- events -------------------------------------------------------------------------------------

function announce(nic: Nic): void {
  nic.readyPrinted = true;
  const lane = nic.lane;
  const link = nic.device.link;
  events.begin("ready");
  events.num("nic", link.index);
  events.mac("mac", link.mac);
  events.ip("ip", lane.stack.ip);
  events.num("prefix", lane.stack.prefix);
  events.num("mtu", link.mtu);
  events.num("queues", nic.crew.lanes);
  events.text("ring", nic.device.setup.packed != 0 ? "packed" : "split");
  events.text("mode", config.modeName());
  events.text("app", config.appName());
  events.num("rx_size", lane.pair.rx.ring.size);
  events.num("tx_size", lane.pair.tx.ring.size);
  events.end();
}

export function printStatistics(): void {
  for (let i: u32 = 0; i < count; i++) stats.print(get(i));
}
