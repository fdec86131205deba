// The commands of the control queue: what each needs, what a driver must not say, and what it does
// to the device's state. Called by control-queue.ts. virtio 1.4 §5.1.9.5
//
// A command whose feature was not negotiated, or whose data breaks a rule for drivers, throws a
// DriverError. What a device may refuse is answered with an error.

import { DriverError } from "../errors";
import type { FeatureName } from "../virtio/features";
import type { RssConfig } from "./control-state";
import type { NetDevice } from "./net-device";
import { ANNOUNCE, HASH_TYPES, RSS_KEY_BYTES, RSS_TABLE_MAX, STATUS_FIELD } from "./net-options";
import { queryStatistics, readStatistics } from "./net-statistics";

export const OK = 0;
export const ERR = 1;

export interface Command {
  readonly class: number;
  readonly command: number;
  readonly data: Buffer;
  /** Room for an answer behind the ack. */
  readonly answerBytes: number;
}

export interface Answer {
  readonly ack: number;
  readonly data?: Buffer;
}

type Action = (device: NetDevice, data: Buffer, command: Command) => Answer | boolean | undefined;

interface Rule {
  readonly name: string;
  readonly feature: FeatureName;
  /** Bytes of data; less is wrong, and more as well unless it `isLonger`. */
  readonly bytes: number;
  readonly isLonger?: boolean;
  readonly act: Action;
}

function wrong(what: string): DriverError {
  return new DriverError(`§5.1.9.5: ${what}`);
}

function isOn(data: Buffer): boolean {
  const value = data.readUInt8(0);
  if (value > 1) throw wrong(`a mode is switched to ${value}`);
  return value === 1;
}

type Mode =
  | "promiscuous"
  | "allMulticast"
  | "allUnicast"
  | "noMulticast"
  | "noUnicast"
  | "noBroadcast";

const mode = (name: string, feature: FeatureName, field: Mode): Rule => ({
  name,
  feature,
  bytes: 1,
  act: (device, data) => {
    device.state[field] = isOn(data);
    return true;
  },
});

const macText = (bytes: Buffer) => bytes.toString("hex").replace(/..\B/g, "$&:");

/** One table of MAC_TABLE_SET, and what follows it. */
function macTable(data: Buffer): { addresses: string[]; rest: Buffer } {
  if (data.length < 4) throw wrong("MAC_TABLE_SET: a count is cut");
  const count = data.readUInt32LE(0);
  const end = 4 + 6 * count;
  if (end > data.length) throw wrong(`MAC_TABLE_SET: ${count} addresses in ${data.length} bytes`);
  const addresses = Array.from({ length: count }, (_, i) =>
    macText(data.subarray(4 + 6 * i, 10 + 6 * i)),
  );
  return { addresses, rest: data.subarray(end) };
}

function setMacTables(device: NetDevice, data: Buffer): boolean {
  const unicast = macTable(data);
  const multicast = macTable(unicast.rest);
  if (multicast.rest.length > 0) throw wrong("MAC_TABLE_SET: bytes behind the tables");
  device.state.unicast = unicast.addresses;
  device.state.multicast = multicast.addresses;
  return true;
}

function vlanId(data: Buffer): number {
  const id = data.readUInt16LE(0);
  if (id > 4095) throw wrong(`VLAN id ${id}`);
  return id;
}

function acknowledgeAnnounce(device: NetDevice): boolean {
  device.state.announcesAcknowledged++;
  const status = device.config.readUInt16LE(STATUS_FIELD);
  device.config.writeUInt16LE(status & ~ANNOUNCE, STATUS_FIELD);
  return true;
}

function setPairs(device: NetDevice, data: Buffer): boolean {
  const pairs = data.readUInt16LE(0);
  if (device.state.rssContexts.size > 0) throw wrong("VQ_PAIRS_SET while there are RSS contexts");
  device.activate(pairs, "VQ_PAIRS_SET");
  device.state.pairs = pairs;
  device.state.rss = undefined;
  // QEMU forgets them here, and nothing says that a device must not.
  device.state.hash = undefined;
  return true;
}

