/**
 * HASH_REPORT: which hashes a device is to compute, and what it says of each packet behind the plain
 * net header. Where nobody negotiated it, a burst costs one comparison more and a packet nothing.
 * Used by rx-queue.ts, tx-queue.ts, rss.ts, device.ts and the console's commands.
 * virtio 1.4 §5.1.9.4.4, §5.1.9.5.6.4
 *
 *   12 hash_value 4 | 16 hash_report 2 | 18 padding 2 | 20
 */
import { allocate } from "../../kernel/memory/arena";
import * as machine from "../../kernel/machine";
import * as commands from "./commands";
import { ControlQueue } from "./control-queue";
import { NetConfig } from "./net-config";
import { Burst } from "./packet";

/** Offset in the net header of the 64 bits of both fields and the padding. */
const HASH: usize = 12;

/** The hash types that the specification has, of which a device supports some. §5.1.9.4.4.2 */
const TYPES_KNOWN: u32 = 0x1ff;
export const KEY_BYTES_MAX: u32 = 255;

/** The key of Microsoft's verification suite, which most drivers begin with. */
const DEFAULT_KEY: usize = memory.data<u8>([
  0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
  0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
  0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
]);
const DEFAULT_KEY_BYTES: u32 = 40;

/** What hash_report can say, from "no hash" on, and one more for all that it cannot. */
export const REPORT_NAMES: StaticArray<string> = [
  "none",
  "ipv4",
  "tcpv4",
  "udpv4",
  "ipv6",
  "tcpv6",
  "udpv6",
  "ipv6_ex",
  "tcpv6_ex",
  "udpv6_ex",
  "unknown",
];
const REPORT_UNKNOWN: u32 = 10;
export const REPORTS: u32 = REPORT_UNKNOWN + 1;

/** What a device said of received packets' hashes. */
@unmanaged
export class HashReports {
  /** The last hash, and of which kind it is. */
  value: u32 = 0;
  report: u32 = 0;
  private readonly counts: usize = allocate(REPORTS << 3);

  /** Packets with each kind of report. */
  count(report: u32): u64 {
    return load<u64>(this.counts + (report << 3));
  }

  /** Looks at the packets of a burst from `first` on, once, before anybody changes their headers. */
  read(burst: Burst, first: u32): void {
    for (let i = first; i < burst.count; i++) {
      const words = machine.sharedRead64(burst.get(i).buffer + HASH);
      const said = <u32>(words >> 32) & 0xffff;
      const report = min(said, REPORT_UNKNOWN);
      const place = this.counts + (report << 3);
      store<u64>(place, load<u64>(place) + 1);
      // virtio 1.4 §5.1.9.4.4: with no hash, or a kind that nobody knows, the value says nothing.
      if (report == 0 || report == REPORT_UNKNOWN) continue;
      this.value = <u32>words;
      this.report = report;
    }
  }
}

/** A packet that goes out has no hash: what the device wrote when it came in is taken away. */
export function clearHashes(burst: Burst): void {
  for (let i: u32 = 0; i < burst.count; i++) {
    const at = burst.get(i).buffer + HASH;
    if (load<u64>(at) != 0) store<u64>(at, 0);
  }
}

/** Types of hashes and the key that they are computed with. */
export class HashParameters {
  types: u32 = 0;
  keyBytes: u32 = 0;
  /** Whether `useDefaults` was called. */
  known: bool = false;
  readonly key: usize = allocate(KEY_BYTES_MAX);

  /** Everything that the device supports. */
  useDefaults(config: NetConfig): void {
    this.known = true;
    // virtio 1.4 §5.1.9.5.7.2: no type that the device does not support.
    this.types = config.hashTypes & TYPES_KNOWN;
    this.keyBytes = min(DEFAULT_KEY_BYTES, config.keyBytesMax);
    memory.copy(this.key, DEFAULT_KEY, this.keyBytes);
  }

  copyParameters(from: HashParameters): void {
    this.types = from.types;
    this.keyBytes = from.keyBytes;
    this.known = from.known;
    memory.copy(this.key, from.key, KEY_BYTES_MAX);
  }

  /** hash_key_length 1 | key ... at the end of both commands; answers where that ends. */
  putKey(at: usize): usize {
    store<u8>(at, <u8>this.keyBytes);
    memory.copy(at + 1, this.key, this.keyBytes);
    return at + 1 + this.keyBytes;
  }

  /**
   * Has the device compute hashes without steering by them: hash_types 4 | reserved 8, zero | key.
   * virtio 1.4 §5.1.9.5.6.4
   */
  sendHash(control: ControlQueue): bool {
    const data = control.data;
    store<u32>(data, this.types);
    store<u64>(data, 0, 4);
    return commands.setHash(control, <u32>(this.putKey(data + 12) - data));
  }
}
