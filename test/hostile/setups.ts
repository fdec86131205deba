// The guests that are attacked: what their device offers, how large it is, which app runs. Rings are
// small, so that a case is cheap and the ends of the rings are near. Used by workbench.ts.

import { Guest, type GuestOptions, STATIC_IP } from "../model/guest";
import type { MachineOptions } from "../model/machine/machine";
import {
  type NetOptions,
  PACKED_FEATURES,
  PACKED_IN_ORDER_FEATURES,
  USUAL_FEATURES,
} from "../model/net/net-device";
import { HOTPLUG_PORTS, HotplugPorts } from "../model/pci/hotplug-ports";
import type { FeatureName } from "../model/virtio/features";
import type { Case, Setup } from "./cases";
import { PORT_BUS, RootPort } from "./root-port";

/** The least memory that a CPU gets along with. */
const MEMORY_MIB = 6;
const LARGE_MEMORY_MIB = 18;
const RING = 16;
const PAIRS = 2;
/** Answers of several segments. */
const JUMBO = 9000;

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
/** A device that leaves its address to the driver. */
const UNNAMED: readonly FeatureName[] = ["status", "version_1"];
const without = (features: readonly FeatureName[], name: FeatureName) =>
  features.filter((feature) => feature !== name);

interface Description {
  readonly net: Partial<NetOptions>;
  readonly memoryMib?: number;
  readonly cpus?: number;
  readonly commandLine?: string;
  readonly machine?: Partial<MachineOptions>;
  /** A second NIC. */
  readonly more?: Partial<NetOptions>;
  /** The second NIC lies behind a root port. */
  readonly hasPort?: boolean;
  /** ACPI has no registers for hot-plug. */
  readonly isFixed?: boolean;
}

/** Both ways, whole, in pieces, with hashes: what a forwarder may have to carry on. */
const FORWARDED: readonly FeatureName[] = [...USUAL_FEATURES, ...OFFLOADS, "guest_uso6"];
const BOTH_WAYS = "ip=192.0.2.2/24 ip1=192.0.2.2/24 ip6=off";
const PORT_BDF = 5 << 3;
/** Larger rings than the memory has room for. */
const RING_LARGE = 1024;

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
    net: {
      features: [...without(PACKED_IN_ORDER_FEATURES, "indirect_desc"), "notification_data"],
      rxSize: 13,
      txSize: 11,
      mtu: JUMBO,
    },
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
  bare: {
    net: {
      features: [...PACKED_FEATURES, ...CONTROL, ...NOTIFYING],
      hasFirmware: false,
      rxSize: RING_LARGE,
      txSize: RING_LARGE,
    },
    commandLine: "ip=192.0.2.2/24 ip6=auto ring=packed mode=irq",
    machine: { acpi: { root: "xsdt", ecam: "cba" }, hostBridge: "microvm" },
  },
  ports: {
    net: { features: [...UNNAMED, ...CONTROL], msixEntries: 0, deviceId: 0x1000 },
    commandLine: "ip=192.0.2.2/24 ip6=auto mode=poll",
    machine: { acpi: "none", hostBridge: "pc" },
  },
  forward: {
    net: { features: FORWARDED },
    more: { features: [...FORWARDED, "in_order"] },
    memoryMib: LARGE_MEMORY_MIB,
    // The addresses are for the apps that a `word` may put in its place: there is no DHCP server.
    commandLine: `app=forward ${BOTH_WAYS}`,
  },
  slots: {
    net: { features: [...PACKED_FEATURES, ...CONTROL, "ring_reset"] },
    more: { features: [...USUAL_FEATURES, "ctrl_vq", "ctrl_rx"] },
    memoryMib: LARGE_MEMORY_MIB,
    commandLine: BOTH_WAYS,
    hasPort: true,
  },
  source: {
    net: { features: [...FORWARDED, "hash_report", "ctrl_vq", "ring_packed"] },
    commandLine:
      "app=source gso=tcp4 size=9000 dst=02:00:00:00:00:99 dstip=192.0.2.9 count=200 ip=192.0.2.2/24",
  },
  sink: {
    net: { features: [...PLAIN, "ring_packed", "indirect_desc", "event_idx"] },
    commandLine: "app=sink",
    isFixed: true,
  },
  ordered_sink: {
    net: { features: [...PLAIN, "mrg_rxbuf", "ring_packed", "in_order"], rxSize: 256 },
    memoryMib: LARGE_MEMORY_MIB,
    commandLine: "app=sink",
  },
  six: {
    net: { features: [...PACKED_FEATURES, ...OFFLOADS], mtu: JUMBO },
    commandLine: "ip=192.0.2.2/24 ip6=auto",
  },
  uneven: {
    net: { features: FORWARDED },
    more: { features: [...USUAL_FEATURES, "in_order"], txSize: 8 },
    memoryMib: LARGE_MEMORY_MIB,
    commandLine: `app=forward ${BOTH_WAYS}`,
  },
  relay: {
    net: { features: [...PLAIN, "event_idx", "ring_packed"] },
    more: { features: [...PLAIN, "ring_packed"], txSize: 8 },
    memoryMib: LARGE_MEMORY_MIB,
    commandLine: `app=forward ${BOTH_WAYS}`,
  },
  mixed: {
    net: { features: [...PLAIN, "ring_packed"] },
    more: { features: PLAIN },
    memoryMib: LARGE_MEMORY_MIB,
    commandLine: `app=forward ${BOTH_WAYS}`,
  },
};

