// A booted guest with one network device and a peer, as most tests want it. `startGuest` also
// sees to it that a test fails when the driver broke a rule, or reported an error that the test
// did not ask for. Used by test/unit.

import {
  type GuestEvent,
  parseUdpFrame,
  type QueueStats,
  type StatsEvent,
  type TestContext,
} from "qemu-test-harness";
import { GuestPanic, ModelError } from "./errors";
import { Machine, type MachineOptions } from "./machine/machine";
import { NetDevice, type NetOptions } from "./net/net-device";
import { ECHO_PORT, Peer } from "./net/peer";

/** Without IPv6, which speaks unasked: most tests count frames. */
export const STATIC_IP = "ip=192.0.2.2/24 ip6=off";

export interface GuestOptions extends Partial<MachineOptions> {
  readonly net?: Partial<NetOptions>;
  /** Further NICs, each on a wire of its own, in the slots behind the first one. */
  readonly more?: readonly Partial<NetOptions>[];
}

const SLOT_SHIFT = 3;

/** `stats` as the image prints it, with what it adds to the contract. */
export interface ModelStats extends StatsEvent {
  readonly recoveries: number;
  readonly accepted: number;
  readonly queues: readonly (QueueStats & { readonly pool_free: number })[];
}

export class Guest {
  readonly machine: Machine;
  readonly nics: NetDevice[] = [];
  readonly peers: Peer[] = [];
  private readonly claimed = new Set<GuestEvent>();

  constructor(options: GuestOptions) {
    const { net, more = [], ...machine } = options;
    this.machine = new Machine({ commandLine: STATIC_IP, ...machine });
    for (const [index, each] of [net, ...more].entries()) this.plugIn(index, each);
  }

  /** The first NIC and its peer: what most tests have. */
  get nic(): NetDevice {
    return this.nicAt(0);
  }

  get peer(): Peer {
    return this.peerAt(0);
  }

  nicAt(index: number): NetDevice {
    const nic = this.nics[index];
    if (nic === undefined) throw new ModelError(`there is no NIC ${index}`);
    return nic;
  }

  peerAt(index: number): Peer {
    const peer = this.peers[index];
    if (peer === undefined) throw new ModelError(`there is no peer ${index}`);
    return peer;
  }

  /** Puts a NIC into its slot, with a peer that knows nothing yet. */
  plugIn(index: number, options: Partial<NetOptions> = {}): NetDevice {
    const place = { bdf: (2 + index) << SLOT_SHIFT, mac: `52:54:00:12:34:${56 + index}` };
    const nic = new NetDevice(this.machine, { ...place, ...options });
    this.nics[index] = nic;
    this.peers[index] = new Peer(nic);
    return nic;
  }

  /** Boots and runs until every NIC is `ready`. */
  start(): this {
    const { console } = this.machine;
    this.machine.boot();
    this.until(() => console.all("ready").length >= this.nics.length, "it is ready");
    return this;
  }

  /** Runs until `condition`; throws when it never comes, with what there is to know. */
  until(
    condition: () => boolean,
    what: string,
    limits: { us?: number; steps?: number } = {},
  ): void {
    if (this.machine.run(condition, limits)) return;
    throw new ModelError(`waited in vain until ${what}; ${this.describe()}`);
  }

  /** Runs until the guest sleeps on nothing and the device has nothing to do. */
  settle(): void {
    const { machine } = this;
    this.until(() => !machine.step() && !machine.passMoment(), "all is quiet");
  }

  describe(): string {
    const { console, ended, violations } = this.machine;
    const lines = [
      `ended: ${ended?.message ?? "no"}`,
      ...violations.list,
      ...console.lines.slice(-8),
    ];
    return `state:\n  ${lines.join("\n  ")}`;
  }

  /** Sends a datagram to the guest's echo port and answers what came back. */
  echo(payload: Uint8Array, nic = 0): Buffer {
    const peer = this.peerAt(nic);
    const { frames } = peer;
    const before = frames.length;
    this.nicAt(nic).receive(peer.echoRequest(payload));
    this.until(() => frames.length > before, `the echo of ${payload.length} bytes comes back`);
    const answer = parseUdpFrame(frames[before] ?? Buffer.alloc(0));
    if (answer?.udp.sourcePort !== ECHO_PORT) throw new ModelError("no echo but another frame");
    return answer.udp.payload;
  }

  /** Types a command for the device and answers the event that it ends in. */
  command(line: string): GuestEvent {
    const { console } = this.machine;
    const before = console.all("control").length;
    console.type(line);
    this.until(() => console.all("control").length > before, line, { us: 10e6 });
    const event = console.all("control")[before];
    if (event?.command !== line)
      throw new ModelError(`'${line}' ended in ${JSON.stringify(event)}`);
    return event;
  }

  stats(nic = 0): ModelStats {
    const { console } = this.machine;
    const all = () => console.all("stats").filter((event) => event.nic === nic);
    const before = all().length;
    console.type("stats");
    this.until(() => all().length > before, "it prints stats");
    return all()[before] as unknown as ModelStats;
  }

  /** The status of QEMU's process for this end: 33 success, 35 failure. */
  exitStatus(): number {
    const { ended } = this.machine;
    if (ended === undefined) throw new ModelError(`the guest has not ended; ${this.describe()}`);
    return !(ended instanceof GuestPanic) && ended.status === 0 ? 33 : 35;
  }

  /** The messages of all `error` events; the test expects them. */
  errors(): string[] {
    const events = this.machine.console.all("error");
    for (const event of events) this.claimed.add(event as unknown as GuestEvent);
    return events.map(({ message }) => message);
  }

  /** What must not go unnoticed: broken rules, errors that nobody asked for, a panic. */
  problems(): string[] {
    const { console, ended, violations } = this.machine;
    const unasked = console.events.filter(
      (event) => event.event === "error" && !this.claimed.has(event),
    );
    const panic = ended instanceof GuestPanic ? [`the guest panicked: ${ended.message}`] : [];
    return [...violations.list, ...unasked.map((event) => JSON.stringify(event)), ...panic];
  }
}

/** A guest that is not booted yet, and whose problems fail the test. */
export function makeGuest(t: TestContext, options: GuestOptions = {}): Guest {
  const guest = new Guest(options);
  t.cleanup(() => {
    const problems = guest.problems();
    if (problems.length > 0) throw new ModelError(problems.join("\n"));
  });
  return guest;
}

/** The same, running and ready. */
export function startGuest(t: TestContext, options: GuestOptions = {}): Guest {
  return makeGuest(t, options).start();
}
