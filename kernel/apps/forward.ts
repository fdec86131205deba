/**
 * app=forward: everything received on one of two NICs goes out on the other, in the buffer that it
 * came in. runner.ts makes one for each lane; lanes.ts joins the two of a CPU, which share one pool
 * of packets, so that a buffer may be in either NIC's ring.
 *
 *   NIC 0 receive ring -> burst -> NIC 1 transmit ring -> pool -> any receive ring
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
import { Lane } from "../lane";
import { copyMac } from "../net/address";
import { DropReason } from "../net/drops";
import { ETHERNET_BYTES } from "../net/ethernet";
import { Stack } from "../net/stack";
import { NEVER, deadlineIn } from "../time";

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
    const received = this.received;
    received.clear();
    // The sleep that follows is cut short while there are sent packets to be had.
    pair.reclaim();
    // Also when it holds merged packets whose last buffers are yet to come.
    const taken = pair.take(received, BURST_MAX);
    if (taken > 0) this.pass();
    pair.refill();
    return taken > 0;
  }

  /** Sends what was received, as far as there is room. */
  private pass(): void {
    const other = this.other;
    if (other == null || !other.running) {
      this.dropAll();
      return;
    }
    const out = other.pair;
    const received = this.received;
    const sent = this.sent;
    sent.clear();
    out.reclaim();
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
      if (config.mac != config.Mac.Keep) rewrite(packet, other.link.mac);
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
