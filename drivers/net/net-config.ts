/**
 * The network device's configuration: address, link, MTU, what RSS can do. Used by device.ts.
 * Nothing is ever written there. virtio 1.4 §5.1.4
 *
 *    0 mac 6 | 6 status 2 | 8 max_virtqueue_pairs 2 | 10 mtu 2
 *   12 speed 4 | 16 duplex 1 | 17 rss_max_key_size 1
 *   18 rss_max_indirection_table_length 2 | 20 supported_hash_types 4 | ...
 */
import { allocate } from "../../kernel/memory/arena";
import * as machine from "../../kernel/machine";
import * as features from "../virtio/features";
import { DUPLEX_UNKNOWN, Link, SPEED_UNKNOWN } from "./link";
import { GENERATION_TRIES, VirtioPci } from "../virtio/transport";

const MAC: u32 = 0;
const MAC_BYTES: u32 = 6;
const STATUS: u32 = 6;
const MAX_PAIRS: u32 = 8;
const MTU: u32 = 10;
const SPEED: u32 = 12;
const DUPLEX: u32 = 16;
const KEY_SIZE: u32 = 17;
const TABLE_LENGTH: u32 = 18;
const HASH_TYPES: u32 = 20;
const SPEED_MAX: u32 = 0x7fffffff;
const DUPLEX_FULL: u32 = 1;
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
  /** With RSS, and but for the table with HASH_REPORT: bytes of a key, entries of a table, bits of
   * hash types that the device takes. */
  keyBytesMax: u32 = 0;
  tableMax: u32 = 0;
  hashTypes: u32 = 0;
  private transport: VirtioPci;
  private fresh: usize = allocate(8);
  private hasMac: bool = false;

  constructor(transport: VirtioPci, link: Link) {
    this.transport = transport;
    this.link = link;
  }

  /**
   * Whether the MTU on offer is one that the specification allows. What was read here is what
   * counts from now on: a device that says something else later is not believed.
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
      const pairs = this.hasPairs(accepted) ? this.transport.config16(MAX_PAIRS) : 1;
      this.readSpeed(accepted);
      this.readRss(accepted);
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

  /** virtio 1.4 §5.1.4: max_virtqueue_pairs is there with MQ and with RSS. */
  private hasPairs(accepted: u64): bool {
    return features.has(accepted, features.MQ) || features.has(accepted, features.RSS);
  }

  private readSpeed(accepted: u64): void {
    if (!features.has(accepted, features.SPEED_DUPLEX)) return;
    const speed = this.transport.config32(SPEED);
    const duplex = this.transport.config8(DUPLEX);
    // virtio 1.4 §5.1.4.2: other values mean unknown.
    this.link.speed = speed <= SPEED_MAX ? speed : SPEED_UNKNOWN;
    this.link.duplex = duplex <= DUPLEX_FULL ? duplex : DUPLEX_UNKNOWN;
  }

  private readRss(accepted: u64): void {
    const hasRss = features.has(accepted, features.RSS);
    if (!hasRss && !features.has(accepted, features.HASH_REPORT)) return;
    this.keyBytesMax = this.transport.config8(KEY_SIZE);
    this.tableMax = hasRss ? this.transport.config16(TABLE_LENGTH) : 0;
    this.hashTypes = this.transport.config32(HASH_TYPES);
  }

  private use(accepted: u64, status: u32, pairs: u32): void {
    const link = this.link;
    // virtio 1.4 §5.1.4.2: with MAC the address in mac, else one we make up, locally administered.
    // One that we have been given since goes before it.
    if (features.has(accepted, features.MAC)) {
      if (!link.renamed) memory.copy(link.mac, this.fresh, MAC_BYTES);
    } else if (!this.hasMac) {
      this.makeUpMac();
    }
    this.hasMac = true;
    // virtio 1.4 §5.1.4.2: without STATUS the link is up.
    link.linkUp = !features.has(accepted, features.STATUS) || (status & STATUS_LINK_UP) != 0;
    // virtio 1.4 §5.1.4: at least 1, at most 0x8000.
    this.pairsMax = min(max<u32>(pairs, 1), PAIRS_MAX);
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
