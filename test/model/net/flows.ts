// Which queue pair a received frame goes to: by hash and table as RSS says, else where the guest
// last sent something of the same flow, else by a hash of the flow. Owned by NetDevice. virtio 1.4
// §5.1.9.5.6, §5.1.9.5.7, §5.1.9.4.1

import type { HashConfig, RssConfig } from "./control-state";
import type { HashReport } from "./net-header";

const ETHERNET_BYTES = 14;
const TYPE_IPV4 = 0x0800;
const TCP = 6;
const UDP = 17;
const HASH_IPV4 = 1;
const HASH_TCPV4 = 2;
const HASH_UDPV4 = 4;
const REPORT_NONE = 0;
const REPORT_IPV4 = 1;
const REPORT_TCPV4 = 2;
const REPORT_UDPV4 = 3;

interface Flow {
  readonly protocol: number;
  readonly source: Buffer;
  readonly destination: Buffer;
  readonly ports: Buffer;
}

/** The flow of an IPv4 frame; undefined for others. */
function flowOf(frame: Buffer): Flow | undefined {
  if (frame.length < ETHERNET_BYTES + 20 || frame.readUInt16BE(12) !== TYPE_IPV4) return undefined;
  const ip = frame.subarray(ETHERNET_BYTES);
  const protocol = ip.readUInt8(9);
  const start = 4 * (ip.readUInt8(0) & 15);
  const isFragment = (ip.readUInt16BE(6) & 0x3fff) !== 0;
  const hasPorts = (protocol === TCP || protocol === UDP) && !isFragment;
  const ports = hasPorts ? ip.subarray(start, start + 4) : Buffer.alloc(0);
  return { protocol, source: ip.subarray(12, 16), destination: ip.subarray(16, 20), ports };
}

/** The same for both directions of a flow. */
function keyOf({ protocol, source, destination, ports }: Flow): string {
  const ends = [
    `${source.toString("hex")}:${ports.subarray(0, 2).toString("hex")}`,
    `${destination.toString("hex")}:${ports.subarray(2, 4).toString("hex")}`,
  ];
  return `${protocol} ${ends.sort().join(" ")}`;
}

/** FNV-1a. */
function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return (hash ^ (hash >>> 15)) >>> 0;
}

/** The Toeplitz hash that RSS is defined by. */
export function toeplitz(key: Uint8Array, input: Uint8Array): number {
  let hash = 0;
  for (let bit = 0; bit < 8 * input.length; bit++) {
    if ((((input[bit >> 3] ?? 0) << (bit & 7)) & 0x80) === 0) continue;
    let window = 0;
    for (let i = bit; i < bit + 32; i++) {
      window = (window << 1) | (((key[i >> 3] ?? 0) >> (7 - (i & 7))) & 1);
    }
    hash ^= window;
  }
  return hash >>> 0;
}

export class Flows {
  private readonly lastSent = new Map<string, number>();

  /** The guest sent this frame on a pair. */
  sent(frame: Buffer, pair: number): void {
    const flow = flowOf(frame);
    if (flow !== undefined) this.lastSent.set(keyOf(flow), pair);
  }

  forget(): void {
    this.lastSent.clear();
  }

  /** The pair, of `active`, for a received frame. */
  steer(frame: Buffer, active: number, rss: RssConfig | undefined): number {
    if (active === 1 && rss === undefined) return 0;
    const flow = flowOf(frame);
    if (rss !== undefined) return steerByRss(flow, rss);
    if (flow === undefined) return 0;
    const key = keyOf(flow);
    const last = this.lastSent.get(key);
    return last !== undefined && last < active ? last : hashText(key) % active;
  }
}

/** The hash of a flow by the types that are on, and which type it is; undefined for none. */
function hashFlow(flow: Flow | undefined, { hashTypes, key }: HashConfig): HashReport | undefined {
  if (flow === undefined) return undefined;
  const { protocol, source, destination, ports } = flow;
  const withPorts = protocol === TCP ? HASH_TCPV4 : HASH_UDPV4;
  const usesPorts = ports.length === 4 && (hashTypes & withPorts) !== 0;
  if (!usesPorts && (hashTypes & HASH_IPV4) === 0) return undefined;
  const input = Buffer.concat([source, destination, usesPorts ? ports : Buffer.alloc(0)]);
  const report = usesPorts ? (protocol === TCP ? REPORT_TCPV4 : REPORT_UDPV4) : REPORT_IPV4;
  return { value: toeplitz(key, input), report };
}

/** hash_value and hash_report of a frame. virtio 1.4 §5.1.9.4.4 */
export function reportHash(frame: Buffer, config: HashConfig | undefined): HashReport {
  const hash = config === undefined ? undefined : hashFlow(flowOf(frame), config);
  return hash ?? { value: 0, report: REPORT_NONE };
}

function steerByRss(flow: Flow | undefined, rss: RssConfig): number {
  const hash = hashFlow(flow, rss);
  if (hash === undefined) return rss.unclassified;
  return rss.table[hash.value & (rss.table.length - 1)] ?? rss.unclassified;
}
