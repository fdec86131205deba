/**
 * The control plane of one NIC: console commands for the device and answers to its announcements,
 * one at a time on the control queue, while packets go on. Made and driven by nic.ts on CPU 0.
 *
 *   take: line -> backlog        poll: backlog -> (lanes quiet ->) sent -> answered -> event
 *
 * Each line ends in one event: `control` with the outcome, or `error` if it was never sent.
 */
import * as deviceStats from "./device-stats";
import * as events from "./events";
import * as machine from "./machine";
import * as orders from "./control-commands";
import * as words from "./words";
import { Crew } from "./crew";
import { Lane } from "./lane";
import { allocate } from "./memory/arena";
import { NEVER, deadlineIn } from "./time";
import { copyMac } from "./net/address";
import { acknowledgeAnnounce } from "../drivers/net/commands";
import { COALESCING_BYTES } from "../drivers/net/commands";
import { ControlQueue, ControlState } from "../drivers/net/control-queue";
import { NetDevice } from "../drivers/net/device";

/** How often to look for an answer: nothing asks for an interrupt. */
const LOOK_US: u64 = 1000;
/** How long other CPUs may take to pause their lanes. */
const QUIET_US: u64 = 5000000;

/** The lines that wait, the one under way included: length 4 | text. */
const BACKLOG_LINES: u32 = 8;
export const COMMAND_BYTES_MAX: u32 = 1020;
const ENTRY_BYTES: u32 = 1024;

/** Whose line is under way: one at a time, of all NICs. */
let owner: Control | null = null;

enum Stage {
  Idle,
  /** Lanes beyond those that the device will use are being paused. */
  Quieting,
  /** The device has a line's command. */
  Sent,
  /** nic.ts is to reset the device. */
  Resetting,
  /** The device has the acknowledgement of an announcement. */
  Acknowledging,
}

export class Control {
  /** Whether there is anything to do for `poll`. */
  busy: bool = false;
  /** When it wants to be called at the latest. */
  deadline: u64 = NEVER;
  private stage: Stage = Stage.Idle;
  private first: u32 = 0;
  private lines: u32 = 0;
  private announced: bool = false;
  private quietBy: u64 = 0;
  private readonly backlog: usize = allocate(BACKLOG_LINES * ENTRY_BYTES);
  /** What was sent last belongs to a line whose own command the device has taken. */
  private following: bool = false;
  private hashDue: bool = false;
  /** Queues that are in use again and have to be told their coalescing: from, and below. */
  private nextQueue: u32 = 0;
  private queuesEnd: u32 = 0;

  /** At boot only. */
  constructor(
    private readonly device: NetDevice,
    private readonly crew: Crew,
  ) {
    orders.prepare();
  }

  /** Takes a console line. False if it is no command for the device. */
  take(line: usize, bytes: u32): bool {
    words.split(line, bytes);
    if (!orders.isKnown()) return false;
    if (this.lines == BACKLOG_LINES || bytes > COMMAND_BYTES_MAX) {
      events.error("a command was dropped: too many of them wait");
      return true;
    }
    const entry = this.entry(this.lines++);
    store<u32>(entry, bytes);
    memory.copy(entry + 4, line, bytes);
    this.wake();
    return true;
  }

  /** The device wants to know that its announcement was heard. */
  acknowledge(): void {
    if (this.device.control == null) return;
    this.announced = true;
    this.wake();
  }

  private wake(): void {
    this.busy = true;
    if (this.deadline == NEVER) this.deadline = 0;
  }

  private entry(index: u32): usize {
    return this.backlog + ((this.first + index) % BACKLOG_LINES) * ENTRY_BYTES;
  }

  /** Goes on as far as it gets. Answers what went wrong, so that only a reset helps, or null. */
  poll(lane: Lane): string | null {
    if (this.stage == Stage.Quieting && !this.sendWhenQuiet()) {
      if (machine.tsc() > this.quietBy) return "a CPU does not pause";
    }
    const control = this.device.control;
    const sent = this.stage == Stage.Sent || this.stage == Stage.Acknowledging;
    if (control != null && sent) {
      const state = control.poll(machine.tsc());
      if (state == ControlState.Failed) return "the device does not answer a command";
      if (state != ControlState.Pending) this.settle(control, lane, state == ControlState.Done);
    }
    // Bounded: each turn takes a line away or sends something.
    while (this.stage == Stage.Idle && (this.announced || this.hasTurn)) this.next(lane);
    this.busy = this.stage != Stage.Idle || this.lines > 0;
    this.deadline = this.busy ? deadlineIn(LOOK_US) : NEVER;
    return null;
  }

  /** Whether there is a line, and no other NIC's is under way. */
  private get hasTurn(): bool {
    return this.lines > 0 && (owner == null || owner == this);
  }

  private next(lane: Lane): void {
    const control = this.device.control;
    if (this.announced && control != null) {
      this.announced = false;
      acknowledgeAnnounce(control);
      this.stage = Stage.Acknowledging;
      return;
    }
    owner = this;
    const entry = this.entry(0);
    words.split(entry + 4, load<u32>(entry));
    if (!orders.begin(this.device, this.crew)) {
      this.drop();
      return;
    }
    if (orders.order == orders.Order.Announce) {
      lane.stack.announce();
      this.finish("ok");
    } else if (orders.order == orders.Order.Later) {
      this.device.settings.rss.copy(orders.rss);
      this.finish("ok");
    } else if (orders.order == orders.Order.HashLater) {
      this.device.settings.hash.copyParameters(orders.hash);
      this.finish("ok");
    } else if (orders.order == orders.Order.Reset || orders.order == orders.Order.ResetQueue) {
      this.stage = Stage.Resetting;
    } else if (orders.order == orders.Order.Pairs) {
      // virtio 1.4 §5.1.9.5.6.1: nothing is sent on a higher queue once the command is in the ring.
      this.crew.turn(min(orders.value, this.crew.active));
      this.quietBy = deadlineIn(QUIET_US);
      this.stage = Stage.Quieting;
      this.sendWhenQuiet();
    } else {
      this.stage = Stage.Sent;
    }
  }

