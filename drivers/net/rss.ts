/**
 * The parameters of receive-side scaling: which receive queue a packet goes to by its hash. Held by
 * settings.ts (what the device has) and by kernel/control.ts (what it is about to get), sent whole
 * each time. virtio 1.4 §5.1.9.5.7
 *
 *   hash_types 4 | mask 2 | unclassified_queue 2 | table 2 (mask + 1) | max_tx_vq 2
 *   | hash_key_length 1 | key ...
 */
import { allocate } from "../../kernel/memory/arena";
import * as commands from "./commands";
import { ControlQueue } from "./control-queue";
import { NetConfig } from "./net-config";

/** The hash types that the specification has, of which a device supports some. §5.1.9.4.4.2 */
const TYPES_KNOWN: u32 = 0x1ff;
/** Entries of our table at most; a device has room for 128 at least. §5.1.4.1 */
export const RSS_TABLE_MAX: u32 = 128;
const KEY_BYTES_MAX: u32 = 255;

/** The key of Microsoft's verification suite, which most drivers begin with. */
const DEFAULT_KEY: usize = memory.data<u8>([
  0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
  0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
  0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
]);
const DEFAULT_KEY_BYTES: u32 = 40;

export class Rss {
  /** Off: the device steers as it likes. */
  enabled: bool = false;
  types: u32 = 0;
  keyBytes: u32 = 0;
  tableLength: u32 = 0;
  /** What the device has room for, at least 1. */
  tableMax: u32 = 1;
  /** Whether `useDefaults` was called. */
  known: bool = false;
  /** How many queue pairs are in use. */
  pairs: u32 = 1;
  readonly key: usize = allocate(KEY_BYTES_MAX);
  /** The pair of each entry, 2 bytes. */
  readonly table: usize = allocate(2 * RSS_TABLE_MAX);

  /** Everything that the device supports, spread evenly. Off if it has no room for a table. */
  useDefaults(config: NetConfig): void {
    this.known = true;
    this.enabled = config.tableMax > 0 && config.keyBytesMax > 0;
    // virtio 1.4 §5.1.9.5.7.2: no type that the device does not support.
    this.types = config.hashTypes & TYPES_KNOWN;
    this.keyBytes = min(DEFAULT_KEY_BYTES, config.keyBytesMax);
    memory.copy(this.key, DEFAULT_KEY, this.keyBytes);
    this.tableMax = min(max<u32>(config.tableMax, 1), RSS_TABLE_MAX);
    this.spread(1);
  }

  /** Uses `pairs` pairs, each about as often as the others, in a table as long as can be. */
  spread(pairs: u32): void {
    this.pairs = pairs;
    // virtio 1.4 §5.1.9.5.7.2: a power of two, not above the device's maximum.
    this.tableLength = (<u32>1) << (31 - clz(this.tableMax));
    for (let i: u32 = 0; i < this.tableLength; i++) this.setEntry(i, i % pairs);
  }

  /** virtio 1.4 §5.1.9.5.7.1: bits 1 to 16 of the receive queue's index, which is 2 * pair. */
  setEntry(index: u32, pair: u32): void {
    store<u16>(this.table + 2 * index, <u16>pair);
  }

  copy(from: Rss): void {
    this.enabled = from.enabled;
    this.types = from.types;
    this.keyBytes = from.keyBytes;
    this.tableLength = from.tableLength;
    this.tableMax = from.tableMax;
    this.pairs = from.pairs;
    memory.copy(this.key, from.key, KEY_BYTES_MAX);
    memory.copy(this.table, from.table, 2 * RSS_TABLE_MAX);
  }

  /** Sends all of it. Off, nothing is hashed, and all comes to the first queue. */
  send(control: ControlQueue): bool {
    const data = control.data;
    store<u32>(data, this.enabled ? this.types : 0);
    store<u16>(data, <u16>(this.tableLength - 1), 4);
    store<u16>(data, 0, 6);
    memory.copy(data + 8, this.table, 2 * this.tableLength);
    const rest = data + 8 + 2 * this.tableLength;
    store<u16>(rest, <u16>this.pairs);
    store<u8>(rest, <u8>this.keyBytes, 2);
    memory.copy(rest + 3, this.key, this.keyBytes);
    return commands.setRss(control, <u32>(rest + 3 - data) + this.keyBytes);
  }
}
