/**
 * What the two ring formats have in common: what the queues of drivers/net/ see of a ring. Its
 * methods work on bursts, and which format's method is meant is decided once a burst, by a
 * comparison that the compiler makes; docs/decisions.md says why the queues are not compiled for
 * each format instead. split-ring.ts and packed-ring.ts are the formats, rings.ts makes one.
 */
import { Burst, PLAIN_HEADER_BYTES, Packet } from "../net/packet";

/** What a device did wrong with a ring. */
export enum RingFault {
  NONE,
  /** The used index moved by more than what is outstanding. */
  USED_INDEX,
  /** A used id is beyond the ring. */
  USED_ID,
  /** A used id names a descriptor that is not the head of anything outstanding. */
  USED_NOT_OUTSTANDING,
}

export const DESC_F_NEXT: u32 = 1;
export const DESC_F_WRITE: u32 = 2;
export const DESC_F_INDIRECT: u32 = 4;
export const DESC_BYTES: u32 = 16;

/** Segments of a packet that an indirect table has room for. */
export const INDIRECT_MAX: u32 = 18;
/** From this many segments on a table costs less than the descriptors that it saves. */
const INDIRECT_FROM: u32 = 3;

/** What was agreed upon with the device for all of its rings. */
@unmanaged
export class RingOptions {
  eventIdx: bool = false;
  indirect: bool = false;
  inOrder: bool = false;
}

/** Buffers that a turn had best have when a device is at full speed (docs/performance.md). */
export const TURNFUL: u32 = 96;
/** So many in a turn are a sign that it is. */
const LOADED: u32 = 24;
/** How often in a row `shouldWait` answers true. */
const PATIENCE: u32 = 64;

/** Answer of `recycle`: nothing was done, and it is not for it to do. */
export const NOT_STRAIGHT: i32 = -1;

export abstract class Ring {
  fault: RingFault = RingFault.NONE;
  /** Descriptors that are free. */
  free: u32 = 0;
  /** Packets that the device has and has not returned. */
  outstanding: u32 = 0;
  /** Bytes of the net header in front of each packet's first segment. */
  headerBytes: u32 = PLAIN_HEADER_BYTES;
  /** What `recycle` has read, which is once, and leaves to `take`: a buffer that came out of turn. */
  protected aside: u64 = 0;
  protected isAside: bool = false;
  /** Of the last `recycle` or `relay`: bytes behind the net headers; wrong used lengths. */
  recycledBytes: u64 = 0;
  recycledWrong: u32 = 0;
  /** How many buffers the last turn moved, and how often `shouldWait` has said yes since. */
  protected recycled: u32 = 0;
  private waited: u32 = 0;
  protected eventIdx: bool = false;
  protected indirect: bool = false;
  protected inOrder: bool = false;
  /** With IN_ORDER: buffers that the last used entry stands for and that were not taken yet. */
  protected batchLeft: u32 = 0;
  /** The used length in that entry, which is that of its last buffer. */
  protected batchBytes: u32 = 0;

  constructor(
    /** Entries. */
    readonly size: u32,
  ) {}

  /** Empties the ring for a device that has just been reset, and sets the options agreed upon. */
  abstract reset(options: RingOptions): void;

  /** The part of `reset` that the formats share. */
  protected begin(options: RingOptions): void {
    this.fault = RingFault.NONE;
    this.free = this.size;
    this.outstanding = 0;
    this.eventIdx = options.eventIdx;
    this.inOrder = options.inOrder;
    this.batchLeft = 0;
    this.isAside = false;
    this.recycled = 0;
    this.waited = 0;
  }

  /** What comes next is not the next buffer in turn, so that `take` has to find out which one it is. */
  @inline
  protected setAside(word: u64): void {
    this.aside = word;
    this.isAside = true;
  }

  /** Of `count` buffers of a batch all but the last one are full; `last` is its used length. */
  @inline
  protected countBatch(count: u32, room: u32, last: u32): void {
    this.recycledBytes += <u64>room * (count - 1);
    if (last - this.headerBytes <= room) this.recycledBytes += last - this.headerBytes;
    else this.recycledWrong++;
  }

  /** Addresses of the three parts as the device sees them. */
  abstract descAddress(): u64;
  abstract driverAddress(): u64;
  abstract deviceAddress(): u64;

  /**
   * Offers the first `count` packets of a burst for the device to write, `bytes` bytes each. The
   * caller has made sure that as many descriptors are free. Not seen before `publish`.
   */
  abstract offerWritable(burst: Burst, count: u32, bytes: u32): void;

  /**
   * Offers `count` packets of a burst, from `first` on, for the device to read, net header
   * included. Each has one segment.
   */
  abstract offerReadable(burst: Burst, first: u32, count: u32): void;

