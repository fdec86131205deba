// Frames that no guest should take in, each with the name under which it must be counted. Used by
// the garbage test.

import {
  buildEthernet,
  buildIcmpEcho,
  buildIpv4,
  buildUdp,
  ICMP_ECHO_REQUEST,
  internetChecksum,
  PROTOCOL_ICMP,
  PROTOCOL_UDP,
  type Random,
  type Route,
  TYPE_ARP,
  TYPE_IPV4,
} from "qemu-test-harness";
import { ECHO_PORT } from "./support";

export interface GarbageKind {
  readonly name: string;
  /** The reason in `drops`; a kind without one may be counted as several things. */
  readonly reason?: string;
  readonly make: () => Buffer;
}

const ETHERNET_BYTES = 14;
const IPV4_BYTES = 20;
const HEADERS_BYTES = 42;
const PAYLOAD_MAX = 200;
const LARGEST_FRAME = 1514;

/** Every kind, with random contents that depend on `random` alone. */
export function garbageKinds(route: Route, random: Random): readonly GarbageKind[] {
  const { source, destination, sourceMac, destinationMac } = route;
  const text = () => random.bytes(1 + random.below(PAYLOAD_MAX));
  const ethernet = (type: number, payload: Uint8Array, from = sourceMac) =>
    buildEthernet({ destination: destinationMac, source: from, type, payload });
  const ip = (protocol: number, payload: Uint8Array, to = destination) =>
    ethernet(TYPE_IPV4, buildIpv4({ source, destination: to, protocol, payload }));
  const datagram = (destinationPort = ECHO_PORT) =>
    buildUdp({ sourcePort: 20_000, destinationPort, payload: text() }, route);
  const udp = () => ip(PROTOCOL_UDP, datagram());
  const echo = () =>
    buildIcmpEcho({ type: ICMP_ECHO_REQUEST, code: 0, id: 1, sequence: 1, payload: text() });
  /** Flips a bit among `bytes` bytes of a frame from `at` on. */
  const flip = (frame: Buffer, at: number, bytes: number) => {
    const where = at + random.below(bytes);
    frame.writeUInt8(frame.readUInt8(where) ^ (1 << random.below(8)), where);
    return frame;
  };
  /** Overwrites 16 bits of the IPv4 header, whose checksum stays right. */
  const rewrite = (frame: Buffer, at: number, value: number) => {
    frame.writeUInt16BE(value, ETHERNET_BYTES + at);
    frame.writeUInt16BE(0, ETHERNET_BYTES + 10);
    const header = frame.subarray(ETHERNET_BYTES, ETHERNET_BYTES + IPV4_BYTES);
    frame.writeUInt16BE(internetChecksum(header), ETHERNET_BYTES + 10);
    return frame;
  };
  const put = (frame: Buffer, at: number, value: number) => {
    frame.writeUInt16BE(value, at);
    return frame;
  };
  return [
    { name: "random bytes", make: () => random.bytes(1 + random.below(LARGEST_FRAME)) },
    {
      name: "one bit is wrong",
      make: () => {
        const frame = udp();
        return flip(frame, ETHERNET_BYTES, frame.length - ETHERNET_BYTES);
      },
    },
    { name: "random IPv4", make: () => ethernet(TYPE_IPV4, random.bytes(random.below(1500))) },
    {
      name: "cut in the Ethernet header",
      reason: "too_short",
      make: () => udp().subarray(0, 1 + random.below(ETHERNET_BYTES - 1)),
    },
    {
      name: "cut behind the Ethernet header",
      reason: "ip_length",
      make: () => udp().subarray(0, ETHERNET_BYTES + random.below(HEADERS_BYTES - ETHERNET_BYTES)),
    },
    {
      name: "longer than the MTU",
      reason: "too_long",
      make: () => ethernet(TYPE_IPV4, random.bytes(1501 + random.below(4000))),
    },
    {
      name: "much longer than the MTU",
      reason: "too_long",
      make: () => ethernet(TYPE_IPV4, Buffer.alloc(20_000, random.below(256))),
    },
    {
      name: "from a group address",
      reason: "source",
      make: () => ethernet(TYPE_IPV4, text(), "01:00:5e:00:00:01"),
    },
    {
      name: "an unknown EtherType",
      reason: "ethertype",
      make: () => ethernet(0x9000 + random.below(0x1000), text()),
    },
    { name: "random ARP", reason: "arp", make: () => ethernet(TYPE_ARP, random.bytes(46)) },
    { name: "IP version 6", reason: "ip_version", make: () => rewrite(udp(), 0, 0x6500) },
    {
      name: "an IPv4 header of 16 bytes",
      reason: "ip_length",
      make: () => rewrite(udp(), 0, 0x4400),
    },
    {
      name: "an IPv4 length beyond the frame",
      reason: "ip_length",
      make: () => rewrite(udp(), 2, 1480),
    },
    {
      name: "a wrong IPv4 header checksum",
      reason: "ip_checksum",
      make: () => flip(udp(), ETHERNET_BYTES + 10, 2),
    },
    { name: "a first fragment", reason: "ip_fragment", make: () => rewrite(udp(), 6, 0x2000) },
    {
      name: "a later fragment",
      reason: "ip_fragment",
      make: () => rewrite(udp(), 6, 1 + random.below(0x1fff)),
    },
    { name: "an unknown protocol", reason: "ip_protocol", make: () => ip(132, text()) },
    {
      name: "another IPv4 address",
      reason: "ip_address",
      make: () => ip(PROTOCOL_UDP, datagram(), "192.0.2.99"),
    },
    {
      name: "a wrong UDP checksum",
      reason: "udp_checksum",
      make: () => flip(udp(), HEADERS_BYTES, 1),
    },
    {
      name: "a UDP length beyond the packet",
      reason: "udp_length",
      make: () => put(udp(), ETHERNET_BYTES + IPV4_BYTES + 4, 1400),
    },
    {
      name: "a UDP port that nobody serves",
      reason: "udp_port",
      make: () => ip(PROTOCOL_UDP, datagram(10_000 + random.below(50_000))),
    },
    {
      name: "a wrong ICMP checksum",
      reason: "icmp_checksum",
      make: () => flip(ip(PROTOCOL_ICMP, echo()), ETHERNET_BYTES + IPV4_BYTES + 8, 1),
    },
    {
      name: "an ICMP message of 4 bytes",
      reason: "icmp_length",
      make: () => ip(PROTOCOL_ICMP, random.bytes(4)),
    },
    {
      name: "an ICMP type that nobody serves",
      reason: "icmp_type",
      make: () =>
        ip(
          PROTOCOL_ICMP,
          buildIcmpEcho({ type: 13, code: 0, id: 1, sequence: 1, payload: text() }),
        ),
    },
  ];
}
