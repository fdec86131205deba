/**
 * Feature bits: their names, what each depends on, and which of those on offer we accept. The rule
 * is an accept-list: a bit is accepted only if the driver has code for it, the device offers it,
 * the command line does not leave it out, and all it depends on is accepted too. Used by
 * drivers/net/device.ts and by kernel/main.ts (names). virtio 1.4 §2.2, §5.1.3, §6
 */

export const CSUM: u32 = 0;
export const GUEST_CSUM: u32 = 1;
export const CTRL_GUEST_OFFLOADS: u32 = 2;
export const MTU: u32 = 3;
export const MAC: u32 = 5;
export const GUEST_TSO4: u32 = 7;
export const GUEST_TSO6: u32 = 8;
export const GUEST_ECN: u32 = 9;
export const GUEST_UFO: u32 = 10;
export const HOST_TSO4: u32 = 11;
export const HOST_TSO6: u32 = 12;
export const HOST_ECN: u32 = 13;
export const HOST_UFO: u32 = 14;
export const MRG_RXBUF: u32 = 15;
export const STATUS: u32 = 16;
export const CTRL_VQ: u32 = 17;
export const CTRL_RX: u32 = 18;
export const CTRL_VLAN: u32 = 19;
export const CTRL_RX_EXTRA: u32 = 20;
export const GUEST_ANNOUNCE: u32 = 21;
export const MQ: u32 = 22;
export const CTRL_MAC_ADDR: u32 = 23;
export const INDIRECT_DESC: u32 = 28;
export const EVENT_IDX: u32 = 29;
export const VERSION_1: u32 = 32;
export const ACCESS_PLATFORM: u32 = 33;
export const RING_PACKED: u32 = 34;
export const IN_ORDER: u32 = 35;
export const ORDER_PLATFORM: u32 = 36;
export const NOTIFICATION_DATA: u32 = 38;
export const NOTIF_CONFIG_DATA: u32 = 39;
export const RING_RESET: u32 = 40;
export const DEVICE_STATS: u32 = 50;
export const HASH_TUNNEL: u32 = 51;
export const VQ_NOTF_COAL: u32 = 52;
export const NOTF_COAL: u32 = 53;
export const GUEST_USO4: u32 = 54;
export const GUEST_USO6: u32 = 55;
export const HOST_USO: u32 = 56;
export const HASH_REPORT: u32 = 57;
export const GUEST_HDRLEN: u32 = 59;
export const RSS: u32 = 60;
export const RSC_EXT: u32 = 61;
export const STANDBY: u32 = 62;
export const SPEED_DUPLEX: u32 = 63;

const BITS: u32 = 128;

/** The bits that this driver has code for, 0 to 63. */
const IMPLEMENTED: u64 =
  (1 << CSUM) |
  (1 << GUEST_CSUM) |
  (1 << CTRL_GUEST_OFFLOADS) |
  (1 << MTU) |
  (1 << GUEST_TSO4) |
  (1 << GUEST_TSO6) |
  (1 << GUEST_ECN) |
  (1 << HOST_TSO4) |
  (1 << HOST_TSO6) |
  (1 << HOST_ECN) |
  (1 << MAC) |
  (1 << MRG_RXBUF) |
  (1 << STATUS) |
  (1 << CTRL_VQ) |
  (1 << CTRL_RX) |
  (1 << CTRL_VLAN) |
  (1 << CTRL_RX_EXTRA) |
  (1 << GUEST_ANNOUNCE) |
  (1 << MQ) |
  (1 << CTRL_MAC_ADDR) |
  (1 << INDIRECT_DESC) |
  (1 << EVENT_IDX) |
  ((<u64>1) << VERSION_1) |
  // virtio 1.4 §6.1: addresses are physical, and nobody here turns an IOMMU on.
  ((<u64>1) << ACCESS_PLATFORM) |
  ((<u64>1) << RING_PACKED) |
  ((<u64>1) << IN_ORDER) |
  // virtio 1.4 §6.1: the barriers of the machine are those for devices, in any case.
  ((<u64>1) << ORDER_PLATFORM) |
  ((<u64>1) << NOTIFICATION_DATA) |
  ((<u64>1) << NOTIF_CONFIG_DATA) |
  ((<u64>1) << RING_RESET) |
  ((<u64>1) << GUEST_USO4) |
  ((<u64>1) << GUEST_USO6) |
  ((<u64>1) << HOST_USO) |
  ((<u64>1) << GUEST_HDRLEN) |
  ((<u64>1) << DEVICE_STATS) |
  ((<u64>1) << VQ_NOTF_COAL) |
  ((<u64>1) << NOTF_COAL) |
  ((<u64>1) << HASH_REPORT) |
  ((<u64>1) << RSS) |
  ((<u64>1) << SPEED_DUPLEX);

/** The name of each bit, as the specification has it, in lower case and without its prefix. */
const names = new StaticArray<string | null>(BITS);

