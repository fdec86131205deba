/**
 * app=forward: everything received on one of two NICs goes out on the other, in the buffer that it
 * came in. runner.ts makes one for each lane; lanes.ts joins the two of a CPU, which share one pool
 * of packets, so that a buffer may be in either NIC's ring.
 *
 *   NIC 0 receive ring -> burst -> NIC 1 transmit ring -> NIC 0 receive ring
 *
 * As many packets are under way as the receive ring has places: what it lacks is what the transmit
 * ring has. They come back in the order in which they went, so every lap a packet is in the same
 * places of both rings, and a descriptor that did not change is not written (split-offer.ts). What
 * is dropped, or stays for long, or comes out of order, is made up for from the pool.
 *
 * Nothing waits between the rings: what the other NIC has no room for is dropped and counted. A
 * packet is only forwarded when another one is free to take its place in the receive ring, and a
 * transmit ring may hold only so many buffers: a side that does not send cannot stop the other.
 * What a received header asks for (checksum, segmentation) is asked of the other NIC; features that
 * one side could not carry are not negotiated on the other (nics-forward.ts).
 */
import * as config from "../config";
import { Burst, BURST_MAX, Packet } from "../../drivers/net/packet";
import { QueuePair } from "../../drivers/net/queue-pair";
import { segmentsOf } from "../../drivers/net/tx-queue";
import { TURNFUL } from "../../drivers/virtio/ring";
import { Lane } from "../lane";
import { copyMac } from "../net/address";
import { DropReason } from "../net/drops";
import { ETHERNET_BYTES } from "../net/ethernet";
import { Stack } from "../net/stack";
import { NEVER, deadlineIn } from "../time";

/** A turn's worth at full speed: the buffers are spread over two rings. */
const HALF_TURNFUL: u32 = TURNFUL >> 1;

const MAC_BYTES: usize = 6;
/** How soon to look for sent packets when no buffer is left to receive into. */
const STARVED_US: u64 = 1000;

export class Forward {
  private readonly received: Burst = Burst.create();
  private readonly sent: Burst = Burst.create();
  private other: Lane | null = null;
  /** Buffers that the other NIC's transmit ring may hold. */
  private buffersMax: u32 = 0;

  constructor(
    readonly pair: QueuePair,
    readonly stack: Stack,
  ) {}

  /** At boot, before the first step. */
  join(other: Lane): void {
    this.other = other;
    const rings = this.pair.rx.ring.size + other.pair.rx.ring.size;
    const pool = this.pair.pool.size;
    // What the receive rings do not take is shared out evenly.
    this.buffersMax = (pool - min(rings, pool)) >> 1;
  }

  /** Takes a burst and sends it on. False when there was none. */
  step(): bool {
    const pair = this.pair;
    const other = this.other;
    const received = this.received;
    received.clear();
    if (other == null || !other.running) {
      pair.reclaim();
      const lost = pair.take(received, BURST_MAX);
      this.dropAll();
      pair.refill();
      return lost > 0;
    }
    const out = other.pair;
    if (out.txRoom() < BURST_MAX) this.recycle(out);
    if (pair.shouldWait(pair.rx.ring, HALF_TURNFUL)) return false;
    let taken = config.mac == config.Mac.Keep ? this.relay(out) : 0;
    if (taken == 0) {
      // Also when it holds merged packets whose last buffers are yet to come.
      taken = pair.take(received, BURST_MAX);
      if (taken > 0) this.pass(out, other.link.mac);
    }
    this.recycle(out);
    return taken > 0;
  }

  /** The short way, from ring to ring. */
  private relay(out: QueuePair): u32 {
    const room = this.buffersMax - min(this.buffersMax, out.tx.buffers);
    const moved = this.pair.rx.relay(out.tx, min(room, BURST_MAX));
    if (moved > 0) out.tx.kick();
    return moved;
  }

  /** Gives the receive ring what the other NIC has sent, and what it lacks beside that. */
  private recycle(out: QueuePair): void {
    const rx = this.pair.rx;
    const tx = out.tx;
    const ring = rx.ring;
    const before = ring.outstanding;
    const isMore = before + tx.buffers > ring.size;
    if (!isMore && this.pair.shouldWait(tx.ring, HALF_TURNFUL)) return;
    // Too many are under way, or they come back out of order.
    if (isMore || rx.takeOver(tx) == 0) tx.reclaim(tx.ring.size);
    const wanted = max(ring.size - min(ring.size, tx.buffers), ring.size >> 1);
    if (ring.outstanding < wanted) rx.provideUpTo(wanted - ring.outstanding);
    if (ring.outstanding != before) rx.kick();
  }

  /** Sends what was received, as far as there is room. `own`: the other NIC's MAC. */
  private pass(out: QueuePair, own: usize): void {
    const received = this.received;
    const sent = this.sent;
    sent.clear();
    const pool = this.pair.pool;
    // A ring with few descriptors can hold many buffers.
    if (pool.free < BURST_MAX || out.tx.buffers >= this.buffersMax)
      out.tx.reclaim(out.tx.ring.size);
    let room = out.txRoom();
    let spare = pool.free;
    let buffers = out.tx.buffers;
    for (let i: u32 = 0; i < received.count; i++) {
      const packet = received.get(i);
      if (packet.length < ETHERNET_BYTES) {
        // No frame, or one whose header is in pieces.
        this.drop(
          packet,
          packet.total < ETHERNET_BYTES ? DropReason.TooShort : DropReason.Truncated,
        );
        continue;
      }
      const segments: u32 = packet.next == null ? 1 : segmentsOf(packet);
      const slots = out.slotsNeeded(packet);
      if (slots > room || segments > spare || buffers + segments > this.buffersMax) {
        this.drop(packet, DropReason.ForwardFull);
        continue;
      }
      room -= slots;
      spare -= segments;
      buffers += segments;
      if (config.mac != config.Mac.Keep) rewrite(packet, own);
      sent.push(packet);
    }
    out.submit(sent);
  }

  private dropAll(): void {
    const received = this.received;
    for (let i: u32 = 0; i < received.count; i++) {
      this.drop(received.get(i), DropReason.ForwardDown);
    }
  }

  private drop(packet: Packet, reason: DropReason): void {
    this.stack.drops.count(reason);
    this.pair.pool.release(packet);
  }

  /** When step() is due without any packet: soon, if buffers are missing to receive one. */
  deadline(): u64 {
    return this.pair.pool.free == 0 ? deadlineIn(STARVED_US) : NEVER;
  }
}

/** As mac= asks for it. */
function rewrite(packet: Packet, own: usize): void {
  const frame = packet.data;
  if (config.mac == config.Mac.Own) {
    copyMac(frame + MAC_BYTES, own);
    return;
  }
  const low = load<u64>(frame);
  const high = load<u32>(frame, 8);
  // destination 6 | source 6, as one 64-bit and one 32-bit word
  store<u64>(frame, (low >> 48) | ((<u64>high) << 16) | (low << 48));
  store<u32>(frame, <u32>(low >> 16), 8);
}
