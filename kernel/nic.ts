/**
 * A NIC with its lanes: the device, CPU 0's own lane, and what has to happen among CPUs to bring
 * the device up, to recover it, and to follow its changes. Made and driven by nics.ts on CPU 0.
 */
import * as acpi from "./acpi";
import * as config from "./config";
import * as cpus from "./cpus";
import * as events from "./events";
import * as forward from "./nics-forward";
import * as lanes from "./lanes";
import * as machine from "./machine";
import { Crew } from "./crew";
import { Lane } from "./lane";
import { deadlineIn } from "./time";
import { Control } from "./control";
import { allocate } from "./memory/arena";
import { GROUPS_MAX } from "./net/addresses6";
import * as features from "../drivers/virtio/features";
import { NetDevice } from "../drivers/net/device";
import * as report from "../drivers/net/device-report";
import { PairRings, PairSetup } from "../drivers/net/pair-setup";
import { faultMessage, isReceiveFault, isStuck } from "../drivers/net/queue-pair";
import { giveQueue, takeQueue } from "../drivers/net/queue-reset";

/** Resets in one run that the device made necessary; one that needs more is given up on. */
const FAILURES_MAX: u32 = 1000;

/** A queue that goes wrong again so soon after it was reset alone is not reset alone again. */
const QUEUE_CALM_US: u64 = 60_000_000;

/** How often a device is brought up that asks for its next reset before it runs. */
const BRING_UP_TRIES: u32 = 3;

/** How a device leaves: the machine asks first, or it is gone. */
export enum Departure {
  Orderly,
  Surprise,
}

export class Nic {
  /** Resets of the device, asked for ones included; and of queues alone. */
  recoveries: u32 = 0;
  queueResets: u32 = 0;
  private failures: u32 = 0;
  /** For each queue a time stamp until which it is not reset alone again. */
  private readonly calm: usize = allocate((2 * acpi.CPUS_MAX) << 3);
  readonly control: Control;
  readonly crew: Crew;
  /** The device is there and runs. Otherwise it was plugged out, and may come back. */
  present: bool = false;
  /** Lanes at most; a device that works together with another one has no more than that one. */
  lanesMax: u32 = u32.MAX_VALUE;
  /** The `ready` event was printed since the device came. */
  readyPrinted: bool = false;
  /** When its stack wants to be called. */
  stackDeadline: u64 = 0;
  private own: Lane | null = null;
  private rings: PairRings = new PairRings();

  constructor(
    readonly device: NetDevice,
    private readonly nicConfig: config.NicConfig,
  ) {
    const crew = new Crew(device.link.index);
    this.crew = crew;
    this.control = new Control(device, crew);
  }

  /** CPU 0's lane; valid after `bringUp`. */
  get lane(): Lane {
    return changetype<Lane>(this.own);
  }

  /** Brings the device up with a lane on each CPU. Answers what went wrong, or null. */
  bringUp(): string | null {
    const problem = this.device.begin();
    return problem != null ? problem : this.complete();
  }

  /** The same from the lanes on, once the device has begun. */
  complete(): string | null {
    const device = this.device;
    const crew = this.crew;
    const setup = device.setup;
    setup.macLow = load<u32>(device.link.mac);
    setup.macHigh = load<u16>(device.link.mac, 4);
    crew.publishAddress(device.link.mac);
    if (this.own == null) crew.setLanes(this.chooseLanes());
    else if (crew.lanes > device.pairsMax)
      return device.fail("the device has fewer queue pairs now");
    for (let cpu: u32 = 0; cpu < crew.lanes; cpu++) {
      const refused = this.setUpLane(cpu, setup);
      if (refused != null) return refused;
    }
    const refused = device.finish(crew.active);
    if (refused != null) return refused;
    return this.start(setup);
  }

  /** A lane a CPU, as far as the device has queue pairs and `queues=` allows. */
  chooseLanes(): u32 {
    const possible = min(min(cpus.started(), this.device.pairsMax), this.lanesMax);
    return config.queues == 0 ? possible : min(possible, config.queues);
  }

