/**
 * What every CPU but the first does: it takes commands from CPU 0 by mail, makes a queue pair when
 * it is told to, and runs it. Called by main.ts. crew.ts is the other side.
 */
import * as config from "./config";
import * as cpus from "./cpus";
import * as machine from "./machine";
import * as mail from "./mail";
import * as stats from "./stats";
import { Lane } from "./lane";
import { seal } from "./memory/arena";
import * as mirror6 from "./net/mirror6";
import { NEVER } from "./time";
import { Link } from "../drivers/net/link";
import { BURST_MAX } from "../drivers/net/packet";
import {
  PAIR_RINGS_WORDS,
  PAIR_SETUP_WORDS,
  PairRings,
  PairSetup,
} from "../drivers/net/pair-setup";

/** Argument 0 is the number of lanes, then comes the pair's setup. */
const ARGUMENT_LANES: u32 = 0;
const ARGUMENT_SETUP: u32 = 1;
const ARGUMENT_QUEUE: u32 = 0;

let cpu: u32 = 0;
let lane: Lane | null = null;
let link: Link = changetype<Link>(0);
let setup: PairSetup = changetype<PairSetup>(0);
let rings: PairRings = changetype<PairRings>(0);
/** Whether the device runs, and whether this lane is one of those that it uses. */
let started: bool = false;
let running: bool = false;
let sequence: u32 = 0;
let saidDone: bool = false;

export function boot(): void {
  cpu = machine.cpuIndex();
  cpus.join();
  link = new Link(0);
  setup = new PairSetup();
  rings = new PairRings();
}

/** One turn; answers until when this CPU may sleep. */
export function step(): u64 {
  const command = mail.pending(cpu);
  if (command != mail.Command.None) obey(command);
  const current = lane;
  if (!running || current == null) return NEVER;
  if (mail.state(mail.State.Sequence) != sequence) adopt(current);
  const start = machine.tsc();
  const worked = current.step(start);
  if (current.pair.isBroken()) {
    // CPU 0 looks at the rings' state when it is woken, and resets the device.
    running = false;
    started = false;
    mail.setBroken(cpu, current.pair.fault());
    machine.wake(mail.state(mail.State.ApicId));
    return NEVER;
  }
  const deadline = current.stack.poll(start);
  if (current.runner.done && !saidDone) {
    saidDone = true;
    mail.setDone(cpu);
    machine.wake(mail.state(mail.State.ApicId));
  }
  return current.rest(worked, deadline);
}

function obey(command: mail.Command): void {
  if (command == mail.Command.SetUp) setUp();
  else if (command == mail.Command.Start) start();
  else if (command == mail.Command.Stop) stop();
  else if (command == mail.Command.Turn) turn();
  else if (command == mail.Command.Report) report();
  else if (command == mail.Command.Yield) yieldShare();
  else if (command == mail.Command.Renew) renew();
  else if (command == mail.Command.Resume) resume();
  mail.answer(cpu);
}

/** Makes the pair the first time, and empties it every time. */
function setUp(): void {
  for (let i: u32 = 0; i < PAIR_SETUP_WORDS; i++) {
    store<u32>(changetype<usize>(setup) + (i << 2), mail.argument(cpu, ARGUMENT_SETUP + i));
  }
  store<u32>(link.mac, setup.macLow);
  store<u16>(link.mac, <u16>setup.macHigh, 4);
  link.mtu = setup.mtu;
  let current = lane;
  if (current == null) {
    // CPU 0 has read the same words and found them right.
    config.parse();
    const lanes = mail.argument(cpu, ARGUMENT_LANES);
    current = new Lane(link, setup, new config.NicConfig(), cpu, lanes);
    lane = current;
    seal();
  }
  current.pair.renew(setup);
  answerRings(current);
}

function answerRings(current: Lane): void {
  current.pair.describe(rings);
  for (let i: u32 = 0; i < PAIR_RINGS_WORDS; i++) {
    mail.setResult(cpu, i, load<u32>(changetype<usize>(rings) + (i << 2)));
  }
}

/** Queue 0 of the pair receives, queue 1 transmits. */
function renew(): void {
  const current = lane;
  if (current == null) return;
  current.pair.renewQueue(mail.argument(cpu, ARGUMENT_QUEUE) == 0);
  answerRings(current);
}

function resume(): void {
  const current = lane;
  if (current == null) return;
  started = true;
  turn();
  if (mail.argument(cpu, ARGUMENT_QUEUE) == 0) current.pair.refill();
}

function start(): void {
  const current = lane;
  if (current == null) return;
  for (let i: u32 = 0; i < PAIR_SETUP_WORDS; i++) {
    store<u32>(changetype<usize>(setup) + (i << 2), mail.argument(cpu, ARGUMENT_SETUP + i));
  }
  current.runner.restart();
  adopt(current);
  started = true;
  turn();
  current.pair.start(setup);
}

function stop(): void {
  started = false;
  running = false;
}

/** Paused, everything stays as it is: rings, packets in hand, and what the device still sends. */
function turn(): void {
  const ran = running;
  running = started && cpu < mail.state(mail.State.Active);
  const current = lane;
  if (ran && !running && current != null) drain(current);
}

/** Answers what had come in before: afterwards nothing may be sent on this queue. */
function drain(current: Lane): void {
  if (config.app != config.App.Echo) return;
  let left: u32 = 1 + current.pair.rx.ring.size / BURST_MAX;
  while (left > 0 && current.step(machine.tsc())) left--;
}

function yieldShare(): void {
  const current = lane;
  if (current != null) mail.setResult64(cpu, 0, current.runner.yieldShare());
}

/** Takes over what CPU 0 published of link and addresses. */
function adopt(current: Lane): void {
  sequence = mail.state(mail.State.Sequence);
  machine.acquire();
  link.linkUp = mail.state(mail.State.LinkUp) != 0;
  const low = mail.state(mail.State.MacLow);
  const high = mail.state(mail.State.MacHigh);
  link.renamed = link.renamed || low != load<u32>(link.mac) || high != load<u16>(link.mac, 4);
  store<u32>(link.mac, low);
  store<u16>(link.mac, <u16>high, 4);
  current.stack.mirror(
    mail.state(mail.State.Ip),
    mail.state(mail.State.Prefix),
    mail.state(mail.State.Gateway),
    mail.state(mail.State.Configuring) != 0,
  );
  mirror6.adopt(current.stack.net.six);
  if (mail.state(mail.State.HopKnown) != 0) {
    current.stack.mirrorHop(mail.state(mail.State.HopMacLow), mail.state(mail.State.HopMacHigh));
  }
}

function report(): void {
  const current = lane;
  if (current != null) stats.publish(cpu, current);
}
