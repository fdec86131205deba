// One connection of a vhost-user device: answers the front end's messages, keeps its memory and its
// queues. Made by vhost-user-device.ts for each connection; ends with it.

import { HarnessError } from "../errors";
import { GuestMemory } from "./vhost-user-device-memory";
import {
  HEADER_BYTES,
  type Header,
  numberReply,
  PROTOCOL_FEATURE,
  parseHeader,
  parseMemoryTable,
  parseNumber,
  parseVringAddresses,
  parseVringState,
  REQUEST,
  requestName,
  VRING_INDEX_MASK,
  VRING_NO_FD,
  vringReply,
} from "./vhost-user-device-protocol";
import { DeviceQueue, type QueueOwner } from "./vhost-user-device-queue";
import type { System } from "./vhost-user-device-system";

const PROTOCOL_FEATURES =
  (1n << BigInt(PROTOCOL_FEATURE.MQ)) | (1n << BigInt(PROTOCOL_FEATURE.REPLY_ACK));
/** Messages that one turn reads before queues get theirs. */
const TURN_MAX = 64;

type Handler = (payload: Buffer, fds: readonly number[]) => Buffer | undefined;

/** What a session is made for. */
export interface SessionOptions {
  readonly features: bigint;
  readonly pairs: number;
  readonly log: (line: string) => void;
}

export class Session {
  readonly memory: GuestMemory;
  readonly queues: readonly DeviceQueue[];
  /** Descriptors that came with the message at hand and that nobody has taken. */
  private loose: number[] = [];
  private header: Header | undefined;
  private part: Buffer = Buffer.alloc(HEADER_BYTES);
  private filled = 0;
  private isOpen = true;

  constructor(
    private readonly system: System,
    readonly fd: number,
    private readonly options: SessionOptions,
    owner: QueueOwner,
  ) {
    this.memory = new GuestMemory(system);
    const indexes = Array.from({ length: 2 * options.pairs }, (_, index) => index);
    this.queues = indexes.map((index) => new DeviceQueue(index, this.memory, system, owner));
  }