  private setUpLane(cpu: u32, setup: PairSetup): string | null {
    const rings = this.rings;
    this.nameQueues(cpu, setup);
    if (cpu != 0) {
      if (!this.crew.setUp(cpu, setup, rings)) return "a CPU does not answer";
    } else {
      let own = this.own;
      if (own == null) {
        own = lanes.make(this.device.link, setup, this.nicConfig, 0, this.crew.lanes);
        this.own = own;
        this.hearGroups(own);
      }
      own.pair.renew(setup);
      own.pair.describe(rings);
    }
    return this.device.enablePair(cpu, setup, rings, unchecked(acpi.apicIds[cpu]));
  }

  /** Has the device let in what IPv6 sends to groups, if it may be told such things. */
  private hearGroups(own: Lane): void {
    if (!features.has(this.device.accepted, features.CTRL_RX)) return;
    const groups = allocate(GROUPS_MAX * 6);
    this.device.settings.setGroups(groups, own.stack.net.six.writeGroups(groups));
  }

  /** virtio 1.4 §5.1.2: receiveq1 is 0, transmitq1 is 1, and so on. */
  private nameQueues(index: u32, setup: PairSetup): void {
    setup.rxQueue = 2 * index;
    setup.txQueue = 2 * index + 1;
  }

  /** The device runs: lets all lanes begin. */
  private start(setup: PairSetup): string | null {
    for (let cpu: u32 = 0; cpu < this.crew.lanes; cpu++) {
      this.nameQueues(cpu, setup);
      if (!this.device.findNotify(setup)) return "a notification register lies outside its BAR";
      if (cpu == 0) this.lane.pair.start(setup);
      else if (!this.crew.start(cpu, setup)) return "a CPU does not answer";
    }
    this.lane.running = true;
    this.present = true;
    // virtio 1.4 §5.1.9.5.4.1: also what was asked for before DRIVER_OK.
    if (this.device.config.announce) this.announce();
    return null;
  }

  /**
   * Repairs what a lane reported (QueuePair.fault): the queue alone if the device can, and if that
   * was not done a moment ago; else all of it. Also all of it for a queue that is only stuck: QEMU
   * (10.0) does not survive the reset of a transmit queue whose packets its backend does not take.
   */
  heal(cpu: u32, fault: u32): void {
    if (this.isGone()) return;
    const queue = 2 * cpu + (isReceiveFault(fault) ? 0 : 1);
    printFault(this.device.link.index, queue, fault);
    const calm = this.calm + (queue << 3);
    if (!isStuck(fault) && machine.tsc() >= load<u64>(calm)) {
      store<u64>(calm, deadlineIn(QUEUE_CALM_US));
      if (this.resetQueue(cpu, queue)) return;
    }
    this.failures++;
    this.restart();
  }

  /** virtio 1.4 §2.6.1: takes the queue, has its owner empty it, and gives it again. */
  private resetQueue(cpu: u32, queue: u32): bool {
    const device = this.device;
    const rings = this.rings;
    if (!takeQueue(device, queue)) return false;
    const isRx = (queue & 1) == 0;
    if (cpu == 0) {
      this.lane.pair.renewQueue(isRx);
      this.lane.renewed = true;
      this.lane.pair.describe(rings);
    } else if (!this.crew.renew(cpu, queue & 1, rings)) return false;
    if (!giveQueue(device, queue, device.setup, rings)) return false;
    this.queueResets++;
    events.begin("warning");
    events.text("message", "a queue was reset, all others went on");
    events.num("nic", device.link.index);
    events.num("queue", queue);
    events.end();
    if (cpu != 0) return this.crew.resume(cpu);
    if (isRx) this.lane.pair.refill();
    return true;
  }

  /** What is not there any more reads as all ones, which looks like every fault there is. */
  private isGone(): bool {
    if (this.device.transport.pci.isThere()) return false;
    this.remove(Departure.Surprise);
    return true;
  }

  /** Resets a device that went wrong, and brings it up again; ends the run if it will not. */
  private recover(reason: string): void {
    if (this.isGone()) return;
    events.error(reason);
    this.failures++;
    this.restart();
  }

