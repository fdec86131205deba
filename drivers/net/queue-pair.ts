/**
 * A receive and a transmit queue with the packets that travel between them: what one vCPU owns.
 * Apps and the network stack see only this. Made by kernel/lanes.ts.
 */
import * as machine from "../../kernel/machine";
import * as features from "../virtio/features";
import { Ring, RingFault, RingOptions } from "../virtio/ring";
import { makeRing, ringBytes } from "../virtio/rings";
import { NO_VECTOR, allocateVector } from "../../kernel/interrupts";
import { PairRings, PairSetup } from "./pair-setup";
import {
  BURST_MAX,
  Burst,
  ETHERNET_BYTES,
  HASH_HEADER_BYTES,
  PLAIN_HEADER_BYTES,
  Packet,
  PacketPool,
} from "./packet";
import { Offloads } from "./header";
import { RxQueue } from "./rx-queue";
import { TxQueue, segmentsOf } from "./tx-queue";

/** Packets beyond what both rings hold: bursts in hand and the stack's own. */
export const SPARE_PACKETS: u32 = 2 * BURST_MAX;

export class QueuePair {
  /** What was agreed upon with the device; the stack and the apps ask it as well. */
  readonly offloads: Offloads;
  readonly pool: PacketPool;
  readonly rx: RxQueue;
  readonly tx: TxQueue;
  /** Interrupt vectors at this CPU, 0 for none. */
  rxVector: u32 = NO_VECTOR;
  txVector: u32 = NO_VECTOR;
  /** Whether interrupts are asked for now. */
  private armed: bool = false;
  /** `shouldWait` has said yes in this turn. */
  waits: bool = false;
  private one: Burst = Burst.create();
  private readonly options: RingOptions = new RingOptions();

  /** Whether nobody else has packets of the pool. */
  private readonly ownsPool: bool;

  /**
   * Takes memory for everything: at boot only. The pair is usable after `renew`. `shared`: a pool
   * to use together with its owner, which then lives through resets of either device.
   */
  constructor(setup: PairSetup, shared: PacketPool | null = null) {
    const pool = shared != null ? shared : new PacketPool(setup.packets, setup.frameBytes);
    const offloads = new Offloads();
    this.offloads = offloads;
    this.pool = pool;
    const packed = setup.packed != 0;
    // A pool for more than this pair has others that use it.
    this.ownsPool = shared == null && setup.packets == packetsFor(setup);
    this.rx = new RxQueue(makeRing(packed, setup.rxSize, false), pool, offloads);
    this.tx = new TxQueue(makeRing(packed, setup.txSize, true), pool, offloads);
    if (setup.polling == 0) {
      this.rxVector = allocateVector();
      this.txVector = allocateVector();
    }
  }

  /** Bytes of memory that a pair takes, rounding included. */
  static bytes(setup: PairSetup): u32 {
    return PacketPool.bytes(packetsFor(setup), setup.frameBytes) + QueuePair.ringsBytes(setup);
  }

  /** The same without the packets. */
  static ringsBytes(setup: PairSetup): u32 {
    const packed = setup.packed != 0;
    return ringBytes(packed, setup.rxSize, false) + ringBytes(packed, setup.txSize, true) + 8192;
  }

  /** The device is gone: takes back every packet that it had. */
  empty(): void {
    this.takeBack();
    this.rx.ring.reset(this.options);
    this.tx.ring.reset(this.options);
    this.rx.reset(false);
    this.tx.reset(0);
    this.armed = false;
  }

  /** The device owns nothing any more, so what is in the rings is free. */
  private takeBack(): void {
    this.tx.letGo();
    // Others may have packets of the pool.
    if (this.ownsPool) this.pool.reset();
    else this.rx.letGo();
  }

  /** Empties everything, for a device that was reset. */
  renew(setup: PairSetup): void {
    const accepted = ((<u64>setup.featuresHigh) << 32) | setup.featuresLow;
    this.offloads.set(accepted);
    // virtio 1.4 §5.1.9.3.1: the header holds all fields that what was negotiated asks for.
    const headerBytes = features.has(accepted, features.HASH_REPORT)
      ? HASH_HEADER_BYTES
      : PLAIN_HEADER_BYTES;
    this.pool.headerBytes = headerBytes;
    this.rx.ring.headerBytes = headerBytes;
    this.tx.ring.headerBytes = headerBytes;
    this.takeBack();
    const options = this.options;
    options.eventIdx = setup.eventIdx != 0;
    options.indirect = setup.indirect != 0;
    options.inOrder = setup.inOrder != 0;
    this.rx.ring.reset(options);
    this.tx.ring.reset(options);
    this.rx.reset(setup.mergeable != 0);
    this.tx.reset(setup.mtu + ETHERNET_BYTES);
    this.rx.ring.disableInterrupts();
    this.tx.ring.disableInterrupts();
    this.armed = false;
  }

