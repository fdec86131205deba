/**
 * CPU 0's side of the lanes that other CPUs run: it tells them by mail to make their queue pairs,
 * to start and to stop, gathers what they counted, and publishes addresses to them. Called by
 * main.ts. worker.ts is the other side.
 *
 * Lane i of the NIC belongs to CPU i; CPU 0's own lane is main.ts's business.
 */
import * as acpi from "./acpi";
import * as machine from "./machine";
import * as mail from "./mail";
import { Stack } from "./net/stack";
import * as mirror6 from "./net/mirror6";
import { deadlineIn } from "./time";
import { Packet } from "../drivers/net/packet";
import {
  PAIR_RINGS_WORDS,
  PAIR_SETUP_WORDS,
  PairRings,
  PairSetup,
} from "../drivers/net/pair-setup";

/** How long a CPU may take for a command, in microseconds; the host may be busy with others. */
const ANSWER_US: u64 = 5000000;

const ARGUMENT_LANES: u32 = 0;
const ARGUMENT_SETUP: u32 = 1;
const ARGUMENT_QUEUE: u32 = 0;

/** Lanes in all; those of other CPUs are 1 to lanes - 1. */
export let lanes: u32 = 1;
/** Those of them that the device uses now, the first ones; the others are paused. */
export let active: u32 = 1;

export function setLanes(count: u32): void {
  lanes = count;
  setActive(count);
}

export function setActive(count: u32): void {
  active = count;
  mail.setState(mail.State.Active, count);
}

function apicId(cpu: u32): u32 {
  return unchecked(acpi.apicIds[cpu]);
}

/** Sends a command and wakes the CPU. */
function order(cpu: u32, command: mail.Command): void {
  // One command at a time: `turn` does not wait for the answer.
  finished(cpu);
  mail.send(cpu, command);
  machine.wake(apicId(cpu));
}

/** Waits for a CPU's answer; false if it does not come in time. */
function finished(cpu: u32): bool {
  const deadline = deadlineIn(ANSWER_US);
  while (!mail.isAnswered(cpu)) {
    if (machine.tsc() > deadline) return false;
    machine.pause();
  }
  return true;
}

function writeSetup(cpu: u32, setup: PairSetup): void {
  mail.setArgument(cpu, ARGUMENT_LANES, lanes);
  for (let i: u32 = 0; i < PAIR_SETUP_WORDS; i++) {
    mail.setArgument(cpu, ARGUMENT_SETUP + i, load<u32>(changetype<usize>(setup) + (i << 2)));
  }
}

/** Has a CPU make or empty its pair; fills in where its rings are. False if it does not answer. */
export function setUp(cpu: u32, setup: PairSetup, rings: PairRings): bool {
  writeSetup(cpu, setup);
  order(cpu, mail.Command.SetUp);
  return readRings(cpu, rings);
}

function readRings(cpu: u32, rings: PairRings): bool {
  if (!finished(cpu)) return false;
  for (let i: u32 = 0; i < PAIR_RINGS_WORDS; i++) {
    store<u32>(changetype<usize>(rings) + (i << 2), mail.result(cpu, i));
  }
  return true;
}

/** Has a CPU empty the receive queue (0) or transmit queue (1) of its pair, which was reset. */
export function renew(cpu: u32, queue: u32, rings: PairRings): bool {
  mail.setArgument(cpu, ARGUMENT_QUEUE, queue);
  order(cpu, mail.Command.Renew);
  return readRings(cpu, rings);
}

/** Lets it go on after `renew`, once the device has the queue. */
export function resume(cpu: u32): bool {
  order(cpu, mail.Command.Resume);
  return finished(cpu);
}

/** Lets a CPU begin; its setup has the notification addresses now. */
export function start(cpu: u32, setup: PairSetup): bool {
  writeSetup(cpu, setup);
  order(cpu, mail.Command.Start);
  return finished(cpu);
}

/** Has lanes pause and run so that the first `count` run. `isTurned` says when they do. */
export function turn(count: u32): void {
  mail.setState(mail.State.Active, count);
  for (let cpu: u32 = 1; cpu < lanes; cpu++) order(cpu, mail.Command.Turn);
}

export function isTurned(): bool {
  for (let cpu: u32 = 1; cpu < lanes; cpu++) if (!mail.isAnswered(cpu)) return false;
  return true;
}