  private restart(): void {
    this.recoveries++;
    this.lane.running = false;
    if (!this.crew.stopAll()) {
      events.fatal("a CPU does not answer");
      return;
    }
    this.control.abandon();
    this.crew.forgetFaults();
    const problem =
      this.failures > FAILURES_MAX ? "the device went wrong too often" : this.bringUpAgain();
    if (problem != null && this.isGone()) return;
    if (problem != null) {
      events.fatal(problem);
      return;
    }
    this.lane.runner.restart();
    this.lane.renewed = true;
    this.control.resume();
  }

  /** virtio 1.4 §2.1.2: a device may need its reset while it is brought up, too. */
  private bringUpAgain(): string | null {
    const device = this.device;
    let problem = this.bringUp();
    for (let tries: u32 = 1; tries < BRING_UP_TRIES && problem != null; tries++) {
      // One that is gone reads as all ones, NEEDS_RESET among them.
      if (!device.transport.pci.isThere() || !device.needsReset()) return problem;
      events.error(problem);
      this.recoveries++;
      problem = this.bringUp();
    }
    return problem;
  }

  // ---- out and in again -------------------------------------------------------------------------

  /** The device leaves, or has left: nothing of it is used from here on. */
  remove(how: Departure): void {
    const link = this.device.link;
    this.lane.running = false;
    // virtio 1.4 §3.3.1: nobody sends any more, then the reset, then buffers are taken back.
    if (how == Departure.Orderly && this.crew.stopAll()) this.device.transport.reset();
    this.halt();
    this.control.cancel();
    this.readyPrinted = false;
    if (link.linkUp) {
      link.linkUp = false;
      report.printLink(link, 0);
    }
    report.printRemoved(link.index, this.device.transport.pci, how == Departure.Orderly);
  }

  /** All CPUs take back what the device had. */
  private halt(): void {
    this.present = false;
    this.lane.running = false;
    if (!this.crew.emptyAll()) events.warning("a CPU does not answer");
    this.crew.forgetFaults();
    this.lane.empty();
  }

  /** A device is there again, for which all is ready but itself. Answers what is wrong, or null. */
  comeBack(): string | null {
    const device = this.device;
    const before = device.accepted;
    device.replace();
    const problem = device.begin();
    if (problem != null) return problem;
    if ((before & ~device.accepted) != 0) {
      events.warning("the NIC has fewer features than before: what it was told is forgotten");
      device.settings.forget();
      this.crew.setActive(this.crew.lanes);
    }
    if (config.app == config.App.Forward) forward.letAllIn(this);
    const refused = this.complete();
    if (refused != null) {
      this.halt();
      return refused;
    }
    report.printLink(device.link, device.accepted);
    this.lane.runner.restart();
    this.lane.stack.announce();
    return null;
  }

  /** Looks at what the device announced, and at the answer to what it was told. */
  attend(): void {
    if (this.device.hasConfigInterrupt()) this.change();
    if (!this.control.busy) return;
    const problem = this.control.poll(this.lane);
    if (problem != null) this.recover(problem);
    else if (this.control.wantsReset) this.resetAsked();
  }

  /** What a console line asked for; a queue that cannot be reset alone takes the device with it. */
  private resetAsked(): void {
    const queue = this.control.queueToReset;
    if (queue >= 0) {
      const cpu = <u32>queue >> 1;
      if ((cpu == 0 || this.crew.stop(cpu)) && this.resetQueue(cpu, queue)) {
        this.control.resume();
        return;
      }
    }
    this.restart();
  }

  private change(): void {
    const device = this.device;
    if (device.needsReset()) {
      this.recover("the device needs a reset");
      return;
    }
    const wasUp = device.link.linkUp;
    device.refresh();
    if (device.config.announce) this.announce();
    else if (device.link.linkUp && !wasUp) this.lane.stack.announce();
  }

  /** The device asks us to tell the network where we are. virtio 1.4 §5.1.9.5.4.1 */
  private announce(): void {
    this.lane.stack.announce();
    this.control.acknowledge();
  }
}

/** A device that lies is an error; one that is only stuck has a warning. */
function printFault(nic: u32, queue: u32, fault: u32): void {
  events.begin(isStuck(fault) ? "warning" : "error");
  events.text("message", faultMessage(fault));
  events.num("nic", nic);
  events.num("queue", queue);
  events.end();
}
