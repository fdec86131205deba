// The guests that are attacked: what their device offers, how large it is, which app runs. Rings are
// small, so that a case is cheap and the ends of the rings are near. Used by workbench.ts.

import { Guest, type GuestOptions, STATIC_IP } from "../model/guest";
import {
  type NetOptions,
  PACKED_FEATURES,
  PACKED_IN_ORDER_FEATURES,
  USUAL_FEATURES,
} from "../model/net/net-device";
import type { FeatureName } from "../model/virtio/features";
import type { Setup } from "./cases";

/** The least memory that a CPU gets along with. */
const MEMORY_MIB = 6;
const LARGE_MEMORY_MIB = 18;
const RING = 16;
const PAIRS = 2;

const OFFLOADS: readonly FeatureName[] = [
  "csum",
  "guest_csum",
  "guest_tso4",
  "guest_tso6",
  "guest_ecn",
  "guest_uso4",
  "host_tso4",
  "host_tso6",
  "host_ecn",
  "host_uso",
  "guest_hdrlen",
];

const CONTROL: readonly FeatureName[] = [
  "ctrl_vq",
  "ctrl_rx",
  "ctrl_rx_extra",
  "ctrl_vlan",
  "ctrl_mac_addr",
  "ctrl_guest_offloads",
  "guest_announce",
  "notf_coal",
  "vq_notf_coal",
  "device_stats",
  "speed_duplex",
];

/** Notifications in four bytes, under names of the device's; and queues that are reset alone. */
const NOTIFYING: readonly FeatureName[] = ["notification_data", "notif_config_data", "ring_reset"];

const PLAIN: readonly FeatureName[] = ["mac", "status", "version_1"];
const without = (features: readonly FeatureName[], name: FeatureName) =>
  features.filter((feature) => feature !== name);

interface Description {
  readonly net: Partial<NetOptions>;
  readonly memoryMib?: number;
  readonly cpus?: number;
}

const DESCRIPTIONS: Readonly<Record<Setup, Description>> = {
  plain: { net: { features: PLAIN } },
  merging: { net: { features: USUAL_FEATURES } },
  offloads: { net: { features: [...USUAL_FEATURES, ...OFFLOADS] } },
  large: {
    net: { features: [...without(USUAL_FEATURES, "mrg_rxbuf"), ...OFFLOADS], rxSize: 4, txSize: 4 },
    memoryMib: LARGE_MEMORY_MIB,
  },
  control: { net: { features: [...USUAL_FEATURES, ...OFFLOADS, ...CONTROL, "rss"] } },
  pairs: {
    net: { features: [...USUAL_FEATURES, ...CONTROL, "mq", "rss"], pairs: PAIRS },
    memoryMib: 2 + PAIRS * 4 + 2,
    cpus: PAIRS,
  },
  ordered: { net: { features: [...USUAL_FEATURES, ...OFFLOADS, "in_order"] } },
  packed: { net: { features: [...PACKED_FEATURES, ...OFFLOADS] } },
  packed_ordered: {
    net: { features: [...PACKED_IN_ORDER_FEATURES, "notification_data"], rxSize: 13, txSize: 11 },
  },
  packed_pairs: {
    net: {
      features: [...PACKED_FEATURES, ...CONTROL, "mq", "rss", "hash_report", ...NOTIFYING],
      pairs: PAIRS,
    },
    memoryMib: 2 + PAIRS * 4 + 2,
    cpus: PAIRS,
  },
  boot: { net: { features: [...USUAL_FEATURES, ...CONTROL, "mq", "rss"] } },
};

/** A guest of a setup, not booted. `module`: with its globals visible. */
export function makeSetup(setup: Setup, module: WebAssembly.Module): Guest {
  const { net, memoryMib = MEMORY_MIB, cpus = 1 } = DESCRIPTIONS[setup];
  const options: GuestOptions = {
    commandLine: `${STATIC_IP} log=debug`,
    memoryMib,
    cpus,
    module,
    net: { rxSize: RING, txSize: RING, controlSize: RING, ...net },
  };
  const guest = new Guest(options);
  guest.machine.log.enabled = false;
  return guest;
}
