/**
 * Which packet each buffer id of a ring stands for, and which ids are free; private memory of the
 * ring formats, split-ring.ts and packed-ring.ts.
 *
 *   held   8 N   packet 4 | descriptors 4     a slot an id (N = size)
 *   free   2 N   id 2                         in a queue, first in, first out
 *
 * A ring begins *straight*: every buffer is one descriptor, and comes back in the order in which it
 * was offered. The ids then are 0 to N - 1 in turn, for ever: the place in the ring says which id is
 * next, which one is outstanding and which one must come back, so that nothing of it is looked up
 * or written. `held` keeps its packet when the buffer comes back, so that a descriptor which gets
 * the packet that it had can stay as it is.
 *
 * A list of several descriptors, or a device that overtakes, ends that until the next reset
 * (`bend`). From then on an id is outstanding if its slot has descriptors, and free ones are in
 * the queue.
 */
import { allocate } from "../../kernel/memory/arena";
import { BURST_MAX, Burst, Packet } from "../net/packet";

/** Where a slot has its number of descriptors. */
const HELD_COUNT: usize = 4;

/** A slot's number of descriptors, 1, as part of the 64-bit word. */
export const ONE_DESCRIPTOR: u64 = (<u64>1) << 32;

export class BufferIds {
  straight: bool = true;
  readonly held: usize;
  private readonly free: usize;
  private head: u32 = 0;
  private tail: u32 = 0;

  /** For a ring of `size` entries. At boot only. */
  constructor(readonly size: u32) {
    this.held = allocate(size << 3, 64);
    this.free = allocate(size << 1, 64);
  }

  /** Bytes of memory for a ring of `size` entries, rounding included. */
  static bytes(size: u32): u32 {
    return size * (8 + 2) + 2 * 64;
  }

  reset(): void {
    this.straight = true;
    memory.fill(this.held, 0, this.size << 3);
  }

  /** Ends the straight order: `count` ids from `first` on are free, in this order. */
  bend(first: u32, count: u32): void {
    this.straight = false;
    this.head = 0;
    this.tail = 0;
    let id = first;
    for (let i: u32 = 0; i < count; i++) {
      store<u32>(this.held + (id << 3), 0, HELD_COUNT);
      this.give(id);
      if (++id == this.size) id = 0;
    }
  }

  /** The id that is given out next, when the ring is no longer straight. */
  @inline
  get next(): u32 {
    return <u32>load<u16>(this.free + (this.head << 1));
  }

  /** Takes the id that is next. */
  @inline
  take(): u32 {
    const id = this.next;
    if (++this.head == this.size) this.head = 0;
    return id;
  }

  /** Puts an id behind the other free ones. */
  @inline
  give(id: u32): void {
    store<u16>(this.free + (this.tail << 1), id);
    if (++this.tail == this.size) this.tail = 0;
  }

  /** Notes what stands behind an id that is offered. */
  @inline
  hold(id: u32, packet: Packet, descriptors: u32): void {
    store<u64>(this.held + (id << 3), changetype<usize>(packet) | ((<u64>descriptors) << 32));
  }

  /** The packet behind an id below `size`, or what the last one was. */
  @inline
  holds(id: u32): u64 {
    return <u64>load<u32>(this.held + (id << 3));
  }

  /** Notes that an id below `size` is back; answers what stood behind it, 0 if nothing did. */
  @inline
  release(id: u32): u64 {
    const slot = this.held + (id << 3);
    const held = load<u64>(slot);
    if (held >> 32 == 0) return 0;
    store<u32>(slot, 0, HELD_COUNT);
    return held;
  }

  /** Fills a burst with packets that are outstanding, and forgets them; the ring is bent. */
  abandon(burst: Burst): void {
    burst.clear();
    for (let id: u32 = 0; id < this.size && burst.count < BURST_MAX; id++) {
      const held = this.release(id);
      if (held != 0) burst.push(changetype<Packet>(<usize>held));
    }
  }
}
