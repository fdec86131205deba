// What a network device can be like, and its configuration structure. Used by net-device.ts.
// virtio 1.4 §5.1.4
//
//   0 mac 6 | 6 status 2 | 8 max_virtqueue_pairs 2 | 10 mtu 2 | 12 speed 4 | 16 duplex 1
//   17 rss_max_key_size 1 | 18 rss_max_indirection_table_length 2 | 20 supported_hash_types 4
//   24 supported_tunnel_types 4

import type { FeatureName } from "../virtio/features";
import type { Capability } from "../virtio/pci-device";
import type { Register } from "../virtio/registers";

export interface NetOptions {
  /** What is offered, and bits that have no name here. */
  readonly features: readonly FeatureName[];
  readonly moreFeatures: bigint;
  /** Sizes of the queues; all pairs are alike. */
  readonly rxSize: number;
  readonly txSize: number;
  readonly controlSize: number;
  /** Queue pairs that there are: max_virtqueue_pairs. */
  readonly pairs: number;
  readonly mac: string;
  readonly mtu: number;
  readonly linkUp: boolean;
  /** MSI-X entries; without a number as many as there are queues, and one. */
  readonly msixEntries: number | undefined;
  readonly notifyMultiplier: number;
  readonly deviceId: number;
  readonly bdf: number;
  readonly hasFirmware: boolean;
  /** Bytes of device configuration that exist. */
  readonly configBytes: number;
  readonly resetReads: number;
  readonly queueResetReads: number;
  readonly refusesFeatures: boolean;
  readonly generationChanges: number;
  /** Buffers that a turn handles before it publishes, and asks whether to interrupt. */
  readonly batch: number;
  /** With IN_ORDER: buffers that one used entry stands for at most. */
  readonly usedBatch: number;
  /** Looks at its queues all the time and asks for no notification, as a polling switch does. */
  readonly polls: boolean;
  /** Drops received frames by address and VLAN as the control queue said; else takes them all. */
  readonly filters: boolean;
  readonly capabilities: (usual: readonly Capability[]) => readonly Capability[];
}

export const USUAL_FEATURES: readonly FeatureName[] = [
  "mtu",
  "mac",
  "mrg_rxbuf",
  "status",
  "indirect_desc",
  "event_idx",
  "version_1",
];

/** What a packed ring takes beside what is usual; and one whose device works in order. */
export const PACKED_FEATURES: readonly FeatureName[] = [...USUAL_FEATURES, "ring_packed"];
export const PACKED_IN_ORDER_FEATURES: readonly FeatureName[] = [...PACKED_FEATURES, "in_order"];
export const IN_ORDER_FEATURES: readonly FeatureName[] = [...USUAL_FEATURES, "in_order"];

/** What multiqueue takes. */
export const MQ_FEATURES: readonly FeatureName[] = [...USUAL_FEATURES, "ctrl_vq", "mq"];

/** What reports of hashes take, with and without RSS. */
export const HASH_FEATURES: readonly FeatureName[] = [...MQ_FEATURES, "hash_report"];

export const USUAL: NetOptions = {
  features: USUAL_FEATURES,
  moreFeatures: 0n,
  rxSize: 256,
  txSize: 256,
  controlSize: 64,
  pairs: 1,
  mac: "52:54:00:12:34:56",
  mtu: 1500,
  linkUp: true,
  msixEntries: undefined,
  notifyMultiplier: 4,
  deviceId: 0x1041,
  bdf: 2 << 3,
  hasFirmware: true,
  configBytes: 28,
  resetReads: 0,
  queueResetReads: 0,
  refusesFeatures: false,
  generationChanges: 0,
  batch: 32,
  usedBatch: 8,
  polls: false,
  filters: false,
  capabilities: (usual) => usual,
};

export const STATUS_FIELD = 6;
export const LINK_UP = 1;
export const ANNOUNCE = 2;

/** Limits for RSS, the least that the specification allows, and hash types: all of IPv4 and v6. */
export const RSS_KEY_BYTES = 40;
export const RSS_TABLE_MAX = 128;
export const HASH_TYPES = 0x3f;
const TUNNEL_TYPES = 0x1ff;
const SPEED_MBIT = 10_000;

const byte = (name: string, offset: number): Register => ({
  name,
  offset,
  width: 1,
  writable: false,
});
const half = (name: string, offset: number): Register => ({ ...byte(name, offset), width: 2 });
const word = (name: string, offset: number): Register => ({ ...byte(name, offset), width: 4 });

export const CONFIG_FIELDS: readonly Register[] = [
  ...[0, 1, 2, 3, 4, 5].map((i) => byte(`mac${i}`, i)),
  half("status", STATUS_FIELD),
  half("max_virtqueue_pairs", 8),
  half("mtu", 10),
  word("speed", 12),
  byte("duplex", 16),
  byte("rss_max_key_size", 17),
  half("rss_max_indirection_table_length", 18),
  word("supported_hash_types", 20),
  word("supported_tunnel_types", 24),
];
const ALL_BYTES = 28;

export function initialConfig(options: NetOptions): Buffer {
  const { configBytes, linkUp, mac, mtu, pairs } = options;
  const whole = Buffer.alloc(Math.max(configBytes, ALL_BYTES));
  whole.write(mac.replaceAll(":", ""), 0, "hex");
  whole.writeUInt16LE(linkUp ? LINK_UP : 0, STATUS_FIELD);
  whole.writeUInt16LE(pairs, 8);
  whole.writeUInt16LE(mtu, 10);
  whole.writeUInt32LE(SPEED_MBIT, 12);
  whole.writeUInt8(1, 16);
  whole.writeUInt8(RSS_KEY_BYTES, 17);
  whole.writeUInt16LE(RSS_TABLE_MAX, 18);
  whole.writeUInt32LE(HASH_TYPES, 20);
  whole.writeUInt32LE(TUNNEL_TYPES, 24);
  return whole.subarray(0, configBytes);
}
