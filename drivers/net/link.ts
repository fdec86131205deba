/**
 * What a queue pair's owner has to know of the NIC that its packets go through. On CPU 0
 * net-config.ts keeps it up to date, on another CPU kernel/worker.ts does, from CPU 0's mail.
 */
import { allocate } from "../../kernel/memory/arena";

const MTU_DEFAULT: u32 = 1500;

/** virtio 1.4 §5.1.4: what the device says when it does not know. */
export const SPEED_UNKNOWN: u32 = 0xffffffff;
export const DUPLEX_UNKNOWN: u32 = 0xff;

export class Link {
  /** Our Ethernet address, 6 bytes. */
  readonly mac: usize = allocate(8);
  mtu: u32 = MTU_DEFAULT;
  linkUp: bool = true;
  /** In Mbit/s, and 0 for half or 1 for full; or unknown. */
  speed: u32 = SPEED_UNKNOWN;
  duplex: u32 = DUPLEX_UNKNOWN;
  /** The address is no longer the one of boot: frames built before have the old one. */
  renamed: bool = false;

  /** `index`: the number of the NIC, as events name it. */
  constructor(readonly index: u32) {}
}
