// The guest's console events, as the image's contract lists them: one JSON object a line. Read by
// the VM; tests use the types. Fields may be added by the guest at any time, so nothing here
// rejects an unknown field.

export interface BaseEvent {
  readonly event: string;
  /** Microseconds since the guest's boot. */
  readonly us: number;
  /** The vCPU that wrote the line. */
  readonly cpu: number;
}

export interface BootEvent extends BaseEvent {
  readonly event: "boot";
  readonly version: string;
  readonly cpus: number;
  readonly memory_mib: number;
}

export interface DeviceEvent extends BaseEvent {
  readonly event: "device";
  readonly nic: number;
  readonly pci: string;
  readonly vendor: string;
  readonly device: string;
  readonly offered: readonly string[];
}

export interface FeaturesEvent extends BaseEvent {
  readonly event: "features";
  readonly nic: number;
  readonly accepted: readonly string[];
  readonly declined: readonly { readonly name: string; readonly reason: string }[];
}

export interface ReadyEvent extends BaseEvent {
  readonly event: "ready";
  readonly nic: number;
  readonly mac: string;
  readonly ip: string;
  readonly prefix: number;
  readonly mtu: number;
  readonly queues: number;
  readonly ring: string;
  readonly mode: string;
  readonly app: string;
}

/** A card was taken out, after it was asked for (`orderly`) or not. */
export interface RemovedEvent extends BaseEvent {
  readonly event: "removed";
  readonly nic: number;
  readonly pci: string;
  readonly orderly: boolean;
}

/** What has become of an IPv6 address. */
export interface Ipv6Event extends BaseEvent {
  readonly event: "ipv6";
  readonly nic: number;
  readonly ip6: string;
  readonly prefix: number;
  readonly scope: "link" | "global";
  readonly origin: "link" | "static" | "slaac";
  readonly state: "preferred" | "deprecated" | "expired" | "duplicate";
}

export interface LinkEvent extends BaseEvent {
  readonly event: "link";
  readonly nic: number;
  readonly up: boolean;
  /** In Mbit/s; only where the device tells. */
  readonly speed?: number | "unknown";
  readonly duplex?: "half" | "full" | "unknown";
}

/** How a console command to the device ended; one that reads something adds fields. */
export interface ControlEvent extends BaseEvent {
  readonly event: "control";
  readonly nic: number;
  readonly command: string;
  readonly result: "ok" | "refused" | "failed";
  readonly [field: string]: unknown;
}

/**
 * Counters of one direction of one queue pair; bytes are Ethernet frames without the virtio header
 * and FCS.
 */
export interface DirectionStats {
  readonly packets: number;
  readonly bytes: number;
  readonly drops: Readonly<Record<string, number>>;
  readonly kicks: number;
  readonly kicks_suppressed: number;
  readonly interrupts: number;
  readonly polls: number;
  readonly cycles: number;
  readonly free: number;
}

export interface QueueStats {
  readonly index: number;
  readonly cpu: number;
  readonly rx: DirectionStats;
  readonly tx: DirectionStats;
  /** Packets that nobody holds; back at its value after boot when nothing has leaked. */
  readonly pool_free: number;
}

export interface StatsEvent extends BaseEvent {
  readonly event: "stats";
  readonly nic: number;
  readonly queues: readonly QueueStats[];
  /** Frames that a protocol took in; every other one is in `drops`. */
  readonly accepted: number;
  /** How often the device had to be reset and brought up again. */
  readonly recoveries: number;
}

export interface MessageEvent extends BaseEvent {
  readonly event: "warning" | "error" | "panic";
  readonly message: string;
  readonly [field: string]: unknown;
}

export interface ExitEvent extends BaseEvent {
  readonly event: "exit";
  readonly status: "success" | "failure";
  readonly message: string;
}

interface EventsByName {
  boot: BootEvent;
  device: DeviceEvent;
  features: FeaturesEvent;
  ready: ReadyEvent;
  ipv6: Ipv6Event;
  link: LinkEvent;
  removed: RemovedEvent;
  control: ControlEvent;
  stats: StatsEvent;
  warning: MessageEvent;
  error: MessageEvent;
  panic: MessageEvent;
  exit: ExitEvent;
}

export type GuestEvent = BaseEvent & { readonly [field: string]: unknown };
export type EventNamed<Name extends string> = Name extends keyof EventsByName
  ? EventsByName[Name]
  : GuestEvent;

/** The event in a console line, or undefined when the line is not one. */
export function parseEvent(line: string): GuestEvent | undefined {
  if (!line.startsWith("{")) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { event, us, cpu } = value as Record<string, unknown>;
  const wellFormed = typeof event === "string" && typeof us === "number" && typeof cpu === "number";
  return wellFormed ? (value as GuestEvent) : undefined;
}

/** The sum of one counter over all queue pairs. */
export function sumQueues(
  stats: StatsEvent,
  direction: "rx" | "tx",
  counter: Exclude<keyof DirectionStats, "drops">,
): number {
  return stats.queues.reduce((sum, queue) => sum + (queue[direction][counter] ?? 0), 0);
}

/** All drop counters of a direction summed over the queue pairs, by reason. */
export function sumDrops(stats: StatsEvent, direction: "rx" | "tx"): Record<string, number> {
  const totals: Record<string, number> = {};
  for (const queue of stats.queues) {
    for (const [reason, count] of Object.entries(queue[direction].drops ?? {})) {
      totals[reason] = (totals[reason] ?? 0) + count;
    }
  }
  return totals;
}