/** struct virtio_net_rss_config. §5.1.9.5.7.1 */
function parseRss(device: NetDevice, data: Buffer): RssConfig {
  if (data.length < 8) throw wrong("RSS: the configuration is cut");
  const hashTypes = data.readUInt32LE(0);
  const entries = data.readUInt16LE(4) + 1;
  const end = 8 + 2 * entries;
  if ((entries & (entries - 1)) !== 0) throw wrong(`RSS: ${entries} entries, no power of two`);
  if (entries > RSS_TABLE_MAX) throw wrong(`RSS: ${entries} entries of ${RSS_TABLE_MAX}`);
  if (data.length < end + 3) throw wrong("RSS: the table is cut");
  if ((hashTypes & ~HASH_TYPES) !== 0) throw wrong(`RSS: hash types ${hashTypes}`);
  const table = Array.from({ length: entries }, (_, i) => data.readUInt16LE(8 + 2 * i));
  const unclassified = data.readUInt16LE(6);
  const maxTxPairs = data.readUInt16LE(end);
  const keyBytes = data.readUInt8(end + 2);
  const key = Buffer.from(data.subarray(end + 3));
  if (keyBytes !== key.length || keyBytes > RSS_KEY_BYTES) throw wrong(`RSS: key of ${keyBytes}`);
  for (const pair of [unclassified, ...table]) {
    if (!device.isPairEnabled(pair)) throw wrong(`RSS: receive queue ${pair} is not enabled`);
  }
  return { hashTypes, table, unclassified, maxTxPairs, key };
}

function setRss(device: NetDevice, data: Buffer): boolean {
  const rss = parseRss(device, data);
  device.activate(rss.maxTxPairs, "RSS_CONFIG");
  device.state.rss = rss;
  return true;
}

function setHash(device: NetDevice, data: Buffer): boolean {
  if (!data.subarray(4, 12).equals(Buffer.alloc(8))) throw wrong("HASH_CONFIG: reserved words");
  const hashTypes = data.readUInt32LE(0);
  const key = Buffer.from(data.subarray(13));
  if (key.length !== data.readUInt8(12)) throw wrong("HASH_CONFIG: the key is cut");
  if ((hashTypes & ~HASH_TYPES) !== 0) throw wrong(`HASH_CONFIG: hash types ${hashTypes}`);
  device.state.hash = { hashTypes, key };
  return true;
}

/** Bits of GUEST_OFFLOADS_SET, which are those of the features but for tunnels. */
const OFFLOADS: readonly (readonly [bigint, FeatureName])[] = [
  [1n, "guest_csum"],
  [7n, "guest_tso4"],
  [8n, "guest_tso6"],
  [9n, "guest_ecn"],
  [54n, "guest_uso4"],
  [55n, "guest_uso6"],
];

function setOffloads(device: NetDevice, data: Buffer): boolean {
  const wanted = data.readBigUInt64LE(0);
  const agreed = OFFLOADS.filter(([, name]) => device.accepts(name));
  const allowed = agreed.reduce((set, [bit]) => set | (1n << bit), 0n);
  if ((wanted & ~allowed) !== 0n) throw wrong(`GUEST_OFFLOADS_SET: ${wanted} of ${allowed}`);
  device.state.guestOffloads = wanted;
  return true;
}

const coalescing = (data: Buffer, at: number) => ({
  maxPackets: data.readUInt32LE(at),
  maxUsecs: data.readUInt32LE(at + 4),
});

function coalescingQueue(device: NetDevice, data: Buffer): number {
  const index = data.readUInt16LE(0);
  const isData = index < 2 * device.options.pairs;
  if (!isData || !device.isPairEnabled(index >> 1)) throw wrong(`coalescing of queue ${index}`);
  return index;
}

function getCoalescing(device: NetDevice, data: Buffer): Answer {
  const { maxPackets, maxUsecs } = device.state.coalescingOf(coalescingQueue(device, data));
  const answer = Buffer.alloc(8);
  answer.writeUInt32LE(maxPackets, 0);
  answer.writeUInt32LE(maxUsecs, 4);
  return { ack: OK, data: answer };
}

function contextId(data: Buffer): number {
  const id = data.readUInt16LE(0);
  if (id < 1 || id > CONTEXTS_MAX) throw wrong(`RSS context ${id} of ${CONTEXTS_MAX}`);
  return id;
}

function setContext(device: NetDevice, data: Buffer): boolean {
  device.state.rssContexts.set(contextId(data), parseRss(device, data.subarray(8)));
  return true;
}

const CONTEXTS_MAX = 4;
const rule = (name: string, feature: FeatureName, bytes: number, act: Action): Rule => ({
  name,
  feature,
  bytes,
  act,
});
const long = (name: string, feature: FeatureName, bytes: number, act: Action): Rule => ({
  ...rule(name, feature, bytes, act),
  isLonger: true,
});