/** What the lanes from `first` on, which are paused, have yet to send of a source's count. */
export function takeShares(first: u32): u64 {
  let frames: u64 = 0;
  for (let cpu = max<u32>(first, 1); cpu < lanes; cpu++) {
    order(cpu, mail.Command.Yield);
    if (finished(cpu)) frames += mail.result64(cpu, 0);
  }
  return frames;
}

/** Keeps one CPU away from its rings, until `resume`. False if it does not answer. */
export function stop(cpu: u32): bool {
  order(cpu, mail.Command.Stop);
  return finished(cpu);
}

/** Keeps all other CPUs away from their rings. False if one does not answer. */
export function stopAll(): bool {
  for (let cpu: u32 = 1; cpu < lanes; cpu++) order(cpu, mail.Command.Stop);
  for (let cpu: u32 = 1; cpu < lanes; cpu++) if (!finished(cpu)) return false;
  return true;
}

/** Has all other CPUs publish what they counted. One that does not is reported as it was. */
export function gatherStatistics(): void {
  for (let cpu: u32 = 1; cpu < lanes; cpu++) order(cpu, mail.Command.Report);
  for (let cpu: u32 = 1; cpu < lanes; cpu++) finished(cpu);
}

/** Whether the apps of all other CPUs that run have come to their end. */
export function isDone(): bool {
  for (let cpu: u32 = 1; cpu < active; cpu++) if (!mail.isDone(cpu)) return false;
  return true;
}

/** The device is being reset: what other CPUs found until now is over. */
export function forgetFaults(): void {
  for (let cpu: u32 = 1; cpu < lanes; cpu++) mail.takeBroken(cpu);
}

/** Whose fault `takeFault` answered. */
export let faultyCpu: u32 = 0;

/** A fault that another CPU found in its queue pair, once; 0 for none. */
export function takeFault(): u32 {
  for (let cpu: u32 = 1; cpu < lanes; cpu++) {
    const fault = mail.takeBroken(cpu);
    if (fault == 0) continue;
    faultyCpu = cpu;
    return fault;
  }
  return 0;
}

/** Our own Ethernet address, before any lane starts. */
export function publishAddress(mac: usize): void {
  mail.setState(mail.State.MacLow, load<u32>(mac));
  mail.setState(mail.State.MacHigh, load<u16>(mac, 4));
}

/** Publishes link and addresses, and wakes everybody, if anything has changed. */
export function publish(stack: Stack, linkUp: bool): void {
  if (lanes == 1) return;
  const mac = stack.net.link.mac;
  let changed = change(mail.State.Ip, stack.ip);
  changed = change(mail.State.Prefix, stack.prefix) || changed;
  changed = change(mail.State.Gateway, stack.gateway) || changed;
  changed = change(mail.State.Configuring, stack.net.configuring ? 1 : 0) || changed;
  changed = change(mail.State.LinkUp, linkUp ? 1 : 0) || changed;
  changed = change(mail.State.MacLow, load<u32>(mac)) || changed;
  changed = change(mail.State.MacHigh, load<u16>(mac, 4)) || changed;
  changed = mirror6.publish(stack.net.six) || changed;
  const hop = stack.hopMac;
  if (hop != 0) {
    changed = change(mail.State.HopMacLow, load<u32>(hop)) || changed;
    changed = change(mail.State.HopMacHigh, load<u16>(hop, 4)) || changed;
    changed = change(mail.State.HopKnown, 1) || changed;
  }
  if (!changed) return;
  machine.release();
  mail.setState(mail.State.Sequence, mail.state(mail.State.Sequence) + 1);
  for (let cpu: u32 = 1; cpu < lanes; cpu++) machine.wake(apicId(cpu));
}

function change(item: mail.State, value: u32): bool {
  if (mail.state(item) == value) return false;
  mail.setState(item, value);
  return true;
}

/** Hands frames that other CPUs left (see relay.ts) to CPU 0's stack. */
export function receiveFrames(stack: Stack): void {
  for (let cpu: u32 = 1; cpu < lanes; cpu++) {
    if (!mail.hasFrame(cpu)) continue;
    const packet: Packet | null = stack.net.pair.pool.take();
    if (packet == null) return;
    const bytes = mail.fetchFrame(cpu, packet.data);
    packet.length = bytes;
    packet.total = bytes;
    if (!stack.receive(packet) || !stack.net.pair.send(packet)) stack.net.pair.pool.release(packet);
  }
}
