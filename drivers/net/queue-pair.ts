/**
 * A receive and a transmit queue with the packets that travel between them: what one vCPU owns.
 * Apps and the network stack see only this. Made by device.ts.
 */
import * as machine from "../../kernel/machine";
import { RingFault } from "../virtio/ring";
import { SplitRing } from "../virtio/split-ring";
import { BURST_MAX, Burst, Packet, PacketPool } from "./packet";
import { RxQueue } from "./rx-queue";
import { TxQueue, segmentsOf } from "./tx-queue";

/** Packets beyond what both rings hold: bursts in hand and the stack's own. */
const SPARE_PACKETS: u32 = 2 * BURST_MAX;

export class QueuePair {
  readonly pool: PacketPool;
  readonly rx: RxQueue<SplitRing>;
  readonly tx: TxQueue<SplitRing>;
  /** Interrupt vectors, 0 for none, and whether interrupts are asked for now. */
  rxVector: u32 = 0;
  txVector: u32 = 0;
  private armed: bool = false;
  private one: Burst = Burst.create();

  /** Takes memory for everything: at boot only. */
  constructor(rxSize: u32, txSize: u32, frameBytes: u32) {
    const pool = new PacketPool(rxSize + txSize + SPARE_PACKETS, frameBytes);
    this.pool = pool;
    this.rx = new RxQueue<SplitRing>(new SplitRing(rxSize, false), pool);
    this.tx = new TxQueue<SplitRing>(new SplitRing(txSize, true), pool);
  }

  /** Bytes of memory that a pair of these sizes takes, rounding included. */
  static bytes(rxSize: u32, txSize: u32, frameBytes: u32): u32 {
    const packets = PacketPool.bytes(rxSize + txSize + SPARE_PACKETS, frameBytes);
    return packets + SplitRing.bytes(rxSize, false) + SplitRing.bytes(txSize, true) + 8192;
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

  /** Sends a burst; there must be room for it (`txRoom`, `slotsNeeded`). */
  submit(burst: Burst): void {
    if (burst.count == 0) return;
    this.tx.submit(burst);
    this.tx.kick();
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

  /** Sends one packet of the stack's own. False when the ring is full: the packet stays with the caller. */
  send(packet: Packet): bool {
    this.tx.reclaim(1);
    if (this.tx.ring.free == 0) return false;
    this.one.clear();
    this.one.push(packet);
    this.submit(this.one);
    return true;
  }

  // ---- interrupts --------------------------------------------------------------------------------

  /**
   * Asks for an interrupt on the next received packet, and if the transmit ring is nearly full on
   * room in it. True: there is work already, do not sleep.
   */
  arm(): bool {
    this.armed = true;
    if (this.rx.ring.enableInterrupts(1)) return true;
    const outstanding = this.tx.ring.outstanding;
    if (this.tx.ring.free >= BURST_MAX || outstanding == 0) return false;
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

  // ---- state --------------------------------------------------------------------------------------

  isBroken(): bool {
    return this.rx.isBroken() || this.tx.isBroken();
  }

  /** What the device did wrong, for the event about it. */
  faultMessage(): string {
    if (this.rx.mergeFault) return "receive queue: num_buffers is more than the ring holds";
    if (this.rx.ring.fault != RingFault.NONE) return rxFault(this.rx.ring.fault);
    return txFault(this.tx.ring.fault);
  }

  /** Interrupts that arrived for this pair's receive and transmit queue. */
  rxInterrupts(): u32 {
    return this.rxVector != 0 ? machine.interruptCount(this.rxVector) : 0;
  }

  txInterrupts(): u32 {
    return this.txVector != 0 ? machine.interruptCount(this.txVector) : 0;
  }
}

function rxFault(fault: RingFault): string {
  if (fault == RingFault.USED_INDEX) return "receive queue: the used index jumped";
  if (fault == RingFault.USED_ID) return "receive queue: a used id is beyond the ring";
  return "receive queue: a used id is not outstanding";
}

function txFault(fault: RingFault): string {
  if (fault == RingFault.USED_INDEX) return "transmit queue: the used index jumped";
  if (fault == RingFault.USED_ID) return "transmit queue: a used id is beyond the ring";
  return "transmit queue: a used id is not outstanding";
}
