/**
 * What every CPU but the first does: it takes commands from CPU 0 by mail, makes queue pairs when
 * it is told to, one a NIC at most, and runs them. Called by main.ts. crew.ts is the other side.
 */
import * as commandLine from "./command-line";
import * as config from "./config";
import * as configChecks from "./config-checks";
import * as cpus from "./cpus";
import * as lanes from "./lanes";
import * as machine from "./machine";
import * as mail from "./mail";
import * as stats from "./stats";
import { Lane } from "./lane";
import { seal } from "./memory/arena";
import * as mirror6 from "./net/mirror6";
import { NEVER, deadlineIn } from "./time";
import { Link } from "../drivers/net/link";
import { BURST_MAX } from "../drivers/net/packet";
import {
  PAIR_RINGS_WORDS,
  PAIR_SETUP_WORDS,
  PairRings,
  PairSetup,
} from "../drivers/net/pair-setup";
import { TxQueue } from "../drivers/net/tx-queue";

/** Argument 0 is the number of lanes, then comes the pair's setup. */
const ARGUMENT_LANES: u32 = 0;
const ARGUMENT_SETUP: u32 = 1;
const ARGUMENT_QUEUE: u32 = 0;

/** How long a lane that is paused waits for the device to send what it has. */
const SENDING_US: u64 = 10_000;

/** What this CPU has of one NIC, from its first set-up on. */
class Post {
  readonly link: Link;
  /** Whether the device runs; the lane runs if the device uses it as well. */
  started: bool = false;
  sequence: u32 = 0;
  saidDone: bool = false;

  constructor(
    readonly nic: u32,
    readonly lane: Lane,
  ) {
    this.link = lane.link;
  }
}

let cpu: u32 = 0;
let setup: PairSetup = changetype<PairSetup>(0);
let rings: PairRings = changetype<PairRings>(0);
const posts = new StaticArray<Post | null>(config.NICS_MAX);

export function boot(): void {
  cpu = machine.cpuIndex();
  cpus.join();
  setup = new PairSetup();
  rings = new PairRings();
}

/** One turn; answers until when this CPU may sleep. */
export function step(): u64 {
  const command = mail.pending(cpu);
  if (command != mail.Command.None) obey(command);
  if (!lanes.anyRuns()) return NEVER;
  for (let nic: u32 = 0; nic < lanes.count; nic++) {
    const post = unchecked(posts[nic]);
    if (post == null || !post.lane.running) continue;
    if (mail.nicState(nic, mail.NicState.Sequence) != post.sequence) adopt(post);
  }
  const start = machine.tsc();
  const worked = lanes.step(start);
  let deadline = NEVER;
  for (let nic: u32 = 0; nic < lanes.count; nic++) {
    const post = unchecked(posts[nic]);
    if (post != null && post.lane.running) deadline = min(deadline, look(post, start));
  }
  return lanes.rest(worked, deadline);
}

/** What there is to do for a lane beside its packets; answers when to do it again. */
function look(post: Post, start: u64): u64 {
  const lane = post.lane;
  if (lane.pair.isBroken()) {
    // CPU 0 looks at the rings' state when it is woken, and resets the device.
    lane.running = false;
    post.started = false;
    mail.setBroken(cpu, post.nic, lane.pair.fault());
    machine.wake(mail.state(mail.State.ApicId));
    return NEVER;
  }
  if (lane.runner.done && !post.saidDone) {
    post.saidDone = true;
    mail.setDone(cpu, post.nic);
    machine.wake(mail.state(mail.State.ApicId));
  }
  return lane.stack.poll(start);
}

function obey(command: mail.Command): void {
  const nic = mail.pendingNic(cpu);
  if (command == mail.Command.SetUp) setUp(nic);
  else if (command == mail.Command.Seal) seal();
  else {
    const post = unchecked(posts[nic]);
    if (post != null) obeyFor(post, command);
  }
  mail.answer(cpu);
}

function obeyFor(post: Post, command: mail.Command): void {
  if (command == mail.Command.Start) start(post);
  else if (command == mail.Command.Turn) turn(post);
  else if (command == mail.Command.Report) stats.publish(cpu, post.lane);
  else if (command == mail.Command.Yield) yieldShare(post);
  else if (command == mail.Command.Renew) renew(post);
  else if (command == mail.Command.Resume) resume(post);
  else {
    post.started = false;
    post.lane.running = false;
    if (command == mail.Command.Empty) post.lane.empty();
  }
}