  /** Closes and unmaps everything; queues that run are stopped first. */
  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    for (const queue of this.queues) queue.stop();
    this.dropLoose();
    this.memory.close();
    this.system.close(this.fd);
  }

  private dropLoose(): void {
    for (const fd of this.loose.splice(0)) this.system.close(fd);
  }

  /** Handles what has arrived; false when the front end has gone. */
  receive(): boolean {
    for (let i = 0; i < TURN_MAX && this.isOpen; i++) {
      // Exactly a header, then exactly its payload: descriptors come with the header's first byte.
      const found = this.system.receive(this.fd, this.part.subarray(this.filled));
      if (found === undefined) return true;
      this.loose.push(...found.fds);
      if (found.bytes === 0) return false;
      this.filled += found.bytes;
      if (this.filled === this.part.length) this.partIsWhole();
    }
    return true;
  }

  private partIsWhole(): void {
    if (this.header === undefined) {
      const header = parseHeader(this.part);
      if (header.size === 0) this.handle(header, Buffer.alloc(0));
      else this.expect(header, header.size);
    } else this.handle(this.header, this.part);
  }

  private expect(header: Header | undefined, bytes: number): void {
    this.header = header;
    this.part = Buffer.from(new ArrayBuffer(bytes));
    this.filled = 0;
  }

  private handle(header: Header, payload: Buffer): void {
    const { needsReply, request } = header;
    this.expect(undefined, HEADER_BYTES);
    const name = requestName(request);
    this.options.log(`<- ${name} ${payload.toString("hex")} ${this.loose.length} fds`);
    const handler = this.handlers.get(request);
    if (handler === undefined) throw new HarnessError(`vhost-user: ${name} was not agreed upon`);
    const answer = handler(payload, this.loose.splice(0));
    if (answer !== undefined) this.reply(answer);
    // REPLY_ACK: 0 is success; a request with an answer of its own has been answered.
    else if (needsReply) this.reply(numberReply(request, 0n));
  }

  private reply(answer: Buffer): void {
    this.options.log(`-> ${answer.toString("hex")}`);
    // That the front end has gone is what the next read says.
    this.system.send(this.fd, answer);
  }

  private queue(index: number): DeviceQueue {
    const queue = this.queues[index];
    if (queue === undefined) throw new HarnessError(`vhost-user: there is no queue ${index}`);
    return queue;
  }

  private readonly handlers: ReadonlyMap<number, Handler> = new Map<number, Handler>([
    [REQUEST.GET_FEATURES, () => numberReply(REQUEST.GET_FEATURES, this.options.features)],
    [REQUEST.SET_FEATURES, (payload) => this.setFeatures(parseNumber(payload))],
    [REQUEST.SET_OWNER, () => undefined],
    [REQUEST.RESET_OWNER, () => undefined],
    [
      REQUEST.GET_PROTOCOL_FEATURES,
      () => numberReply(REQUEST.GET_PROTOCOL_FEATURES, PROTOCOL_FEATURES),
    ],
    [REQUEST.SET_PROTOCOL_FEATURES, () => undefined],
    [REQUEST.GET_QUEUE_NUM, () => numberReply(REQUEST.GET_QUEUE_NUM, BigInt(this.options.pairs))],
    [REQUEST.SET_MEM_TABLE, (payload, fds) => this.setMemory(payload, fds)],
    [REQUEST.SET_VRING_NUM, (payload) => this.setNum(payload)],
    [REQUEST.SET_VRING_BASE, (payload) => this.setBase(payload)],
    [REQUEST.SET_VRING_ADDR, (payload) => this.setAddresses(payload)],
    [REQUEST.GET_VRING_BASE, (payload) => this.getBase(payload)],
    [REQUEST.SET_VRING_ENABLE, (payload) => this.enable(payload)],
    [REQUEST.SET_VRING_KICK, (payload, fds) => this.setKick(payload, fds)],
    [REQUEST.SET_VRING_CALL, (payload, fds) => this.setCall(payload, fds)],
    [REQUEST.SET_VRING_ERR, (payload, fds) => this.setError(payload, fds)],
  ]);

  private setFeatures(features: bigint): undefined {
    for (const queue of this.queues) queue.features = features;
  }

  private setMemory(payload: Buffer, fds: readonly number[]): undefined {
    this.memory.replace(parseMemoryTable(payload), fds);
  }

  private setNum(payload: Buffer): undefined {
    const { index, num } = parseVringState(payload);
    this.queue(index).size = num;
  }

  private setBase(payload: Buffer): undefined {
    const { index, num } = parseVringState(payload);
    this.queue(index).base = num;
  }

  private setAddresses(payload: Buffer): undefined {
    const addresses = parseVringAddresses(payload);
    this.queue(addresses.index).addresses = addresses;
  }

  private getBase(payload: Buffer): Buffer {
    const { index } = parseVringState(payload);
    return vringReply(REQUEST.GET_VRING_BASE, { index, num: this.queue(index).stop() });
  }

  private enable(payload: Buffer): undefined {
    const { index, num } = parseVringState(payload);
    const queue = this.queue(index);
    queue.enabled = num !== 0;
    queue.work();
  }

  private queueAndFd(payload: Buffer, fds: readonly number[]): [DeviceQueue, number | undefined] {
    const number = parseNumber(payload);
    const wanted = (number & VRING_NO_FD) !== 0n ? 0 : 1;
    if (fds.length !== wanted) {
      for (const fd of fds) this.system.close(fd);
      throw new HarnessError(`vhost-user: ${fds.length} descriptors, not ${wanted}`);
    }
    return [this.queue(Number(number & VRING_INDEX_MASK)), fds[0]];
  }

  /** A queue is started by the descriptor of its notifications. */
  private setKick(payload: Buffer, fds: readonly number[]): undefined {
    const [queue, fd] = this.queueAndFd(payload, fds);
    queue.setKick(fd);
    if (queue.ring === undefined) queue.start();
    queue.work();
  }

  private setCall(payload: Buffer, fds: readonly number[]): undefined {
    const [queue, fd] = this.queueAndFd(payload, fds);
    queue.setCall(fd);
  }

  private setError(payload: Buffer, fds: readonly number[]): undefined {
    const [, fd] = this.queueAndFd(payload, fds);
    if (fd !== undefined) this.system.close(fd);
  }
}
