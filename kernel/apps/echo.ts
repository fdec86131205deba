/**
 * app=echo: everything received goes to the stack, and what that answers goes back. main.ts makes
 * one for a queue pair and calls step() again and again. Start reading here.
 *
 * It loses nothing by its own doing: it takes no more packets than the transmit ring has room for
 * answers. When the peer is slow to take them, packets wait in the receive ring, and then in the
 * host.
 */
import { Burst, BURST_MAX } from "../../drivers/net/packet";
import { QueuePair } from "../../drivers/net/queue-pair";
import { Stack } from "../net/stack";
import { NEVER, deadlineIn } from "../time";

/** How soon to look for sent packets when every buffer is in the transmit ring. */
const STARVED_US: u64 = 1000;

export class Echo {
  /** It never ends of itself. */
  readonly done: bool = false;

  private readonly received: Burst = Burst.create();
  private readonly answers: Burst = Burst.create();
  /** The transmit ring has no room for the next answer: only the device can help. */
  blocked: bool = false;
  /** How many of `received` were looked at; those after them wait for room. */
  private next: u32 = 0;

  constructor(
    readonly pair: QueuePair,
    readonly stack: Stack,
  ) {}

  /** The device was reset and all packets are back in the pool: let go of those in hand. */
  restart(): void {
    this.received.clear();
    this.next = 0;
  }

  /** Takes a burst, answers it. False when there was nothing to do. */
  step(now: u64): bool {
    const pair = this.pair;
    pair.reclaim();
    // Merged packets can hold more buffers than the transmit ring has descriptors.
    if (pair.pool.free < BURST_MAX) pair.tx.reclaim(pair.tx.ring.size);
    const worked = this.turn(pair.txRoom());
    pair.refill();
    return worked;
  }

  private turn(room: u32): bool {
    const pair = this.pair;
    this.blocked = room == 0;
    if (room == 0) return false;
    if (this.next == this.received.count) {
      this.received.clear();
      this.next = 0;
      if (pair.take(this.received, min(BURST_MAX, room)) == 0) return false;
    }
    const before = this.next;
    this.answerInto(room);
    pair.submit(this.answers);
    const worked = this.next > before || this.received.count == 0;
    this.blocked = !worked;
    return worked;
  }

  /** Hands packets to the stack as long as `room` descriptors suffice for their answers. */
  private answerInto(room: u32): void {
    const pair = this.pair;
    const received = this.received;
    const answers = this.answers;
    answers.clear();
    while (this.next < received.count) {
      const packet = received.get(this.next);
      const slots = pair.slotsNeeded(packet);
      // A merged packet may need several; they come free, for it never needs more than a burst.
      if (slots > room) return;
      this.next++;
      if (this.stack.receive(packet)) {
        answers.push(packet);
        room -= slots;
      } else {
        pair.pool.release(packet);
      }
    }
  }

  /** When step() is due without any packet: soon, if buffers are missing to receive one. */
  deadline(): u64 {
    return this.pair.pool.free == 0 ? deadlineIn(STARVED_US) : NEVER;
  }
}