name(0, "csum");
name(1, "guest_csum");
name(2, "ctrl_guest_offloads");
name(3, "mtu");
name(5, "mac");
name(7, "guest_tso4");
name(8, "guest_tso6");
name(9, "guest_ecn");
name(10, "guest_ufo");
name(11, "host_tso4");
name(12, "host_tso6");
name(13, "host_ecn");
name(14, "host_ufo");
name(15, "mrg_rxbuf");
name(16, "status");
name(17, "ctrl_vq");
name(18, "ctrl_rx");
name(19, "ctrl_vlan");
name(20, "ctrl_rx_extra");
name(21, "guest_announce");
name(22, "mq");
name(23, "ctrl_mac_addr");
name(24, "notify_on_empty");
name(27, "any_layout");
name(28, "indirect_desc");
name(29, "event_idx");
name(32, "version_1");
name(33, "access_platform");
name(34, "ring_packed");
name(35, "in_order");
name(36, "order_platform");
name(37, "sr_iov");
name(38, "notification_data");
name(39, "notif_config_data");
name(40, "ring_reset");
name(41, "admin_vq");
name(43, "suspend");
name(50, "device_stats");
name(51, "hash_tunnel");
name(52, "vq_notf_coal");
name(53, "notf_coal");
name(54, "guest_uso4");
name(55, "guest_uso6");
name(56, "host_uso");
name(57, "hash_report");
name(59, "guest_hdrlen");
name(60, "rss");
name(61, "rsc_ext");
name(62, "standby");
name(63, "speed_duplex");
name(64, "rss_context");
name(65, "guest_udp_tunnel_gso");
name(66, "guest_udp_tunnel_gso_csum");
name(67, "host_udp_tunnel_gso");
name(68, "host_udp_tunnel_gso_csum");
name(69, "out_net_header");
name(70, "ipsec");

function name(bit: u32, text: string): void {
  unchecked((names[bit] = text));
}

/** The name of a bit below 128, or null if the specification has none. */
export function featureName(bit: u32): string | null {
  return names[bit];
}

export function has(features: u64, bit: u32): bool {
  return ((features >> bit) & 1) != 0;
}

/** Received packets may be longer than the MTU. */
export const GUEST_GSO: u64 =
  (1 << GUEST_TSO4) | (1 << GUEST_TSO6) | ((<u64>1) << GUEST_USO4) | ((<u64>1) << GUEST_USO6);

const ANY_GUEST_TSO: u64 = (1 << GUEST_TSO4) | (1 << GUEST_TSO6);
const ANY_HOST_TSO: u64 = (1 << HOST_TSO4) | (1 << HOST_TSO6);

/**
 * What each bit depends on, in pairs: a bit, and the bits of which one at least must be there. A
 * bit that needs several things has several pairs. virtio 1.4 §5.1.3.1
 */
// biome-ignore format: a pair a line
const REQUIRES: StaticArray<u64> = [
  GUEST_TSO4, 1 << GUEST_CSUM,
  GUEST_TSO6, 1 << GUEST_CSUM,
  GUEST_ECN, ANY_GUEST_TSO,
  GUEST_UFO, 1 << GUEST_CSUM,
  HOST_TSO4, 1 << CSUM,
  HOST_TSO6, 1 << CSUM,
  HOST_ECN, ANY_HOST_TSO,
  HOST_UFO, 1 << CSUM,
  CTRL_RX, 1 << CTRL_VQ,
  CTRL_VLAN, 1 << CTRL_VQ,
  GUEST_ANNOUNCE, 1 << CTRL_VQ,
  MQ, 1 << CTRL_VQ,
  CTRL_MAC_ADDR, 1 << CTRL_VQ,
  HASH_TUNNEL, 1 << CTRL_VQ,
  HASH_TUNNEL, ((<u64>1) << RSS) | ((<u64>1) << HASH_REPORT),
  VQ_NOTF_COAL, 1 << CTRL_VQ,
  NOTF_COAL, 1 << CTRL_VQ,
  GUEST_USO4, 1 << GUEST_CSUM,
  GUEST_USO6, 1 << GUEST_CSUM,
  HOST_USO, 1 << CSUM,
  RSS, 1 << CTRL_VQ,
  RSC_EXT, ANY_HOST_TSO,
  // virtio 1.4 §5.1.4.2: should not be accepted without.
  CTRL_RX_EXTRA, 1 << CTRL_VQ,
  HASH_REPORT, 1 << CTRL_VQ,
  // Not in the specification's list: their commands go over that queue.
  CTRL_GUEST_OFFLOADS, 1 << CTRL_VQ,
  DEVICE_STATS, 1 << CTRL_VQ,
  // An announcement is asked for in the status field.
  GUEST_ANNOUNCE, 1 << STATUS,
];

/** Takes away every bit that lacks something it depends on. virtio 1.4 §2.2.1 */
export function closed(features: u64): u64 {
  let kept = features;
  let before: u64;
  do {
    before = kept;
    for (let i = 0; i < REQUIRES.length; i += 2) {
      if ((kept & REQUIRES[i + 1]) == 0) kept &= ~((<u64>1) << REQUIRES[i]);
    }
  } while (kept != before);
  return kept;
}

/** The bits of `offered` that we accept when those in `leftOut` are not wanted. */
export function choose(offered: u64, leftOut: u64): u64 {
  return closed(offered & IMPLEMENTED & ~leftOut);
}

/** Why bit `bit`, which is on offer, was not accepted. */
export function declineReason(bit: u32, leftOut: u64): string {
  if (bit == RING_PACKED && has(leftOut, bit)) return "ring=split or features=-ring_packed";
  if (bit < 64 && has(leftOut, bit)) return "left out on the command line";
  if (featureName(bit) == null) return "not defined by virtio 1.4";
  if (bit == 24 || bit == 27) return "legacy interface only";
  if (bit == 10 || bit == 14) return "UDP fragmentation offload is not used; uso takes its place";
  if (bit == RING_RESET) return "the common configuration has no room for it";
  if (bit < 64 && has(IMPLEMENTED, bit)) return "a feature that it depends on is missing";
  // Who accepts it is given a second device in this one's place, and the packets with it.
  if (bit == STANDBY) return "there is no driver for the primary device";
  if (bit >= 33 && bit <= 43) return "this transport feature is not implemented";
  return "not implemented";
}
