/**
 * CPU 0's side of the lanes that other CPUs run for one NIC: it tells them by mail to make their
 * queue pairs, to start and to stop, gathers what they counted, and publishes addresses to them.
 * Made by nic.ts. worker.ts is the other side.
 *
 * Lane i of a NIC belongs to CPU i; CPU 0's own lane is nic.ts's business.
 */
import * as acpi from "./acpi";
import * as cpus from "./cpus";
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

function apicId(cpu: u32): u32 {
  return unchecked(acpi.apicIds[cpu]);
}

/** Sends a command about a NIC and wakes the CPU. */
function order(cpu: u32, nic: u32, command: mail.Command): void {
  // One command at a time: `turn` does not wait for the answer.
  finished(cpu);
  mail.send(cpu, nic, command);
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

/** Tells all other CPUs that their lanes are made. */
export function sealAll(): void {
  for (let cpu: u32 = 1; cpu < cpus.started(); cpu++) order(cpu, 0, mail.Command.Seal);
}

/** What a CPU answers to SetUp and Renew. False if it does not. */
function readRings(cpu: u32, rings: PairRings): bool {
  if (!finished(cpu)) return false;
  for (let i: u32 = 0; i < PAIR_RINGS_WORDS; i++) {
    store<u32>(changetype<usize>(rings) + (i << 2), mail.result(cpu, i));
  }
  return true;
}

export class Crew {
  /** Lanes in all; those of other CPUs are 1 to lanes - 1. */
  lanes: u32 = 1;
  /** Those of them that the device uses now, the first ones; the others are paused. */
  active: u32 = 1;
  /** Whose fault `takeFault` answered. */
  faultyCpu: u32 = 0;

  /** `nic`: the number of the NIC. */
  constructor(private readonly nic: u32) {}

  setLanes(count: u32): void {
    this.lanes = count;
    this.setActive(count);
  }

  setActive(count: u32): void {
    this.active = count;
    mail.setNicState(this.nic, mail.NicState.Active, count);
  }

  // ---- commands ---------------------------------------------------------------------------------

  private writeSetup(cpu: u32, setup: PairSetup): void {
    mail.setArgument(cpu, ARGUMENT_LANES, this.lanes);
    for (let i: u32 = 0; i < PAIR_SETUP_WORDS; i++) {
      const value = load<u32>(changetype<usize>(setup) + (i << 2));
      mail.setArgument(cpu, ARGUMENT_SETUP + i, value);
    }
  }

  /**
   * Has a CPU make or empty its pair; fills in where its rings are. False if it does not answer.
   */
  setUp(cpu: u32, setup: PairSetup, rings: PairRings): bool {
    this.writeSetup(cpu, setup);
    order(cpu, this.nic, mail.Command.SetUp);
    return readRings(cpu, rings);
  }

  /** Has a CPU empty the receive queue (0) or transmit queue (1) of its pair, which was reset. */
  renew(cpu: u32, queue: u32, rings: PairRings): bool {
    mail.setArgument(cpu, ARGUMENT_QUEUE, queue);
    order(cpu, this.nic, mail.Command.Renew);
    return readRings(cpu, rings);
  }

  /** Lets it go on after `renew`, once the device has the queue. */
  resume(cpu: u32): bool {
    order(cpu, this.nic, mail.Command.Resume);
    return finished(cpu);
  }

  /** Lets a CPU begin; its setup has the notification addresses now. */
  start(cpu: u32, setup: PairSetup): bool {
    this.writeSetup(cpu, setup);
    order(cpu, this.nic, mail.Command.Start);
    return finished(cpu);
  }

  /** Has lanes pause and run so that the first `count` run. `isTurned` says when they do. */
  turn(count: u32): void {
    mail.setNicState(this.nic, mail.NicState.Active, count);
    for (let cpu: u32 = 1; cpu < this.lanes; cpu++) order(cpu, this.nic, mail.Command.Turn);
  }

  isTurned(): bool {
    for (let cpu: u32 = 1; cpu < this.lanes; cpu++) if (!mail.isAnswered(cpu)) return false;
    return true;
  }

  /** What the lanes from `first` on, which are paused, have yet to send of a source's count. */
  takeShares(first: u32): u64 {
    let frames: u64 = 0;
    for (let cpu = max<u32>(first, 1); cpu < this.lanes; cpu++) {
      order(cpu, this.nic, mail.Command.Yield);
      if (finished(cpu)) frames += mail.result64(cpu, 0);
    }
    return frames;
  }

  /** Keeps one CPU away from its rings, until `resume`. False if it does not answer. */
  stop(cpu: u32): bool {
    order(cpu, this.nic, mail.Command.Stop);
    return finished(cpu);
  }

  /** Keeps all other CPUs away from their rings. False if one does not answer. */
  stopAll(): bool {
    return this.orderAll(mail.Command.Stop);
  }

  /** Has them stop, and take back all packets that the device had, for it is gone. */
  emptyAll(): bool {
    return this.orderAll(mail.Command.Empty);
  }

  private orderAll(command: mail.Command): bool {
    for (let cpu: u32 = 1; cpu < this.lanes; cpu++) order(cpu, this.nic, command);
    let all: bool = true;
    for (let cpu: u32 = 1; cpu < this.lanes; cpu++) all = finished(cpu) && all;
    return all;
  }

  /** Has all other CPUs publish what they counted. One that does not is reported as it was. */
  gatherStatistics(): void {
    this.orderAll(mail.Command.Report);
  }

  // ---- what they report -------------------------------------------------------------------------

  /** Whether the apps of all other CPUs that run have come to their end. */
  isDone(): bool {
    for (let cpu: u32 = 1; cpu < this.active; cpu++) if (!mail.isDone(cpu, this.nic)) return false;
    return true;
  }

  /** The device is being reset: what other CPUs found until now is over. */
  forgetFaults(): void {
    for (let cpu: u32 = 1; cpu < this.lanes; cpu++) mail.takeBroken(cpu, this.nic);
  }

  /** A fault that another CPU found in its queue pair, once; 0 for none. */
  takeFault(): u32 {
    for (let cpu: u32 = 1; cpu < this.lanes; cpu++) {
      const fault = mail.takeBroken(cpu, this.nic);
      if (fault == 0) continue;
      this.faultyCpu = cpu;
      return fault;
    }
    return 0;
  }

  /** Hands frames that other CPUs left (see relay.ts) to CPU 0's stack. */
  receiveFrames(stack: Stack): void {
    for (let cpu: u32 = 1; cpu < this.lanes; cpu++) {
      if (!mail.hasFrame(cpu, this.nic)) continue;
      const packet: Packet | null = stack.net.pair.pool.take();
      if (packet == null) return;
      const bytes = mail.fetchFrame(cpu, packet.data);
      packet.length = bytes;
      packet.total = bytes;
      const pair = stack.net.pair;
      if (!stack.receive(packet) || !pair.send(packet)) pair.pool.release(packet);
    }
  }

  // ---- addresses --------------------------------------------------------------------------------

  /** Our own Ethernet address, before any lane starts. */
  publishAddress(mac: usize): void {
    mail.setNicState(this.nic, mail.NicState.MacLow, load<u32>(mac));
    mail.setNicState(this.nic, mail.NicState.MacHigh, load<u16>(mac, 4));
  }

  /** Publishes link and addresses, and wakes everybody, if anything has changed. */
  publish(stack: Stack, linkUp: bool): void {
    if (this.lanes == 1) return;
    const mac = stack.net.link.mac;
    let changed = this.change(mail.NicState.Ip, stack.ip);
    changed = this.change(mail.NicState.Prefix, stack.prefix) || changed;
    changed = this.change(mail.NicState.Gateway, stack.gateway) || changed;
    changed = this.change(mail.NicState.Configuring, stack.net.configuring ? 1 : 0) || changed;
    changed = this.change(mail.NicState.LinkUp, linkUp ? 1 : 0) || changed;
    changed = this.change(mail.NicState.MacLow, load<u32>(mac)) || changed;
    changed = this.change(mail.NicState.MacHigh, load<u16>(mac, 4)) || changed;
    changed = mirror6.publish(this.nic, stack.net.six) || changed;
    const hop = stack.hopMac;
    if (hop != 0) {
      changed = this.change(mail.NicState.HopMacLow, load<u32>(hop)) || changed;
      changed = this.change(mail.NicState.HopMacHigh, load<u16>(hop, 4)) || changed;
      changed = this.change(mail.NicState.HopKnown, 1) || changed;
    }
    if (!changed) return;
    machine.release();
    const sequence = mail.nicState(this.nic, mail.NicState.Sequence);
    mail.setNicState(this.nic, mail.NicState.Sequence, sequence + 1);
    for (let cpu: u32 = 1; cpu < this.lanes; cpu++) machine.wake(apicId(cpu));
  }

  private change(item: mail.NicState, value: u32): bool {
    if (mail.nicState(this.nic, item) == value) return false;
    mail.setNicState(this.nic, item, value);
    return true;
  }
}