  /**
   * Empties one queue, which was reset alone; the other one, and packets in hand, stay as they are.
   * A receive queue is filled again (`refill`) when the device has it.
   */
  renewQueue(isRx: bool): void {
    const ring = isRx ? this.rx.ring : this.tx.ring;
    if (isRx) this.rx.letGo();
    else this.tx.letGo();
    ring.reset(this.options);
    ring.disableInterrupts();
  }

  /** Where the rings are and what interrupts them: what the device has to be told. */
  describe(rings: PairRings): void {
    rings.rxDesc = this.rx.ring.descAddress();
    rings.rxDriver = this.rx.ring.driverAddress();
    rings.rxDevice = this.rx.ring.deviceAddress();
    rings.txDesc = this.tx.ring.descAddress();
    rings.txDriver = this.tx.ring.driverAddress();
    rings.txDevice = this.tx.ring.deviceAddress();
    rings.rxVector = this.rxVector;
    rings.txVector = this.txVector;
  }

  /**
   * The device runs: from here on it may be notified. virtio 1.4 §3.1.1. The receive ring is filled
   * now and not before, for a packed ring is handed over all zero (§2.8.13).
   */
  start(setup: PairSetup): void {
    const withData = setup.notificationData != 0;
    this.rx.doorbell.address = setup.rxNotify;
    this.tx.doorbell.address = setup.txNotify;
    this.rx.doorbell.reset(setup.rxNotifyName, withData);
    this.tx.doorbell.reset(setup.txNotifyName, withData);
    this.rx.provide();
    this.rx.kick();
  }

  // ---- the four verbs --------------------------------------------------------------------------

  /** Appends up to `max` received packets to the burst; answers how many buffers they took. */
  @inline
  take(burst: Burst, max: u32): u32 {
    return this.rx.take(burst, max);
  }

  /** Gives the device empty buffers for those that were taken. */
  refill(): void {
    if (this.rx.ring.free == 0) return;
    this.rx.provide();
    this.rx.kick();
  }

  /**
   * Gives the device the buffers of the burst that was taken last and of which nobody has kept
   * anything.
   */
  @inline
  giveBack(burst: Burst): void {
    this.rx.giveBack(burst);
    this.rx.kick();
  }

  /** Receives up to `max` packets that nobody looks at; answers how many buffers they took. */
  @inline
  discard(max: u32): u32 {
    const taken = this.rx.discard(max);
    if (taken > 0) this.rx.kick();
    return taken;
  }

  /** Sends a burst; there must be room for it (`txRoom`, `slotsNeeded`). */
  submit(burst: Burst): void {
    if (burst.count == 0) return;
    this.tx.submit(burst);
    this.tx.kick();
  }

  /**
   * Whether a turn had best leave a device at full speed alone (`Ring.shouldWait`); the next turn
   * comes at once then.
   */
  shouldWait(ring: Ring, turnful: u32): bool {
    if (!ring.shouldWait(turnful)) return false;
    this.waits = true;
    return true;
  }

  /** Sends the packets again that the next `count` descriptors held last, as they are. */
  @inline
  submitAgain(count: u32, bytes: u64): void {
    this.tx.submitAgain(count, bytes);
    this.tx.kick();
  }

  /**
   * Sends up to `max` packets again that came back, as they are, `burst` of them at a time, `bytes`
   * bytes each; answers how many. The caller has all that the ring held last. NOT_STRAIGHT: as in
   * `Ring.recycle`.
   */
  @inline
  resubmit(max: u32, burst: u32, bytes: u32): i32 {
    const count = this.tx.resubmit(max, burst, bytes);
    this.tx.kick();
    return count;
  }

  /** Gives sent packets back to the pool, as far as that is needed for a full burst of room. */
  @inline
  reclaim(): void {
    this.tx.reclaim(BURST_MAX);
  }

  /** Takes up to a burst of sent packets back without giving them to the pool. */
  @inline
  reclaimInto(burst: Burst): u32 {
    return this.tx.ring.take(burst, BURST_MAX);
  }

