/**
 * The control queue: one command at a time, of which the driver never waits longer than it says.
 * Made by device.ts; commands.ts knows what to say with it. virtio 1.4 §5.1.9.5
 *
 * A command is one chain of two descriptors in memory of our own, the first of them a copy: what was
 * said is told again after a reset (settings.ts), and must be what we said.
 *
 *   shown  class 1 | command 1 | data ...            the device reads
 *   into   ack 1 | result ...                        the device writes
 */
import { allocate } from "../../kernel/memory/arena";
import * as machine from "../../kernel/machine";
import { deadlineIn } from "../../kernel/time";
import { Doorbell } from "../virtio/doorbell";
import { Ring, RingFault, RingOptions } from "../virtio/ring";
import { makeRing } from "../virtio/rings";
import { Burst, Packet } from "./packet";

const RING_SIZE_MAX: u32 = 64;
/** Room for a command's data and for an answer's, in bytes. */
export const CONTROL_DATA_BYTES: u32 = 2048;
const HEAD_BYTES: u32 = 2;
const ACK_OK: u32 = 0;
/** What stands in the ack before the device writes it; not a value that the specification has. */
const ACK_NONE: u32 = 0xff;

/** How long a device may take to answer, in microseconds. */
const TIMEOUT_US: u64 = 2000000;

export enum ControlState {
  /** Nothing was asked, or the answer has been taken. */
  Idle,
  /** The device has not answered yet. */
  Pending,
  /** The device did as it was told. */
  Done,
  /** The device refused. */
  Refused,
  /** The device did not answer in time, or broke the ring: only a reset helps. */
  Failed,
}

export class ControlQueue {
  readonly ring: Ring;
  state: ControlState = ControlState.Idle;
  readonly doorbell: Doorbell = new Doorbell();
  /** The last command: class, command and data as the device gets them, and their bytes. */
  bytes: u32 = 0;
  /** Bytes of the last result, without the ack; and how many there was room for. */
  resultBytes: u32 = 0;
  private resultMax: u32 = 0;
  private deadline: u64 = 0;
  private readonly out: usize = allocate(HEAD_BYTES + CONTROL_DATA_BYTES, 64);
  /** What the device is shown of it: what it may write there, we never read. */
  private readonly shown: usize = allocate(HEAD_BYTES + CONTROL_DATA_BYTES, 64);
  /** One byte in front of a cache line, so that the result behind the ack is aligned. */
  private readonly into: usize = allocate(64 + CONTROL_DATA_BYTES, 64) + 63;
  private readonly token: Packet = new Packet();
  private readonly done: Burst = Burst.create();

  /** `sizeMax`: what the device allows, a power of two unless `packed`. At boot only. */
  constructor(packed: bool, sizeMax: u32) {
    this.ring = makeRing(packed, min(sizeMax, RING_SIZE_MAX), false);
  }

  /** For a device that was reset. */
  renew(options: RingOptions): void {
    this.ring.reset(options);
    this.ring.disableInterrupts();
    this.state = ControlState.Idle;
  }

  /** Where to put the data of the next command; CONTROL_DATA_BYTES long. */
  get data(): usize {
    return this.out + HEAD_BYTES;
  }

  /** The last command as it was said, to be said again with `repeat`. */
  get command(): usize {
    return this.out;
  }

  /** What is behind the ack of the last answer; at a multiple of 64. */
  get result(): usize {
    return this.into + 1;
  }

  /**
   * Sends a command with `bytes` bytes of data and room for a result of `resultMax` bytes; false
   * while another one is under way.
   */
  send(klass: u32, command: u32, bytes: u32, resultMax: u32 = 0): bool {
    if (!this.isFree) return false;
    store<u8>(this.out, <u8>klass);
    store<u8>(this.out, <u8>command, 1);
    this.offer(HEAD_BYTES + bytes, resultMax);
    return true;
  }

  /** Sends what `command` was before. */
  repeat(command: usize, bytes: u32): bool {
    if (!this.isFree) return false;
    memory.copy(this.out, command, bytes);
    this.offer(bytes, 0);
    return true;
  }

  private get isFree(): bool {
    return this.state != ControlState.Pending && this.state != ControlState.Failed;
  }

  private offer(bytes: u32, resultMax: u32): void {
    this.bytes = bytes;
    this.resultMax = resultMax;
    store<u8>(this.into, <u8>ACK_NONE);
    const ring = this.ring;
    memory.copy(this.shown, this.out, bytes);
    ring.offerCommand(this.token, this.shown, bytes, this.into, 1 + resultMax);
    ring.publish();
    if (ring.needsNotification()) this.doorbell.ring(ring);
    this.state = ControlState.Pending;
    this.deadline = deadlineIn(TIMEOUT_US);
  }

  /** virtio 1.4 §2.7.8.3: what the device says it did not write means nothing. */
  private readAnswer(used: u32): ControlState {
    if (used == 0) return ControlState.Failed;
    this.resultBytes = min(used - 1, this.resultMax);
    const ack = machine.sharedRead8(this.into);
    return ack == ACK_OK ? ControlState.Done : ControlState.Refused;
  }

  /** Looks whether the device has answered; answers the state. */
  poll(now: u64): ControlState {
    if (this.state != ControlState.Pending) return this.state;
    this.done.clear();
    if (this.ring.take(this.done, 1) == 1) {
      this.state = this.readAnswer(this.done.used(0));
    } else if (this.ring.fault != RingFault.NONE || now > this.deadline) {
      this.state = ControlState.Failed;
    }
    return this.state;
  }

  /** Waits for the answer: at boot and after a reset, when nothing else runs. */
  wait(): ControlState {
    while (this.poll(machine.tsc()) == ControlState.Pending) machine.pause();
    return this.state;
  }
}
