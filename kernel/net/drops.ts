/**
 * Why received frames were dropped: a counter per reason, of one interface. The protocols count,
 * stats.ts prints them.
 */
import { allocate } from "../memory/arena";

export enum DropReason {
  /** Shorter than an Ethernet header. */
  TooShort,
  /** Longer than the MTU allows. */
  TooLong,
  /** A header goes on beyond the first buffer. */
  Truncated,
  /** To another Ethernet address, or to a group that is not ours. */
  NotForUs,
  /** From an Ethernet group address. */
  Source,
  Ethertype,
  /** ARP that is malformed, or neither for us nor what we asked for. */
  Arp,
  IpVersion,
  IpLength,
  IpChecksum,
  IpFragment,
  /** To another IPv4 address, from one that no host has, or a broadcast nobody answers. */
  IpAddress,
  IpProtocol,
  IcmpType,
  IcmpLength,
  IcmpChecksum,
  UdpLength,
  UdpChecksum,
  UdpPort,
  /** A DHCP message that is malformed or that nobody waits for. */
  Dhcp,
  /** An answer that the device cannot send: it would have to be cut. */
  Offload,
  /** app=forward: the other NIC has no room in its ring, or holds as many buffers as it may. */
  ForwardFull,
  /** app=forward: the other NIC is not there, or does not use this lane. */
  ForwardDown,
  /** An IPv6 extension header that is malformed, out of place, or that we may not pass over. */
  IpExtension,
  /** Neighbour discovery that comes from beyond the link: its hop limit is not 255. */
  NdHopLimit,
  /** Neighbour discovery that is malformed, or neither for us nor what we asked for. */
  Nd,
}

/** How many there are. */
export const DROP_REASONS: u32 = DropReason.Nd + 1;

/** In the order of DropReason. */
const NAMES: StaticArray<string> = [
  "too_short",
  "too_long",
  "truncated",
  "not_for_us",
  "source",
  "ethertype",
  "arp",
  "ip_version",
  "ip_length",
  "ip_checksum",
  "ip_fragment",
  "ip_address",
  "ip_protocol",
  "icmp_type",
  "icmp_length",
  "icmp_checksum",
  "udp_length",
  "udp_checksum",
  "udp_port",
  "dhcp",
  "answer_offload",
  "forward_full",
  "forward_down",
  "ip_extension",
  "nd_hop_limit",
  "nd",
];

export class Drops {
  /** Frames that a protocol took in, answered or not; discarded ones are among them. */
  accepted: u64 = 0;
  /** Datagrams for the discard service, RFC 863. */
  discarded: u64 = 0;
  /** u64 per DropReason. */
  private counters: usize = allocate(NAMES.length * 8);

  /** Counts one. Answers false, which is what receive() answers for a frame that is done with. */
  count(reason: DropReason): bool {
    const counter = this.counters + ((<usize>reason) << 3);
    store<u64>(counter, load<u64>(counter) + 1);
    return false;
  }

  get(reason: DropReason): u64 {
    return load<u64>(this.counters + ((<usize>reason) << 3));
  }
}

export function dropName(reason: DropReason): string {
  return NAMES[reason];
}
