/**
 * How a queue pair is to be: agreed between the device (device.ts, on CPU 0) and the pair's owner,
 * which may be another CPU. Plain numbers, so that it can travel by mail (kernel/crew.ts).
 */

/** What the owner needs to make or renew its pair. Words, in this order. */
@unmanaged
export class PairSetup {
  rxSize: u32 = 0;
  txSize: u32 = 0;
  /** Bytes of a frame that a buffer must hold. */
  frameBytes: u32 = 0;
  /** 1: the rings are packed; the same for as long as they are there. */
  packed: u32 = 0;
  eventIdx: u32 = 0;
  indirect: u32 = 0;
  inOrder: u32 = 0;
  /** 1: notifications say where the driver goes on. */
  notificationData: u32 = 0;
  mergeable: u32 = 0;
  /** 1: no interrupts are wanted. */
  polling: u32 = 0;
  mtu: u32 = 0;
  /** Feature bits accepted. */
  featuresLow: u32 = 0;
  featuresHigh: u32 = 0;
  macLow: u32 = 0;
  macHigh: u32 = 0;
  /** Numbers of the two virtqueues, and where to notify each (window addresses). */
  rxQueue: u32 = 0;
  txQueue: u32 = 0;
  rxNotify: u32 = 0;
  txNotify: u32 = 0;
  /** Packets in the pair's pool. */
  packets: u32 = 0;
  /** What a notification of each has to say. */
  rxNotifyName: u32 = 0;
  txNotifyName: u32 = 0;
}

export const PAIR_SETUP_WORDS: u32 = offsetof<PairSetup>() >> 2;

/** What the owner answers: addresses as the device sees them, and interrupt vectors. */
@unmanaged
export class PairRings {
  rxDesc: u64 = 0;
  rxDriver: u64 = 0;
  rxDevice: u64 = 0;
  txDesc: u64 = 0;
  txDriver: u64 = 0;
  txDevice: u64 = 0;
  /** Vectors at the owner's local APIC; 0: none. */
  rxVector: u32 = 0;
  txVector: u32 = 0;
}

export const PAIR_RINGS_WORDS: u32 = offsetof<PairRings>() >> 2;