/** What a case may have put on the command line, in place of what is there. */
const WORDS = [
  "features=-version_1",
  "features=-indirect_desc",
  "features=-event_idx",
  "features=-mrg_rxbuf",
  "features=-indirect_desc,-mrg_rxbuf,-event_idx",
  "features=-mtu,-mac",
  "ring=split",
  "ring=packed",
  "mode=poll",
  "mode=irq",
  "queues=1",
  "app=sink",
  "app=idle",
  "app=echo",
  "gso=none",
  "size=60",
  "ip6=off",
  "features=-in_order",
  "features=-csum",
] as const;

/** The command line with the words that a case's attacks of kind `word` choose. */
export function commandLineOf({ attacks, setup }: Case): string {
  const words = (DESCRIPTIONS[setup].commandLine ?? STATIC_IP).split(" ");
  for (const { a } of attacks.filter(({ kind }) => kind === "word")) {
    const chosen = WORDS[a % WORDS.length] ?? "";
    const key = chosen.slice(0, chosen.indexOf("=") + 1);
    const at = words.findIndex((one) => one.startsWith(key));
    if (at < 0) words.push(chosen);
    else words[at] = chosen;
  }
  // A sink has no address; an app in its place that wants one would wait for a DHCP server.
  if (!words.some((one) => /^(app=(sink|idle)$|ip=)/.test(one))) words.push(STATIC_IP);
  return words.join(" ");
}

const ports = new WeakMap<Guest, RootPort>();

/** The root port of a guest that has one. */
export const rootPortOf = (guest: Guest): RootPort | undefined => ports.get(guest);

/** A guest of a setup, not booted. `module`: with its globals visible. */
export function makeSetup(
  setup: Setup,
  module: WebAssembly.Module,
  commandLine = commandLineOf({ setup, attacks: [] }),
): Guest {
  const description = DESCRIPTIONS[setup];
  const { cpus = 1, machine, memoryMib = MEMORY_MIB, net } = description;
  const sizes = { rxSize: RING, txSize: RING, controlSize: RING };
  const options: GuestOptions = {
    ...machine,
    commandLine: `${commandLine} log=debug`,
    memoryMib,
    cpus,
    module,
    net: { ...sizes, ...net },
  };
  const guest = new Guest(options);
  guest.machine.log.enabled = false;
  addMore(guest, description, sizes);
  addSlots(guest, description);
  return guest;
}

/** The second NIC. */
function addMore(guest: Guest, { hasPort, more }: Description, sizes: Partial<NetOptions>): void {
  const { machine } = guest;
  if (hasPort === true) {
    const port = new RootPort(machine.violations);
    ports.set(guest, port);
    machine.pci.add(PORT_BDF, port.space);
    guest.plugIn(1, { ...sizes, ...more, bdf: PORT_BUS << 8 });
  } else if (more !== undefined) {
    guest.plugIn(1, { ...sizes, ...more });
  }
}

/** What NICs are asked for by. */
function addSlots(guest: Guest, { isFixed }: Description): void {
  const { machine } = guest;
  const { hostBridge } = machine.options;
  if (isFixed === true || hostBridge === "microvm") return;
  const hotplug = new HotplugPorts(HOTPLUG_PORTS[hostBridge]);
  machine.pci.hotplug = hotplug;
  hotplug.onEject = (bus, slot) => {
    const place = (bus << 8) | (slot << 3);
    const gone = guest.nics.find(({ options }) => options.bdf === place);
    if (gone !== undefined && machine.pci.has(place)) gone.unplug();
  };
}
