// A guest in front of a device that attacks: boots it, looks after it, and judges. Used by
// hostile-backend.test.ts; the attacks are in hostile-backend-attacks.ts and -acts.ts.

import {
  type Chain,
  type DeviceFeature,
  type DeviceQueue,
  type DeviceRing,
  delay,
  type GuestEvent,
  HarnessError,
  Peer,
  padded,
  type Route,
  type StatsEvent,
  sumDrops,
  type TestContext,
  USUAL_FEATURES,
  udpFrame,
  type VhostUserDevice,
  type Vm,
  vhostUserDevice,
} from "qemu-test-harness";
import { command } from "./control-support";
import { MemoryOracle } from "./hostile-backend-oracle";
import { ECHO_PORT, GUEST_IP, STATIC_ADDRESS } from "./support";

/** One kind of guest that is attacked. */
export interface HostileSetup {
  readonly ring: "split" | "packed";
  readonly pairs: number;
  readonly features?: readonly DeviceFeature[];
}

export const setupName = ({ pairs, ring }: HostileSetup) =>
  `${ring}, ${pairs} queue pair${pairs === 1 ? "" : "s"}`;

/** With offloads to lie about, and frames that take several buffers. */
export const FEATURES: readonly DeviceFeature[] = [
  ...USUAL_FEATURES,
  "host_mtu",
  "guest_csum",
  "guest_tso4",
  "guest_tso6",
];

const LARGE_MTU = 9000;
const SMALL_MTU = 1500;
const READY_MS = 30_000;
const STATS_MS = 5000;
const STATS_PAUSE_MS = 50;
const ECHO_MS = 5000;
const RESTART_MS = 10_000;
const ERROR_MS = 5000;
/** From so few free descriptors on the driver looks for what was sent (a burst). */
const TX_FREE_MAX = 64;
/** Of IPv4 and UDP. */
const HEADERS_BYTES = 28;
const ECHO_SOURCE_PORT = 32_000;
/** Answers that no attack asks for go here. */
const FLOOD_SOURCE_PORT = 32_001;

export class Scene {
  /** Answers to `echo` and to `flood` that have come back. */
  readonly answers = new Set<string>();
  private number = 0;

  private constructor(
    readonly vm: Vm,
    readonly net: VhostUserDevice,
    readonly peer: Peer,
    readonly oracle: MemoryOracle,
    readonly setup: HostileSetup,
    private readonly route: Route,
  ) {
    for (const port of [ECHO_SOURCE_PORT, FLOOD_SOURCE_PORT]) {
      peer.onUdp(port, ({ udp }) => this.answers.add(udp.payload.toString()));
    }
  }

  static async boot(t: TestContext, setup: HostileSetup, append = ""): Promise<Scene> {
    const { pairs, ring } = setup;
    const usual = setup.features ?? FEATURES;
    const features = ring === "packed" ? [...usual, "packed" as const] : usual;
    const net = vhostUserDevice({ features, queues: pairs, reconnect: true });
    const vm = await t.vm({
      cpus: pairs,
      nics: [{ backend: net, options: usual.includes("host_mtu") ? { host_mtu: LARGE_MTU } : {} }],
      append: `${STATIC_ADDRESS} ${append}`,
      errorsAllowed: [/^(receive|transmit) queue: /],
      stderrAllowed: [/vhost/i, /Failed to (read|set|write)/, /Unexpected end-of-file/],
    });
    const ready = await vm.waitFor("ready", { timeoutMs: READY_MS });
    if (ready.ring !== ring || ready.queues !== pairs) {
      throw new HarnessError(
        `${ready.ring} rings, ${ready.queues} pairs; wanted ${ring}, ${pairs}`,
      );
    }
    await net.until(() => net.running.length === 2 * pairs, READY_MS, "queues");
    const oracle = new MemoryOracle(net, pairs);
    const peer = new Peer(net);
    const route = await peer.route(GUEST_IP);
    return new Scene(vm, net, peer, oracle, setup, route);
  }

  /** The longest datagram that fits. */
  get datagramBytes(): number {
    const isLarge = (this.setup.features ?? FEATURES).includes("host_mtu");
    return (isLarge ? LARGE_MTU : SMALL_MTU) - HEADERS_BYTES;
  }

  get pairs(): number {
    return this.setup.pairs;
  }

  rx(pair: number): DeviceQueue {
    return this.net.queue(2 * pair);
  }

  tx(pair: number): DeviceQueue {
    return this.net.queue(2 * pair + 1);
  }

  /** A UDP datagram for the guest, with a payload of its own. */
  datagram(payload: string | Buffer, port: number = ECHO_PORT, source = FLOOD_SOURCE_PORT): Buffer {
    const fields = { sourcePort: source, destinationPort: port, payload: Buffer.from(payload) };
    return padded(udpFrame(this.route, fields));
  }