  /**
   * Offers again what the next `count` free descriptors held when they were offered last; the
   * caller has made sure that all of it is its own (`nextHeld`) and unchanged. False, and nothing is
   * offered, if the ring is not straight (buffer-ids.ts).
   */
  abstract offerAgain(count: u32): bool;

  /**
   * Takes back up to `max` buffers and offers as many again, in one pass over the ring, and publishes
   * them: what `take`, `offerAgain` and `publish` do, for whoever wants to know nothing of the packets.
   * The caller has made sure that what all of the ring's descriptors held last is its own and
   * unchanged. `room`: the most that the device may have written behind the net header of each, in
   * bytes; `recycledBytes` and `recycledWrong` say what it has.
   *
   * Answers how many; NOT_STRAIGHT if it is `take` that has to go on: always in a ring that is not
   * straight, and with a buffer that comes out of turn, by which it ceases to be. A fault is as with
   * `take`.
   */
  abstract recycle(max: u32, room: u32): i32;

  /**
   * Whether `recycle` or `relay` had better come later: the device is at full speed and still at
   * work on the next `turnful` buffers, so that looking there now would take cache lines away from
   * it. No more than a hint, which costs one look; asked once before each turn.
   */
  shouldWait(turnful: u32): bool {
    const isLoaded = this.recycled >= LOADED && this.outstanding > turnful;
    if (isLoaded && this.waited < PATIENCE && !this.isUsedAhead(turnful - 1)) {
      this.waited++;
      return true;
    }
    this.waited = 0;
    this.recycled = 0;
    return false;
  }

  /** Whether the device says to be finished with the buffer `ahead` places behind the next one. */
  protected abstract isUsedAhead(ahead: u32): bool;

  /** The packet that `offerAgain` would offer, `ahead` places on; 0: there is none. */
  abstract nextHeld(ahead: u32): usize;

  /** Offers a packet of several segments to read; there is room (`descriptorsFor`). */
  abstract offerChain(packet: Packet, segments: u32): void;

  /**
   * Offers a command: `outBytes` at `out` for the device to read, then `inBytes` at `into` for it
   * to write.
   */
  abstract offerCommand(token: Packet, out: usize, outBytes: u32, into: usize, inBytes: u32): void;

  /** Makes everything offered visible to the device, in one store. */
  abstract publish(): void;

  /** Whether the device wants a notification for what was published since the last call. */
  abstract needsNotification(): bool;

  /** Where the next buffer will be offered, 16 bits for NOTIFICATION_DATA. virtio 1.4 §2.9 */
  abstract nextOffer(): u32;

  /**
   * Appends up to `max` packets that the device has finished with, each with its used length.
   * Answers how many. On a fault it answers what was sound before it, and `fault` says what
   * happened.
   */
  abstract take(burst: Burst, max: u32): u32;

  /**
   * Offers packets that the device has finished with at once on `to`, of another device, for reading,
   * net header included, which is cleared: frames that nobody looks at. Only as long as both rings
   * are straight and of one format, at most `max` and what `to` has room for, and not beyond one
   * whose used length is not from `least` to `most`; the rest is for `take`. Answers how many, with
   * their bytes in `recycledBytes`. Not seen before `to.publish`.
   */
  abstract relay(to: Ring, max: u32, least: u32, most: u32): u32;

  /** The same for packets that the device has read, on a ring where they get `bytes` to write. */
  abstract giveTo(to: Ring, max: u32, bytes: u32): u32;

  /** Whether the device has finished with packets that nobody has taken. */
  abstract hasUsed(): bool;

  /**
   * Fills the burst with packets that the device had when its queue was reset, in no order; answers
   * how many, 0 when these were all. `reset` comes next.
   */
  abstract abandon(burst: Burst): u32;

  /**
   * Asks for an interrupt when the device has used `ahead` more packets than were taken so far
   * (at least 1; more than 1 only with event_idx), and looks again: true means that there is
   * something to take already and that there may be no interrupt.
   */
  abstract enableInterrupts(ahead: u32): bool;

  /** Asks for no interrupts: a hint, an interrupt may come all the same. */
  abstract disableInterrupts(): void;

  /** Descriptors that a packet of `segments` segments takes; 0: it cannot be sent at all. */
  descriptorsFor(segments: u32): u32 {
    // virtio 1.4 §2.7.5.3.1, §2.8.17, §2.8.19: neither list nor table is longer than the ring.
    if (segments > INDIRECT_MAX || segments > this.size) return 0;
    return this.indirect && segments >= INDIRECT_FROM ? 1 : segments;
  }

  /** The net header lies in front of the first segment only. */
  protected segmentBytes(segment: Packet, index: u32): u32 {
    return segment.length + (index == 0 ? this.headerBytes : 0);
  }
}