  /** How many descriptors the transmit ring has free. */
  @inline
  txRoom(): u32 {
    return this.tx.ring.free;
  }

  /** How many descriptors it takes to send a packet; at least 1. */
  slotsNeeded(packet: Packet): u32 {
    if (packet.next == null) return 1;
    return max<u32>(1, this.tx.ring.descriptorsFor(segmentsOf(packet)));
  }

  /**
   * Sends one packet of the stack's own. False when the ring is full: the packet stays with the
   * caller.
   */
  send(packet: Packet): bool {
    this.tx.reclaim(1);
    if (this.tx.ring.free == 0) return false;
    this.one.clear();
    this.one.push(packet);
    this.submit(this.one);
    return true;
  }

  // ---- interrupts -------------------------------------------------------------------------------

  /** Whether a device can be asked for an interrupt some packets ahead. virtio 1.4 §2.7.7, §2.8.10 */
  get countsAhead(): bool {
    return this.options.eventIdx && this.rxVector != 0;
  }

  /**
   * Asks for an interrupt when `ahead` more packets have been received (more than 1 only if it
   * `countsAhead`), and if the transmit ring is nearly full on room in it. `blocked`: without room
   * nothing can be done with received packets, so only room matters. True: there is work already,
   * do not sleep.
   */
  arm(blocked: bool, ahead: u32): bool {
    this.armed = true;
    // The device has to have that many buffers, and should not run out of them meanwhile.
    const enough = max<u32>(1, min(ahead, this.rx.ring.outstanding >> 1));
    if (!blocked && this.rx.ring.enableInterrupts(enough)) return true;
    const outstanding = this.tx.ring.outstanding;
    if (outstanding == 0 || (!blocked && this.tx.ring.free >= BURST_MAX)) return false;
    return this.tx.ring.enableInterrupts(max<u32>(1, outstanding >> 1));
  }

  /** Takes the request back while the queues are being polled. */
  @inline
  disarm(): void {
    if (!this.armed) return;
    this.armed = false;
    this.rx.ring.disableInterrupts();
    this.tx.ring.disableInterrupts();
  }

  // ---- state ------------------------------------------------------------------------------------

  isBroken(): bool {
    return this.rx.isBroken() || this.tx.isBroken();
  }

  /** What the device did wrong, as a number for `faultMessage`, when the pair `isBroken`. */
  fault(): u32 {
    if (this.rx.mergeFault) return FAULT_MERGE;
    if (this.rx.ring.fault != RingFault.NONE) return <u32>this.rx.ring.fault;
    const fault = this.tx.ring.fault;
    return fault != RingFault.NONE ? <u32>fault + FAULT_TX : FAULT_STUCK;
  }

  /** Interrupts that arrived for this pair's receive and transmit queue. */
  rxInterrupts(): u32 {
    return this.rxVector != 0 ? machine.interruptCount(this.rxVector) : 0;
  }

  txInterrupts(): u32 {
    return this.txVector != 0 ? machine.interruptCount(this.txVector) : 0;
  }
}

/** Packets that a pair of its own needs: what both rings hold, and spare ones. */
export function packetsFor(setup: PairSetup): u32 {
  return setup.rxSize + setup.txSize + SPARE_PACKETS;
}

/** Faults of the transmit ring are numbered from here on, those of the receive ring from 1 on. */
const FAULT_TX: u32 = 8;
const FAULT_MERGE: u32 = 16;
const FAULT_STUCK: u32 = 17;

export function isStuck(fault: u32): bool {
  return fault == FAULT_STUCK;
}

/** Whether it is the receive queue that went wrong. */
export function isReceiveFault(fault: u32): bool {
  return fault < FAULT_TX || fault == FAULT_MERGE;
}

/** What a number of `QueuePair.fault` means. */
export function faultMessage(fault: u32): string {
  if (fault == FAULT_STUCK) return "transmit queue: the device sends nothing any more";
  if (fault == FAULT_MERGE) return "receive queue: num_buffers is more than the ring holds";
  if (fault == RingFault.USED_INDEX) return "receive queue: the used index jumped";
  if (fault == RingFault.USED_ID) return "receive queue: a used id is beyond the ring";
  if (fault < FAULT_TX) return "receive queue: a used id is not outstanding";
  if (fault == FAULT_TX + RingFault.USED_INDEX) return "transmit queue: the used index jumped";
  if (fault == FAULT_TX + RingFault.USED_ID) return "transmit queue: a used id is beyond the ring";
  return "transmit queue: a used id is not outstanding";
}
