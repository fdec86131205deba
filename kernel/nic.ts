/**
 * A NIC with its lanes: the device, CPU 0's own lane, and what has to happen among CPUs to bring
 * the device up, to recover it, and to follow its changes. Made and driven by main.ts on CPU 0.
 */
import * as acpi from "./acpi";
import * as config from "./config";
import * as cpus from "./cpus";
import * as crew from "./crew";
import * as events from "./events";
import { Lane } from "./lane";
import { Control } from "./control";
import { NetDevice } from "../drivers/net/device";
import { PairRings, PairSetup } from "../drivers/net/pair-setup";

/** Recoveries in one run; a device that needs more is given up on. */
const RECOVERIES_MAX: u32 = 1000;
/** How often a device is brought up that asks for its next reset before it runs. */
const BRING_UP_TRIES: u32 = 3;

export class Nic {
  recoveries: u32 = 0;
  readonly control: Control;
  private own: Lane | null = null;
  private rings: PairRings = new PairRings();

  constructor(
    readonly device: NetDevice,
    private readonly nicConfig: config.NicConfig,
  ) {
    this.control = new Control(device);
  }

  /** CPU 0's lane; valid after `bringUp`. */
  get lane(): Lane {
    return changetype<Lane>(this.own);
  }

  /** Brings the device up with a lane on each CPU. Answers what went wrong, or null. */
  bringUp(): string | null {
    const device = this.device;
    const problem = device.begin();
    if (problem != null) return problem;
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
  private chooseLanes(): u32 {
    const possible = min(cpus.started(), this.device.pairsMax);
    return config.queues == 0 ? possible : min(possible, config.queues);
  }

  private setUpLane(cpu: u32, setup: PairSetup): string | null {
    const rings = this.rings;
    this.nameQueues(cpu, setup);
    if (cpu != 0) {
      if (!crew.setUp(cpu, setup, rings)) return "a CPU does not answer";
    } else {
      let own = this.own;
      if (own == null) {
        own = new Lane(this.device.link, setup, this.nicConfig, 0, crew.lanes);
        this.own = own;
      }
      own.pair.renew(setup);
      own.pair.describe(rings);
    }
    return this.device.enablePair(cpu, setup, rings, unchecked(acpi.apicIds[cpu]));
  }

  /** virtio 1.4 §5.1.2: receiveq1 is 0, transmitq1 is 1, and so on. */
  private nameQueues(index: u32, setup: PairSetup): void {
    setup.rxQueue = 2 * index;
    setup.txQueue = 2 * index + 1;
  }

  /** The device runs: lets all lanes begin. */
  private start(setup: PairSetup): string | null {
    for (let cpu: u32 = 0; cpu < crew.lanes; cpu++) {
      this.nameQueues(cpu, setup);
      if (!this.device.findNotify(setup)) return "a notification register lies outside its BAR";
      if (cpu == 0) this.lane.pair.start(setup);
      else if (!crew.start(cpu, setup)) return "a CPU does not answer";
    }
    // virtio 1.4 §5.1.9.5.4.1: also what was asked for before DRIVER_OK.
    if (this.device.config.announce) this.announce();
    return null;
  }

  /** Resets a device that went wrong, and brings it up again; ends the run if it will not. */
  recover(reason: string): void {
    events.error(reason);
    this.restart();
  }

  private restart(): void {
    this.recoveries++;
    if (!crew.stopAll()) {
      events.fatal("a CPU does not answer");
      return;
    }
    this.control.abandon();
    crew.forgetFaults();
    const problem =
      this.recoveries > RECOVERIES_MAX ? "the device went wrong too often" : this.bringUpAgain();
    if (problem != null) {
      events.fatal(problem);
      return;
    }
    this.lane.runner.restart();
    this.control.resume();
  }

  /** virtio 1.4 §2.1.2: a device may need its reset while it is brought up, too. */
  private bringUpAgain(): string | null {
    let problem = this.bringUp();
    for (let tries: u32 = 1; tries < BRING_UP_TRIES && problem != null; tries++) {
      if (!this.device.needsReset()) return problem;
      events.error(problem);
      this.recoveries++;
      problem = this.bringUp();
    }
    return problem;
  }

  /** Looks at what the device announced, and at the answer to what it was told. */
  attend(): void {
    if (this.device.hasConfigInterrupt()) this.change();
    if (!this.control.busy) return;
    const problem = this.control.poll(this.lane);
    if (problem != null) this.recover(problem);
    else if (this.control.wantsReset) this.restart();
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