/** By class, then by command. */
const RULES: readonly (readonly Rule[])[] = [
  [
    mode("RX_PROMISC", "ctrl_rx", "promiscuous"),
    mode("RX_ALLMULTI", "ctrl_rx", "allMulticast"),
    mode("RX_ALLUNI", "ctrl_rx_extra", "allUnicast"),
    mode("RX_NOMULTI", "ctrl_rx_extra", "noMulticast"),
    mode("RX_NOUNI", "ctrl_rx_extra", "noUnicast"),
    mode("RX_NOBCAST", "ctrl_rx_extra", "noBroadcast"),
  ],
  [
    long("MAC_TABLE_SET", "ctrl_rx", 8, setMacTables),
    rule("MAC_ADDR_SET", "ctrl_mac_addr", 6, (device, data) => {
      device.state.mac = macText(data);
      return true;
    }),
  ],
  [
    rule("VLAN_ADD", "ctrl_vlan", 2, ({ state }, data) => state.vlans.add(vlanId(data)).size > 0),
    rule("VLAN_DEL", "ctrl_vlan", 2, ({ state }, data) => state.vlans.delete(vlanId(data))),
  ],
  [rule("ANNOUNCE_ACK", "guest_announce", 0, acknowledgeAnnounce)],
  [
    rule("VQ_PAIRS_SET", "mq", 2, setPairs),
    long("RSS_CONFIG", "rss", 13, setRss),
    long("HASH_CONFIG", "hash_report", 13, setHash),
  ],
  [rule("GUEST_OFFLOADS_SET", "ctrl_guest_offloads", 8, setOffloads)],
  [
    rule("NOTF_COAL_TX_SET", "notf_coal", 8, ({ state }, data) => {
      state.txCoalescing = coalescing(data, 0);
      return true;
    }),
    rule("NOTF_COAL_RX_SET", "notf_coal", 8, ({ state }, data) => {
      state.rxCoalescing = coalescing(data, 0);
      return true;
    }),
    rule("NOTF_COAL_VQ_SET", "vq_notf_coal", 12, (device, data) => {
      device.state.coalescing.set(coalescingQueue(device, data), coalescing(data, 4));
      return true;
    }),
    long("NOTF_COAL_VQ_GET", "vq_notf_coal", 4, getCoalescing),
  ],
  [
    rule("HASH_TUNNEL_SET", "hash_tunnel", 4, (device, data) => {
      const types = data.readUInt32LE(0);
      if ((types & ~device.config.readUInt32LE(24)) !== 0) throw wrong(`tunnel types ${types}`);
      device.state.tunnelTypes = types;
      return true;
    }),
  ],
  [
    rule("STATS_QUERY", "device_stats", 0, queryStatistics),
    long("STATS_GET", "device_stats", 16, readStatistics),
  ],
  [
    rule("RSS_CTX_CAP_GET", "rss_context", 0, () => {
      return { ack: OK, data: Buffer.of(CONTEXTS_MAX, 0) };
    }),
    long("RSS_CTX_ADD", "rss_context", 21, setContext),
    long("RSS_CTX_MOD", "rss_context", 21, setContext),
    rule("RSS_CTX_DEL", "rss_context", 2, ({ state }, data) =>
      state.rssContexts.delete(contextId(data)),
    ),
  ],
];

/** The name of a command, as the specification has it without VIRTIO_NET_CTRL. */
export function commandName(command: Command): string {
  const known = RULES[command.class]?.[command.command];
  return known?.name ?? `command ${command.class}.${command.command}`;
}

export function carryOut(device: NetDevice, command: Command): Answer {
  const known = RULES[command.class]?.[command.command];
  const { length } = command.data;
  device.state.commands++;
  if (known === undefined) throw wrong(`${commandName(command)} is not in the specification`);
  const { name, feature, bytes, isLonger, act } = known;
  if (!device.accepts(feature)) throw wrong(`${name} was sent, but ${feature} was not negotiated`);
  if (length < bytes || (length > bytes && isLonger !== true)) {
    throw wrong(`${name} with ${length} bytes of data, not ${bytes}`);
  }
  const result = act(device, command.data, command);
  if (typeof result === "object") {
    const room = command.answerBytes;
    const needed = result.data?.length ?? 0;
    if (room < needed) throw wrong(`${name}: room for ${room} bytes of answer, not ${needed}`);
    return result;
  }
  return { ack: result === true ? OK : ERR };
}
