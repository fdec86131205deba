/**
 * What every ring format offers to the queues of drivers/net/. The queues take the format as a type
 * parameter, `RxQueue<SplitRing>`: the compiler makes a copy of the code for each, and no call is
 * dispatched at run time. The methods are explained in split-ring.ts.
 */
import { Burst, Packet } from "../net/packet";

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

export interface Ring {
  /** Entries, free descriptors, packets that the device has, and what it did wrong with them. */
  size: u32;
  free: u32;
  outstanding: u32;
  fault: RingFault;
  /** Bytes of the net header in front of each packet's first segment. */
  headerBytes: u32;

  offerWritable(burst: Burst, count: u32, bytes: u32): void;
  offerReadable(burst: Burst, first: u32, count: u32): void;
  offerChain(packet: Packet, segments: u32): void;
  descriptorsFor(segments: u32): u32;
  publish(): void;
  needsNotification(): bool;
  take(burst: Burst, max: u32): u32;
  hasUsed(): bool;
  abandon(burst: Burst): u32;
  enableInterrupts(ahead: u32): bool;
  disableInterrupts(): void;
}
