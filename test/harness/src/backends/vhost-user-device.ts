// The `vhost-user` backend in the test's own process: a network device behind QEMU that reads and
// writes the guest's rings itself. Honest by default, so that it is a frame port as `stream` is; and
// everything that it has of the guest (memory, rings, interrupts) is open to a test that wants a
// device which is not.
//
//   vhost-user-device-system.ts    system calls that Node does not have
//   -protocol.ts, -session.ts      what QEMU says, and what is answered
//   -memory.ts                     the guest's memory
//   -ring.ts, -split.ts, -packed.ts, -queue.ts     virtqueues, the device's side
//   -net.ts                        the net header, feature bits

import { rmSync } from "node:fs";
import { join } from "node:path";
import { withDeadline } from "../deadline";
import { EnvironmentError, HarnessError, messageOf } from "../errors";
import { findQemu, vhostUserUnavailable } from "../qemu";
import { scratchDirectory } from "../run-scope";
import type { Artifact, Backend, DeviceOptions } from "./backend";
import { FramePort } from "./frame-port";
import type { GuestMemory } from "./vhost-user-device-memory";
import { type DeviceFeature, featureBits, type NetHeaderFields } from "./vhost-user-device-net";
import type { DeviceQueue, QueueOwner } from "./vhost-user-device-queue";
import type { Chain } from "./vhost-user-device-ring";
import { Session } from "./vhost-user-device-session";
import { loadSystem, type System } from "./vhost-user-device-system";

export interface VhostUserDeviceOptions {
  /** Queue pairs, 1 unless given. */
  readonly queues?: number;
  /** What is offered beside VERSION_1 (and MQ with several pairs); `USUAL_FEATURES` unless given. */
  readonly features?: readonly DeviceFeature[];
  /** QEMU connects again when the device has disconnected. */
  readonly reconnect?: boolean;
}

export const USUAL_FEATURES: readonly DeviceFeature[] = ["mrg_rxbuf", "indirect_desc", "event_idx"];

const RECONNECT_MS = 100;
/** The longest that a wait in another thread can keep this process from ending. */
const POLL_MS = 100;
const SEND_TIMEOUT_MS = 10_000;
const STOP_TIMEOUT_MS = 5000;
const CHECK_MS = 2;
const LOG_LINES_MAX = 5000;

export class VhostUserDevice extends FramePort implements Backend, QueueOwner {
  readonly name = "vhost-user device";
  readonly sharedMemory = true;
  /** Rules of the ring that the driver broke, as the device saw it. */
  readonly driverFaults: string[] = [];
  /** Connections so far, and how often a queue was started. */
  connections = 0;
  starts = 0;
  /** Called for a queue that has been started, and for one whose ring is about to be given up. */
  onStart: (queue: DeviceQueue) => void = () => undefined;
  onStop: (queue: DeviceQueue) => void = () => undefined;
  /** A buffer was taken from a ring for honest work. */
  onTake: (queue: DeviceQueue, chain: Chain) => void = () => undefined;
  /** Frames from the guest with the queue and the net header that came with them. */
  onOutgoing: (frame: Buffer, header: Buffer, queue: number) => void = () => undefined;
  private system: System | undefined;
  private path = "";
  private listening = -1;
  private wake = -1;
  private session: Session | undefined;
  private readonly log: string[] = [];
  private failure: Error | undefined;
  private stopped = false;
  private loop: Promise<void> = Promise.resolve();
  private turn = 0;

  constructor(private readonly options: VhostUserDeviceOptions = {}) {
    super();
  }

  async available(): Promise<string | undefined> {
    try {
      await loadSystem();
    } catch (error) {
      if (error instanceof EnvironmentError) return error.message;
      throw error;
    }
    return vhostUserUnavailable(findQemu());
  }

  private get pairs(): number {
    return this.options.queues ?? 1;
  }

  private get features(): readonly DeviceFeature[] {
    const { features = USUAL_FEATURES } = this.options;
    return this.pairs > 1 ? [...features, "mq"] : features;
  }

  async start(): Promise<void> {
    const system = await loadSystem();
    this.system = system;
    this.path = join(scratchDirectory(), "vhost-user");
    this.listening = system.listen(this.path);
    this.wake = system.eventfd();
    this.loop = this.run(system).catch((error: unknown) => this.fail(error));
  }

  netdev(id: string): readonly string[] {
    const again = this.options.reconnect === true ? `,reconnect-ms=${RECONNECT_MS}` : "";
    const several = this.pairs > 1 ? `,queues=${this.pairs}` : "";
    return [
      ...["-chardev", `socket,id=${id}-chardev,path=${this.path}${again}`],
      ...["-netdev", `vhost-user,id=${id},chardev=${id}-chardev${several}`],
    ];
  }

  get deviceOptions(): DeviceOptions {
    const several = this.pairs > 1 ? { mq: true, vectors: 2 * this.pairs + 2 } : {};
    const packed = this.features.includes("packed");
    return { packed, in_order: this.features.includes("in_order"), ...several };
  }

  // ---- the event loop --------------------------------------------------------------------------

  private async run(system: System): Promise<void> {
    while (!this.stopped) {
      const { session } = this;
      const queues = session?.queues ?? [];
      const kicks = queues.flatMap(({ kickFd }) => (kickFd === undefined ? [] : [kickFd]));
      const connection = session === undefined ? this.listening : session.fd;
      const ready = new Set(await system.poll([this.wake, connection, ...kicks], POLL_MS));
      if (ready.has(this.wake)) system.drain(this.wake);
      // A descriptor's number may mean something else after a change: those wait for the next round.
      if (this.stopped || this.session !== session) continue;
      if (ready.has(connection)) this.attend(system);
      if (this.session !== session) continue;
      for (const queue of queues) this.attendTo(system, queue, ready);
    }
  }