/** The pair's setup, as CPU 0 sent it. */
function readSetup(): void {
  for (let i: u32 = 0; i < PAIR_SETUP_WORDS; i++) {
    store<u32>(changetype<usize>(setup) + (i << 2), mail.argument(cpu, ARGUMENT_SETUP + i));
  }
}

/** Makes the pair the first time, and empties it every time. */
function setUp(nic: u32): void {
  readSetup();
  const post = postOf(nic);
  const link = post.link;
  store<u32>(link.mac, setup.macLow);
  store<u16>(link.mac, <u16>setup.macHigh, 4);
  link.mtu = setup.mtu;
  post.lane.pair.renew(setup);
  answerRings(post);
}

function answerRings(post: Post): void {
  post.lane.pair.describe(rings);
  for (let i: u32 = 0; i < PAIR_RINGS_WORDS; i++) {
    mail.setResult(cpu, i, load<u32>(changetype<usize>(rings) + (i << 2)));
  }
}

function postOf(nic: u32): Post {
  const known = unchecked(posts[nic]);
  if (known != null) return known;
  // CPU 0 has read the same words and found them right.
  if (lanes.count == 0 && commandLine.parse()) configChecks.checkWords();
  const count = mail.argument(cpu, ARGUMENT_LANES);
  const lane = lanes.make(new Link(nic), setup, new config.NicConfig(), cpu, count);
  const post = new Post(nic, lane);
  unchecked((posts[nic] = post));
  return post;
}

/** Queue 0 of the pair receives, queue 1 transmits. */
function renew(post: Post): void {
  post.lane.pair.renewQueue(mail.argument(cpu, ARGUMENT_QUEUE) == 0);
  answerRings(post);
}

function resume(post: Post): void {
  post.started = true;
  turn(post);
  if (mail.argument(cpu, ARGUMENT_QUEUE) == 0) post.lane.pair.refill();
}

function start(post: Post): void {
  readSetup();
  post.lane.runner.restart();
  adopt(post);
  post.started = true;
  turn(post);
  post.lane.pair.start(setup);
}

/** Paused, the rings stay as they are, and what a device still has after some time. */
function turn(post: Post): void {
  const lane = post.lane;
  const ran = lane.running;
  lane.running = post.started && cpu < mail.nicState(post.nic, mail.NicState.Active);
  if (!ran || lane.running) return;
  drain(lane);
  finishSending(lane.pair.tx);
}

/** Answers what had come in before: afterwards nothing may be sent on this queue. */
function drain(lane: Lane): void {
  if (config.app != config.App.Echo) return;
  let left: u32 = 1 + lane.pair.rx.ring.size / BURST_MAX;
  while (left > 0 && lane.step(machine.tsc())) left--;
}

/** A device may leave alone what is in a queue that it does not use any more. */
function finishSending(tx: TxQueue): void {
  const end = deadlineIn(SENDING_US);
  tx.reclaim(tx.ring.size);
  while (tx.ring.outstanding != 0 && !tx.isBroken() && machine.tsc() < end) {
    machine.pause();
    tx.reclaim(tx.ring.size);
  }
}

function yieldShare(post: Post): void {
  mail.setResult64(cpu, 0, post.lane.runner.yieldShare());
}

/** Takes over what CPU 0 published of link and addresses. */
function adopt(post: Post): void {
  const nic = post.nic;
  const link = post.link;
  const stack = post.lane.stack;
  post.sequence = mail.nicState(nic, mail.NicState.Sequence);
  machine.acquire();
  link.linkUp = mail.nicState(nic, mail.NicState.LinkUp) != 0;
  const low = mail.nicState(nic, mail.NicState.MacLow);
  const high = mail.nicState(nic, mail.NicState.MacHigh);
  link.renamed = link.renamed || low != load<u32>(link.mac) || high != load<u16>(link.mac, 4);
  store<u32>(link.mac, low);
  store<u16>(link.mac, <u16>high, 4);
  stack.mirror(
    mail.nicState(nic, mail.NicState.Ip),
    mail.nicState(nic, mail.NicState.Prefix),
    mail.nicState(nic, mail.NicState.Gateway),
    mail.nicState(nic, mail.NicState.Configuring) != 0,
  );
  mirror6.adopt(nic, stack.net.six);
  if (mail.nicState(nic, mail.NicState.HopKnown) != 0) {
    const hopLow = mail.nicState(nic, mail.NicState.HopMacLow);
    stack.mirrorHop(hopLow, mail.nicState(nic, mail.NicState.HopMacHigh));
  }
}