  /** An echo on one queue pair. Rejects when it does not come back. */
  async echo(pair: number, timeoutMs = ECHO_MS): Promise<void> {
    const payload = `echo ${this.number++}`;
    await this.net.sendWith(this.datagram(payload, ECHO_PORT, ECHO_SOURCE_PORT), {}, pair);
    await this.net.until(() => this.answers.delete(payload), timeoutMs, `answer to '${payload}'`);
  }

  /** Gives the guest a reason to look at its queues. */
  poke(pair: number): void {
    const rx = this.rx(pair);
    if (!rx.held) rx.push(this.datagram("poke"), {});
    rx.interrupt();
    this.tx(pair).interrupt();
  }

  /**
   * Keeps what the guest sends on a pair, until so much is outstanding that the driver looks for
   * what was sent at every turn. Answers all of it.
   */
  fillTransmit(pair: number): Promise<Chain[]> {
    return this.collect(pair, this.tx(pair).size - TX_FREE_MAX + 8, "flood");
  }

  /** Has so many datagrams answered on a pair, and keeps the answers. */
  async collect(pair: number, count: number, payload: string | Buffer): Promise<Chain[]> {
    const tx = this.tx(pair);
    const ring = ringOf(tx);
    tx.held = true;
    const frame = this.datagram(payload);
    for (let i = 0; i < count; i++) await this.net.sendWith(frame, {}, pair);
    const chains: Chain[] = [];
    const isDone = () => {
      for (let chain = ring.take(); chain !== undefined; chain = ring.take()) chains.push(chain);
      return chains.length >= count;
    };
    await this.net.until(isDone, ERROR_MS, `${count} buffers to send`);
    return chains;
  }

  // ---- what the guest says ---------------------------------------------------------------------

  stats(): Promise<StatsEvent> {
    return this.vm.stats({ timeoutMs: STATS_MS });
  }

  async drops(): Promise<Readonly<Record<string, number>>> {
    return sumDrops(await this.stats(), "rx");
  }

  /** How many events there were; for `since`. */
  mark(): number {
    return this.vm.history.length;
  }

  since(mark: number, name: string): readonly GuestEvent[] {
    return this.vm.history.slice(mark).filter(({ event }) => event === name);
  }

  /** How many resets have a reason: an event that names a fault, or a line that asked for one. */
  reasonsSince(mark: number): number {
    const asked = this.since(mark, "control").filter(({ command }) => command === "reset");
    return asked.length + this.since(mark, "error").length + this.since(mark, "warning").length;
  }

  async errorSince(mark: number, message: RegExp): Promise<void> {
    const said = () =>
      this.since(mark, "error").some((event) => message.test(String(event.message)));
    await this.net.until(said, ERROR_MS, `error that says ${message}; ${this.vm.tail()}`);
  }

  // ---- afterwards ------------------------------------------------------------------------------

  /** Waits until all queues were started anew since there had been `starts` of them. */
  async restarted(starts: number): Promise<void> {
    const wanted = 2 * this.pairs;
    const running = () => this.net.starts >= starts + wanted && this.net.running.length === wanted;
    await this.net.until(running, RESTART_MS, `${wanted} queues running again`);
  }

  /** Waits for one more reset than `before`, of the driver's own accord, and its end. */
  async recovered(before: number, timeoutMs: number): Promise<void> {
    const end = Date.now() + timeoutMs;
    while ((await this.stats()).recoveries === before) {
      if (Date.now() > end) throw new HarnessError(`no reset; ${this.vm.tail()}`);
      await delay(STATS_PAUSE_MS);
    }
    const wanted = 2 * this.pairs;
    const running = () => this.net.running.length === wanted;
    await this.net.until(running, RESTART_MS, `${wanted} queues running again`);
  }

  /** The device behaves, and the guest is told to begin anew with it. */
  async reset(): Promise<void> {
    const { starts } = this.net;
    const { result } = await command(this.vm, "reset");
    if (result !== "ok") throw new HarnessError(`reset: ${result}`);
    await this.restarted(starts);
  }

  /** Whatever was done, the device behaves from here on, also in rings that were not restarted. */
  behave(): void {
    for (const queue of this.net.queues) {
      queue.silent = false;
      queue.held = false;
      queue.work();
      queue.interrupt();
    }
  }

  /** What must hold now that the device behaves: one line for everything that does not. */
  async judge(): Promise<readonly string[]> {
    for (let pair = 0; pair < this.pairs; pair++) await this.echo(pair);
    // The guest announces its address two seconds after its start, and writes before it shows.
    for (let left = 10; left > 0 && this.oracle.writtenUnseen() > 0; left--) await delay(20);
    const wrong = [...this.oracle.check()];
    wrong.push(...this.net.driverFaults.splice(0));
    const panic = this.vm.history.find(({ event }) => event === "panic");
    if (panic !== undefined) wrong.push(JSON.stringify(panic));
    return wrong;
  }
}

/** The ring of a queue that runs. */
export function ringOf({ name, ring }: DeviceQueue): DeviceRing {
  if (ring === undefined) throw new HarnessError(`${name} does not run`);
  return ring;
}
