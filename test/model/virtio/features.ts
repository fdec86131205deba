// Feature bits by name, and which of them need which others. Used by the devices, which check what
// a driver accepts, and by tests, which say what is offered. virtio 1.4 §2.2, §5.1.3, §6

/** Names as the specification has them, in lower case and without prefix. */
export const FEATURE_BITS = {
  csum: 0,
  guest_csum: 1,
  ctrl_guest_offloads: 2,
  mtu: 3,
  mac: 5,
  guest_tso4: 7,
  guest_tso6: 8,
  guest_ecn: 9,
  host_tso4: 11,
  host_tso6: 12,
  host_ecn: 13,
  mrg_rxbuf: 15,
  status: 16,
  ctrl_vq: 17,
  ctrl_rx: 18,
  ctrl_vlan: 19,
  ctrl_rx_extra: 20,
  guest_announce: 21,
  mq: 22,
  ctrl_mac_addr: 23,
  indirect_desc: 28,
  event_idx: 29,
  version_1: 32,
  access_platform: 33,
  ring_packed: 34,
  in_order: 35,
  order_platform: 36,
  notification_data: 38,
  notif_config_data: 39,
  ring_reset: 40,
  device_stats: 50,
  hash_tunnel: 51,
  vq_notf_coal: 52,
  notf_coal: 53,
  guest_uso4: 54,
  guest_uso6: 55,
  host_uso: 56,
  hash_report: 57,
  guest_hdrlen: 59,
  rss: 60,
  rsc_ext: 61,
  speed_duplex: 63,
  rss_context: 64,
} as const;

export type FeatureName = keyof typeof FEATURE_BITS;

/** Each of the first needs one of the second. virtio 1.4 §5.1.3.1 */
const NEEDS: readonly (readonly [FeatureName, readonly FeatureName[]])[] = [
  ["guest_tso4", ["guest_csum"]],
  ["guest_tso6", ["guest_csum"]],
  ["guest_uso4", ["guest_csum"]],
  ["guest_uso6", ["guest_csum"]],
  ["guest_ecn", ["guest_tso4", "guest_tso6"]],
  ["host_tso4", ["csum"]],
  ["host_tso6", ["csum"]],
  ["host_uso", ["csum"]],
  ["host_ecn", ["host_tso4", "host_tso6"]],
  ["ctrl_rx", ["ctrl_vq"]],
  ["ctrl_vlan", ["ctrl_vq"]],
  ["ctrl_rx_extra", ["ctrl_vq"]],
  ["guest_announce", ["ctrl_vq"]],
  ["mq", ["ctrl_vq"]],
  ["ctrl_mac_addr", ["ctrl_vq"]],
  ["rss", ["ctrl_vq"]],
  ["hash_report", ["ctrl_vq"]],
  ["device_stats", ["ctrl_vq"]],
  ["hash_tunnel", ["ctrl_vq"]],
  ["hash_tunnel", ["rss", "hash_report"]],
  ["vq_notf_coal", ["ctrl_vq"]],
  ["notf_coal", ["ctrl_vq"]],
  ["rsc_ext", ["host_tso4", "host_tso6"]],
  ["rss_context", ["ctrl_vq"]],
  ["rss_context", ["rss"]],
];

const MASKS = new Map<string, bigint>(
  Object.entries(FEATURE_BITS).map(([name, number]) => [name, 1n << BigInt(number)]),
);

export function bit(name: FeatureName): bigint {
  return MASKS.get(name) ?? 0n;
}

export function has(features: bigint, name: FeatureName): boolean {
  return (features & bit(name)) !== 0n;
}

export function featureSet(names: readonly FeatureName[]): bigint {
  return names.reduce((set, name) => set | bit(name), 0n);
}

/** What is wrong with accepting `accepted` of `offered`, or undefined. */
export function judgeAccepted(offered: bigint, accepted: bigint): string | undefined {
  const extra = accepted & ~offered;
  if (extra !== 0n) return `§2.2.1: accepted 0x${extra.toString(16)}, which was not offered`;
  for (const [name, needed] of NEEDS) {
    if (has(accepted, name) && !needed.some((other) => has(accepted, other))) {
      return `§2.2.1: accepted ${name} without ${needed.join(" or ")}`;
    }
  }
  return undefined;
}