  private attend(system: System): void {
    const { session } = this;
    if (session === undefined) {
      const fd = system.accept(this.listening);
      if (fd === undefined) return;
      this.connections++;
      this.note(`connection ${this.connections}`);
      const features = featureBits(this.features);
      const options = { features, pairs: this.pairs, log: (line: string) => this.note(line) };
      this.session = new Session(system, fd, options, this);
    } else if (!session.receive()) {
      this.note("the front end has gone");
      this.disconnect();
    }
  }

  private attendTo(system: System, queue: DeviceQueue, ready: ReadonlySet<number>): void {
    if (queue.kickFd === undefined || !ready.has(queue.kickFd)) return;
    if (system.drain(queue.kickFd) === 0) return;
    queue.kicks++;
    queue.work();
  }

  private note(line: string): void {
    this.log.push(line);
    if (this.log.length > LOG_LINES_MAX) this.log.shift();
  }

  /** What goes wrong in the loop ends the device: QEMU sees the connection end. */
  private fail(error: unknown): void {
    this.failure = error instanceof Error ? error : new HarnessError(messageOf(error));
    this.note(`failed: ${this.failure.message}`);
    this.disconnect();
    this.close();
  }

  // ---- QueueOwner ------------------------------------------------------------------------------

  frameFrom(queue: number, frame: Buffer, header: Buffer): void {
    this.onOutgoing(frame, header, queue);
    this.take(frame);
  }

  took(queue: DeviceQueue, chain: Chain): void {
    this.onTake(queue, chain);
  }

  driverFault(_queue: number, message: string): void {
    this.note(`driver: ${message}`);
    this.driverFaults.push(message);
  }

  started(queue: DeviceQueue): void {
    this.starts++;
    this.onStart(queue);
  }

  stopping(queue: DeviceQueue): void {
    this.onStop(queue);
  }

  again(queue: DeviceQueue): void {
    setImmediate(() => queue.work());
  }

  // ---- for tests -------------------------------------------------------------------------------

  /** The queue with this index, of the connection at hand. Throws when QEMU is not connected. */
  queue(index: number): DeviceQueue {
    const queue = this.session?.queues[index];
    if (queue === undefined) throw this.failure ?? new HarnessError(`no queue ${index}`);
    return queue;
  }

  /** The guest's memory; empty until QEMU has handed it over. */
  get memory(): GuestMemory {
    const { session } = this;
    if (session === undefined) throw this.failure ?? new HarnessError("QEMU is not connected");
    return session.memory;
  }

  /** All queues of the connection at hand; none when QEMU is not connected. */
  get queues(): readonly DeviceQueue[] {
    return this.session?.queues ?? [];
  }

  /** Queues whose rings run. */
  get running(): readonly DeviceQueue[] {
    return this.queues.filter(({ running }) => running);
  }

  /** Waits until `condition` holds; it is asked again whenever there may be something new. */
  async until(condition: () => boolean, timeoutMs: number, what: string): Promise<void> {
    const end = Date.now() + timeoutMs;
    while (!condition()) {
      if (this.failure !== undefined) throw this.failure;
      if (Date.now() > end) {
        throw new HarnessError(
          `no ${what} within ${timeoutMs} ms; ${this.log.slice(-8).join("; ")}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, CHECK_MS));
    }
  }

  /** Gives a frame to the guest, on the receive queues by turns. Resolves when a ring has it. */
  send(frame: Uint8Array): Promise<void> {
    return this.sendWith(frame, {});
  }

  /** The same with a header of the caller's own, which may lie; on one queue pair if given. */
  async sendWith(frame: Uint8Array, header: NetHeaderFields, pair?: number): Promise<void> {
    const usable = () =>
      this.running.filter(({ index, receives }) => {
        return receives && (pair === undefined || index === 2 * pair);
      });
    await this.until(() => usable().length > 0, SEND_TIMEOUT_MS, "receive queue that runs");
    const queues = usable();
    const queue = queues[this.turn++ % queues.length];
    if (queue === undefined) throw new HarnessError("no receive queue runs");
    this.noteSent(frame);
    queue.push(frame, header);
    await this.until(() => queue.waiting === 0, SEND_TIMEOUT_MS, `buffer in ${queue.name}`);
  }

  /** Ends the connection, whatever is under way; with `reconnect` QEMU comes back. */
  disconnect(): void {
    const { session, system } = this;
    // Those that hear of queues that stop may still look at memory.
    session?.close();
    this.session = undefined;
    if (session !== undefined && system !== undefined && !this.stopped) system.signal(this.wake);
  }

  async stop(): Promise<void> {
    if (this.stopped) return;
    this.stopped = true;
    this.close();
    const { system } = this;
    if (system === undefined) return;
    if (this.wake >= 0) system.signal(this.wake);
    await withDeadline(this.loop, STOP_TIMEOUT_MS, () => "the vhost-user device does not stop");
    this.session?.close();
    this.session = undefined;
    for (const fd of [this.listening, this.wake]) if (fd >= 0) system.close(fd);
    rmSync(this.path, { force: true });
  }

  override artifacts(): Artifact[] {
    const content = [...this.log, ...this.driverFaults].map((line) => `${line}\n`).join("");
    return [...super.artifacts(), { name: "vhost-user.log", content }];
  }
}

/** A new vhost-user device in this process, for one VM. */
export function vhostUserDevice(options: VhostUserDeviceOptions = {}): VhostUserDevice {
  return new VhostUserDevice(options);
}
