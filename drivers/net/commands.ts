/**
 * What is said on the control queue: a function a command, each of which lays out its data and
 * sends it. They answer whether it is under way: false while another one is. Whoever calls has made
 * sure that the feature is there and the numbers are in range. Called by device.ts, settings.ts and
 * by kernel/control-commands.ts. virtio 1.4 §5.1.9.5
 */
import * as features from "../virtio/features";
import { ControlQueue } from "./control-queue";

export const CLASS_RX: u32 = 0;
export const RX_PROMISCUOUS: u32 = 0;
const CLASS_MAC: u32 = 1;
const MAC_TABLE_SET: u32 = 0;
const MAC_ADDR_SET: u32 = 1;
const MAC_BYTES: u32 = 6;
const CLASS_VLAN: u32 = 2;
const VLAN_ADD: u32 = 0;
const VLAN_DEL: u32 = 1;
const CLASS_ANNOUNCE: u32 = 3;
const ANNOUNCE_ACK: u32 = 0;
const CLASS_MQ: u32 = 4;
const MQ_VQ_PAIRS_SET: u32 = 0;
const MQ_RSS_CONFIG: u32 = 1;
const MQ_HASH_CONFIG: u32 = 2;
const CLASS_GUEST_OFFLOADS: u32 = 5;
const GUEST_OFFLOADS_SET: u32 = 0;
const CLASS_NOTF_COAL: u32 = 6;
const NOTF_COAL_TX_SET: u32 = 0;
const NOTF_COAL_RX_SET: u32 = 1;
const NOTF_COAL_VQ_SET: u32 = 2;
const NOTF_COAL_VQ_GET: u32 = 3;
const CLASS_STATS: u32 = 8;
const STATS_QUERY: u32 = 0;
const STATS_GET: u32 = 1;

/** The first receive mode that needs CTRL_RX_EXTRA. virtio 1.4 §5.1.9.5.1 */
const RX_EXTRA_FIRST: u32 = 2;

/** The feature that the settings' commands need, those that are told again after a reset. */
export function featureOf(klass: u32, command: u32): u32 {
  if (klass == CLASS_RX)
    return command < RX_EXTRA_FIRST ? features.CTRL_RX : features.CTRL_RX_EXTRA;
  if (klass == CLASS_MAC)
    return command == MAC_TABLE_SET ? features.CTRL_RX : features.CTRL_MAC_ADDR;
  if (klass == CLASS_GUEST_OFFLOADS) return features.CTRL_GUEST_OFFLOADS;
  return command == NOTF_COAL_VQ_SET ? features.VQ_NOTF_COAL : features.NOTF_COAL;
}

/** What a device statistics request takes, and what an answer to the query. §5.1.9.5.11 */
const STATS_REQUEST_BYTES: u32 = 16;
export const STATS_CAPABILITIES_BYTES: u32 = 8;
/** The result of reading a queue's coalescing: max_packets 4 | max_usecs 4. §5.1.9.5.10 */
export const COALESCING_BYTES: u32 = 8;

/** `mode` is one of the six of the specification, from promiscuous on. virtio 1.4 §5.1.9.5.1 */
export function setRxMode(control: ControlQueue, mode: u32, on: bool): bool {
  store<u8>(control.data, <u8>on);
  return control.send(CLASS_RX, mode, 1);
}

/** virtio 1.4 §5.1.9.5.2 */
export function setMac(control: ControlQueue, mac: usize): bool {
  memory.copy(control.data, mac, MAC_BYTES);
  return control.send(CLASS_MAC, MAC_ADDR_SET, MAC_BYTES);
}

/** Both tables, a count and addresses each, stand at `control.data` already. §5.1.9.5.2.2 */
export function setMacTable(control: ControlQueue, bytes: u32): bool {
  return control.send(CLASS_MAC, MAC_TABLE_SET, bytes);
}

/** Lets a VLAN's packets in, or no longer. virtio 1.4 §5.1.9.5.3 */
export function setVlan(control: ControlQueue, vlan: u32, on: bool): bool {
  store<u16>(control.data, <u16>vlan);
  return control.send(CLASS_VLAN, on ? VLAN_ADD : VLAN_DEL, 2);
}

/** Says that the announcement that the device asked for is on its way. virtio 1.4 §5.1.9.5.4 */
export function acknowledgeAnnounce(control: ControlQueue): bool {
  return control.send(CLASS_ANNOUNCE, ANNOUNCE_ACK, 0);
}

/** Uses the first `pairs` queue pairs, at least 1, from now on. virtio 1.4 §5.1.9.5.6 */
export function setPairs(control: ControlQueue, pairs: u32): bool {
  store<u16>(control.data, <u16>pairs);
  return control.send(CLASS_MQ, MQ_VQ_PAIRS_SET, 2);
}

/** The configuration stands at `control.data` already (rss.ts). virtio 1.4 §5.1.9.5.7.1 */
export function setRss(control: ControlQueue, bytes: u32): bool {
  return control.send(CLASS_MQ, MQ_RSS_CONFIG, bytes);
}

/** The configuration stands at `control.data` already (hash-report.ts). §5.1.9.5.6.4 */
export function setHash(control: ControlQueue, bytes: u32): bool {
  return control.send(CLASS_MQ, MQ_HASH_CONFIG, bytes);
}

/** Turns on the receive offloads whose bits are set, and the others off. §5.1.9.5.9 */
export function setOffloads(control: ControlQueue, offloads: u64): bool {
  store<u64>(control.data, offloads);
  return control.send(CLASS_GUEST_OFFLOADS, GUEST_OFFLOADS_SET, 8);
}

/** Coalescing of all receive or all transmit queues. virtio 1.4 §5.1.9.5.10 */
export function setCoalescing(control: ControlQueue, rx: bool, usecs: u32, packets: u32): bool {
  store<u32>(control.data, packets);
  store<u32>(control.data, usecs, 4);
  return control.send(CLASS_NOTF_COAL, rx ? NOTF_COAL_RX_SET : NOTF_COAL_TX_SET, 8);
}

/** Coalescing of one enabled queue: vq_index 2 | reserved 2 | max_packets 4 | max_usecs 4. */
export function setQueueCoalescing(
  control: ControlQueue,
  queue: u32,
  usecs: u32,
  packets: u32,
): bool {
  store<u32>(control.data, queue);
  store<u32>(control.data, packets, 4);
  store<u32>(control.data, usecs, 8);
  return control.send(CLASS_NOTF_COAL, NOTF_COAL_VQ_SET, 12);
}

export function getQueueCoalescing(control: ControlQueue, queue: u32): bool {
  store<u32>(control.data, queue);
  return control.send(CLASS_NOTF_COAL, NOTF_COAL_VQ_GET, 4, COALESCING_BYTES);
}

/** Which types of statistics there are: a mask of 64 bits. virtio 1.4 §5.1.9.5.11 */
export function queryStatistics(control: ControlQueue): bool {
  return control.send(CLASS_STATS, STATS_QUERY, 0, STATS_CAPABILITIES_BYTES);
}

/** Statistics of `types` of one queue: vq_index 2 | reserved 6 | types_bitmap 8. */
export function getStatistics(control: ControlQueue, queue: u32, types: u64, resultMax: u32): bool {
  store<u64>(control.data, queue);
  store<u64>(control.data, types, 8);
  return control.send(CLASS_STATS, STATS_GET, STATS_REQUEST_BYTES, resultMax);
}
