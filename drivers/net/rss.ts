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
import { HashParameters } from "./hash-report";
import { NetConfig } from "./net-config";

/** Entries of our table at most; a device has room for 128 at least. §5.1.4.1 */
export const RSS_TABLE_MAX: u32 = 128;

export class Rss extends HashParameters {
  /** Off: the device steers as it likes. */
  enabled: bool = false;
  tableLength: u32 = 0;
  /** What the device has room for, at least 1. */
  tableMax: u32 = 1;
  /** How many queue pairs are in use. */
  pairs: u32 = 1;
  /** The pair of each entry, 2 bytes. */
  readonly table: usize = allocate(2 * RSS_TABLE_MAX);

  /** Everything that the device supports, spread evenly. Off if it has no room for a table. */
  useDefaults(config: NetConfig): void {
    super.useDefaults(config);
    this.enabled = config.tableMax > 0 && config.keyBytesMax > 0;
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
    this.copyParameters(from);
    this.enabled = from.enabled;
    this.tableLength = from.tableLength;
    this.tableMax = from.tableMax;
    this.pairs = from.pairs;
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
    return commands.setRss(control, <u32>(this.putKey(rest + 2) - data));
  }
}
