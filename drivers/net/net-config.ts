/**
 * The network device's configuration: address, link, MTU. Used by device.ts. virtio 1.4 §5.1.4
 *
 *   0 mac 6 | 6 status 2 | 8 max_virtqueue_pairs 2 | 10 mtu 2 | ...
 */
import { allocate } from "../../kernel/memory/arena";
import * as machine from "../../kernel/machine";
import * as features from "../virtio/features";
import { Link } from "./link";
import { GENERATION_TRIES, VirtioPci } from "../virtio/transport";

const MAC: u32 = 0;
const MAC_BYTES: u32 = 6;
const STATUS: u32 = 6;
const MAX_PAIRS: u32 = 8;
const MTU: u32 = 10;
const STATUS_LINK_UP: u32 = 1;
const STATUS_ANNOUNCE: u32 = 2;
const PAIRS_MAX: u32 = 0x8000;

/** virtio 1.4 §5.1.4.1: the least that a device may offer. */
const MTU_MIN: u32 = 68;

export class NetConfig {
  readonly link: Link;
  /** Queue pairs that the device has, 1 without MQ. */
  pairsMax: u32 = 1;
  /** The device asks us to tell the network where we are. virtio 1.4 §5.1.9.5.4 */
  announce: bool = false;
  private transport: VirtioPci;
  private fresh: usize = allocate(8);
  private hasMac: bool = false;

  constructor(transport: VirtioPci, link: Link) {
    this.transport = transport;
    this.link = link;
  }

  /**
   * Whether the MTU on offer is one that the specification allows. What was read here is what counts
   * from now on: a device that says something else later is not believed.
   */
  isMtuUsable(): bool {
    const mtu = this.transport.config16(MTU);
    if (mtu < MTU_MIN) return false;
    this.link.mtu = mtu;
    return true;
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
      // virtio 1.4 §2.5.1: a field is looked at only if its feature is there.
      const status = this.field(accepted, features.STATUS, STATUS);
      const pairs = this.field(accepted, features.MQ, MAX_PAIRS);
      if (this.transport.generation() != before) continue;
      this.use(accepted, status, pairs);
      return true;
    }
    return false;
  }

  /** A 16-bit field that exists with feature `bit`; 0 without. */
  private field(accepted: u64, bit: u32, offset: u32): u32 {
    return features.has(accepted, bit) ? this.transport.config16(offset) : 0;
  }

  private use(accepted: u64, status: u32, pairs: u32): void {
    const link = this.link;
    // virtio 1.4 §5.1.4.2: with MAC the address in mac, else one we make up, locally administered.
    if (features.has(accepted, features.MAC)) memory.copy(link.mac, this.fresh, MAC_BYTES);
    else if (!this.hasMac) this.makeUpMac();
    this.hasMac = true;
    // virtio 1.4 §5.1.4.2: without STATUS the link is up.
    link.linkUp = !features.has(accepted, features.STATUS) || (status & STATUS_LINK_UP) != 0;
    // virtio 1.4 §5.1.4: at least 1, at most 0x8000.
    this.pairsMax = features.has(accepted, features.MQ) ? min(max<u32>(pairs, 1), PAIRS_MAX) : 1;
    this.announce =
      features.has(accepted, features.GUEST_ANNOUNCE) && (status & STATUS_ANNOUNCE) != 0;
  }

  private makeUpMac(): void {
    const random = machine.entropy();
    for (let byte: u32 = 0; byte < MAC_BYTES; byte++) {
      store<u8>(this.link.mac + byte, <u8>(random >> (byte << 3)));
    }
    store<u8>(this.link.mac, (load<u8>(this.link.mac) & 0xfc) | 0x02);
  }
}