  private sendWhenQuiet(): bool {
    const control = this.device.control;
    if (control == null || !this.crew.isTurned()) return false;
    orders.sendPairs(control);
    this.stage = Stage.Sent;
    return true;
  }

  // ---- outcomes ---------------------------------------------------------------------------------

  /** The device has answered. */
  private settle(control: ControlQueue, lane: Lane, ok: bool): void {
    if (this.stage == Stage.Acknowledging) {
      this.stage = Stage.Idle;
      if (!ok) events.warning("the device refuses to hear that its announcement was made");
      return;
    }
    const order = orders.order;
    if (ok && order == orders.Order.DeviceStats) {
      if (deviceStats.goOn(this.device.link.index, control)) return;
    }
    if (this.following) {
      if (!ok) events.warning("the device refuses a setting that it took before");
      this.following = this.follow(control);
      if (!this.following) this.finish("ok");
      return;
    }
    if (ok) {
      this.hashDue = true;
      this.carryOut(control, lane);
      this.following = this.follow(control);
      if (this.following) return;
    }
    // Refused: the lanes go on as they did before.
    if (!ok && order == orders.Order.Pairs) this.crew.turn(this.crew.active);
    this.finish(ok ? "ok" : "refused");
  }

  /** Tells on what the command has made the device forget. False when there is no more. */
  private follow(control: ControlQueue): bool {
    const due = this.hashDue;
    this.hashDue = false;
    if (due && orders.sendHashAgain(this.device, control)) return true;
    const settings = this.device.settings;
    this.nextQueue = settings.tellCoalescing(control, this.nextQueue, this.queuesEnd);
    if (this.nextQueue == 0) this.queuesEnd = 0;
    return this.nextQueue != 0;
  }

  private carryOut(control: ControlQueue, lane: Lane): void {
    const settings = this.device.settings;
    const order = orders.order;
    if (order == orders.Order.Keep) settings.keep(control, orders.value);
    else if (order == orders.Order.Coalescing) settings.keepCoalescing(control, orders.value);
    else if (order == orders.Order.MacTable) settings.keepMacTable(control);
    else if (order == orders.Order.Vlan) settings.keepVlan(orders.value, orders.on);
    else if (order == orders.Order.Rss) settings.rss.copy(orders.rss);
    else if (order == orders.Order.Hash) settings.hash.copyParameters(orders.hash);
    else if (order == orders.Order.Mac) this.rename(control, lane);
    else if (order == orders.Order.Pairs) {
      settings.rss.copy(orders.rss);
      const crew = this.crew;
      lane.runner.takeShare(crew.takeShares(orders.value));
      this.nextQueue = 2 * crew.active;
      this.queuesEnd = 2 * orders.value;
      crew.setActive(orders.value);
      crew.turn(orders.value);
    }
  }

  /** Our address is a new one: the network has to hear of it. */
  private rename(control: ControlQueue, lane: Lane): void {
    const link = this.device.link;
    this.device.settings.keepMac(control);
    copyMac(link.mac, control.data);
    link.renamed = true;
    lane.stack.announce();
  }

  /** The line's event; the next one's turn. */
  private finish(result: string): void {
    const entry = this.entry(0);
    events.begin("control");
    events.num("nic", this.device.link.index);
    events.textBytes("command", entry + 4, load<u32>(entry));
    events.text("result", result);
    const control = this.device.control;
    const answered = orders.order == orders.Order.Answer && result == "ok";
    if (answered && control != null && control.resultBytes == COALESCING_BYTES) {
      events.num("usecs", machine.sharedRead32(control.result + 4));
      events.num("packets", machine.sharedRead32(control.result));
    }
    events.end();
    this.drop();
  }

  private drop(): void {
    this.stage = Stage.Idle;
    owner = null;
    this.first = (this.first + 1) % BACKLOG_LINES;
    this.lines--;
  }

  /** Whether the line under way asks for a reset; `resume` when it is over. */
  get wantsReset(): bool {
    return this.stage == Stage.Resetting;
  }

  /** The queue that is to be reset alone; -1: all of the device. */
  get queueToReset(): i32 {
    return orders.order == orders.Order.ResetQueue ? <i32>orders.value : -1;
  }

  /** The device is about to be reset: what it was asked for has failed. The others still wait. */
  abandon(): void {
    this.announced = false;
    this.following = false;
    this.nextQueue = 0;
    this.queuesEnd = 0;
    if (this.stage == Stage.Quieting || this.stage == Stage.Sent) this.finish("failed");
    this.crew.setActive(this.crew.active);
  }

  /** The device is gone: what it was asked for has failed, and what was still to be asked. */
  cancel(): void {
    this.abandon();
    this.stage = Stage.Idle;
    while (this.lines > 0) this.finish("failed");
    this.busy = false;
    this.deadline = NEVER;
  }

  /** It runs again. */
  resume(): void {
    if (this.stage == Stage.Resetting) this.finish("ok");
    this.stage = Stage.Idle;
    this.busy = this.announced || this.lines > 0;
    this.deadline = this.busy ? 0 : NEVER;
  }
}
