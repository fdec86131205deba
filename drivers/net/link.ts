/**
 * What a queue pair's owner has to know of the NIC that its packets go through. On CPU 0 net-config.ts
 * keeps it up to date, on another CPU kernel/worker.ts does, from CPU 0's mail.
 */
import { allocate } from "../../kernel/memory/arena";

const MTU_DEFAULT: u32 = 1500;

export class Link {
  /** Our Ethernet address, 6 bytes. */
  readonly mac: usize = allocate(8);
  mtu: u32 = MTU_DEFAULT;
  linkUp: bool = true;

  /** `index`: the number of the NIC, as events name it. */
  constructor(readonly index: u32) {}
}
