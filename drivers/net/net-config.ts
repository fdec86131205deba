/**
 * The network device's configuration: address, link, MTU. Used by device.ts. virtio 1.4 §5.1.4
 *
 *   0 mac 6 | 6 status 2 | 8 max_virtqueue_pairs 2 | 10 mtu 2 | ...
 */
import { allocate } from "../../kernel/memory/arena";
import * as machine from "../../kernel/machine";
import * as features from "../virtio/features";
import { GENERATION_TRIES, VirtioPci } from "../virtio/transport";

const MAC: u32 = 0;
const MAC_BYTES: u32 = 6;
const STATUS: u32 = 6;
const MTU: u32 = 10;
const STATUS_LINK_UP: u32 = 1;

const MTU_DEFAULT: u32 = 1500;
/** virtio 1.4 §5.1.4.1: the least that a device may offer. */
const MTU_MIN: u32 = 68;

export class NetConfig {
  /** 6 bytes. */
  readonly mac: usize = allocate(8);
  mtu: u32 = MTU_DEFAULT;
  linkUp: bool = true;
  private transport: VirtioPci;
  private fresh: usize = allocate(8);
  private hasMac: bool = false;

  constructor(transport: VirtioPci) {
    this.transport = transport;
  }

  /** Whether the MTU on offer is one that the specification allows. */
  isMtuUsable(): bool {
    return this.transport.config16(MTU) >= MTU_MIN;
  }

  /**
   * Reads the fields that exist with the accepted features. Several reads are one snapshot only if
   * the generation stayed the same around them; false if it never did. virtio 1.4 §2.5.1
   */
  read(accepted: u64): bool {
    for (let i: u32 = 0; i < GENERATION_TRIES; i++) {
      const before = this.transport.generation();
      for (let byte: u32 = 0; byte < MAC_BYTES; byte++) {
        store<u8>(this.fresh + byte, this.transport.config8(MAC + byte));
      }
      const status = this.transport.config16(STATUS);
      const mtu = this.transport.config16(MTU);
      if (this.transport.generation() != before) continue;
      this.use(accepted, status, mtu);
      return true;
    }
    return false;
  }

  private use(accepted: u64, status: u32, mtu: u32): void {
    // virtio 1.4 §5.1.4.2: with MAC the address in mac, else one we make up, locally administered.
    if (features.has(accepted, features.MAC)) memory.copy(this.mac, this.fresh, MAC_BYTES);
    else if (!this.hasMac) this.makeUpMac();
    this.hasMac = true;
    // virtio 1.4 §5.1.4.2: without STATUS the link is up.
    this.linkUp = !features.has(accepted, features.STATUS) || (status & STATUS_LINK_UP) != 0;
    if (features.has(accepted, features.MTU)) this.mtu = mtu;
  }

  private makeUpMac(): void {
    const random = machine.entropy();
    for (let byte: u32 = 0; byte < MAC_BYTES; byte++) {
      store<u8>(this.mac + byte, <u8>(random >> (byte << 3)));
    }
    store<u8>(this.mac, (load<u8>(this.mac) & 0xfc) | 0x02);
  }
}
