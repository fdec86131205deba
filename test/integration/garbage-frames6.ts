// IPv6 frames that no guest should take in, each with the reason under which it must be counted.
// Used by the garbage test.

import {
  ALL_NODES,
  buildIcmpv6,
  buildNeighbour,
  buildRouterAdvertisement,
  type ExtensionHeader,
  icmpv6Frame,
  ipv6Frame,
  linkLocalAddress,
  ND_TYPE,
  ndFrame,
  PROTOCOL_DESTINATION_OPTIONS,
  PROTOCOL_FRAGMENT,
  PROTOCOL_ICMPV6,
  PROTOCOL_ROUTING,
  paddingOptions,
  type Random,
  type Route,
  type Route6,
  solicitedNode,
  udp6Frame,
} from "qemu-test-harness";
import type { GarbageKind } from "./garbage-frames";
import { ECHO_PORT } from "./support";

const ETHERNET_BYTES = 14;
const HEADERS_BYTES = 54;
const PAYLOAD_MAX = 200;

/** Every kind, with random contents that depend on `random` alone; the MACs are the route's. */
export function garbageKinds6(macs: Route, random: Random): readonly GarbageKind[] {
  const { sourceMac, destinationMac } = macs;
  const guest = linkLocalAddress(destinationMac);
  const source = linkLocalAddress(sourceMac);
  const route = (rest: Partial<Route6> = {}): Route6 => {
    return { sourceMac, destinationMac, source, destination: guest, ...rest };
  };
  const text = () => random.bytes(1 + random.below(PAYLOAD_MAX));
  const udp = (rest: Partial<Route6> = {}) =>
    udp6Frame(route(rest), { sourcePort: 20_000, destinationPort: ECHO_PORT, payload: text() });
  const change = (frame: Buffer, at: number, value: number) => {
    frame.writeUInt16BE(value, at);
    return frame;
  };
  const flipped = (frame: Buffer, at: number) => {
    frame.writeUInt8(frame.readUInt8(at) ^ (1 << random.below(8)), at);
    return frame;
  };
  const behind = (...extensions: ExtensionHeader[]) => udp({ extensions });
  const fragment = (word: number) => {
    const rest = Buffer.from([0, word >> 8, word & 255, 0, 0, 0, 1]);
    return behind({ protocol: PROTOCOL_FRAGMENT, rest });
  };
  const group = (destination: string, hopLimit = 255): Route6 => {
    return { sourceMac, source, destination, hopLimit };
  };
  const advertised = (hopLimit: number) => {
    const body = buildRouterAdvertisement({ hopLimit: 1, lifetime: 9000, options: [] });
    return ndFrame(group(ALL_NODES, hopLimit), ND_TYPE.routerAdvertisement, body);
  };
  const solicited = (options: Uint8Array) => {
    const body = buildNeighbour({ flags: 0, target: guest, options: [] });
    const whole = Buffer.concat([body, options]);
    return ndFrame(group(solicitedNode(guest)), ND_TYPE.solicitation, whole);
  };
  return [
    { name: "random IPv6", make: () => ipv6Frame(route(), random.below(256), text()) },
    {
      name: "IPv6, one bit is wrong",
      make: () => {
        const frame = udp();
        return flipped(frame, ETHERNET_BYTES + random.below(frame.length - ETHERNET_BYTES));
      },
    },
    {
      name: "IPv6, a chain of random extension headers",
      make: () => {
        const kinds = [0, PROTOCOL_ROUTING, PROTOCOL_FRAGMENT, PROTOCOL_DESTINATION_OPTIONS];
        const chain = Array.from({ length: random.below(12) }, () => {
          return { protocol: random.pick(kinds), rest: Buffer.from(random.bytes(7)) };
        });
        return behind(...chain);
      },
    },
    {
      name: "IPv6, cut",
      reason: "ip_length",
      make: () => udp().subarray(0, ETHERNET_BYTES + random.below(HEADERS_BYTES - ETHERNET_BYTES)),
    },
    {
      name: "IPv6, a length beyond the frame",
      reason: "ip_length",
      make: () => change(udp(), ETHERNET_BYTES + 4, 1400),
    },
    {
      name: "IPv6, a length of 0",
      reason: "ip_length",
      make: () => change(udp(), ETHERNET_BYTES + 4, 0),
    },
    {
      name: "IPv6, another version",
      reason: "ip_version",
      make: () => change(udp(), ETHERNET_BYTES, 0x7000),
    },
    {
      name: "IPv6, another address",
      reason: "ip_address",
      make: () => udp({ destination: "2001:db8::9" }),
    },
    {
      name: "IPv6, an extension header beyond the packet",
      reason: "ip_length",
      make: () =>
        behind({ protocol: PROTOCOL_DESTINATION_OPTIONS, rest: Buffer.of(255, 0, 0, 0, 0, 0, 0) }),
    },
    {
      name: "IPv6, ten extension headers",
      reason: "ip_extension",
      make: () => {
        return behind(
          ...Array<ExtensionHeader>(10).fill(paddingOptions(PROTOCOL_DESTINATION_OPTIONS)),
        );
      },
    },
    {
      name: "IPv6, a route that goes on",
      reason: "ip_extension",
      make: () => behind({ protocol: PROTOCOL_ROUTING, rest: Buffer.of(0, 4, 3, 0, 0, 0, 0) }),
    },
    { name: "IPv6, a first fragment", reason: "ip_fragment", make: () => fragment(1) },
    { name: "IPv6, a later fragment", reason: "ip_fragment", make: () => fragment(8 << 3) },
    {
      name: "IPv6, an unknown protocol",
      reason: "ip_protocol",
      make: () => ipv6Frame(route(), 132, text()),
    },
    {
      name: "UDP over IPv6, a wrong checksum",
      reason: "udp_checksum",
      make: () => flipped(udp(), HEADERS_BYTES + 8),
    },
    {
      name: "UDP over IPv6 without a checksum",
      reason: "udp_checksum",
      make: () => change(udp(), HEADERS_BYTES + 6, 0),
    },
    {
      name: "ICMPv6, a wrong checksum",
      reason: "icmp_checksum",
      make: () => {
        return flipped(icmpv6Frame(route(), { type: 128, code: 0, body: random.bytes(40) }), 60);
      },
    },
    {
      name: "ICMPv6, a checksum for other addresses",
      reason: "icmp_checksum",
      make: () => {
        const message = { type: 128, code: 0, body: random.bytes(4 + random.below(PAYLOAD_MAX)) };
        const elsewhere = { source, destination: "2001:db8::77" };
        return ipv6Frame(route(), PROTOCOL_ICMPV6, buildIcmpv6(message, elsewhere));
      },
    },
    {
      name: "a router from beyond the link",
      reason: "nd_hop_limit",
      make: () => advertised(random.below(255)),
    },
    {
      name: "a solicitation with an option of length 0",
      reason: "nd",
      make: () => solicited(Buffer.from([1 + random.below(5), 0, ...random.bytes(6)])),
    },
    {
      name: "a solicitation with an option beyond its end",
      reason: "nd",
      make: () => solicited(Buffer.from([1, 2 + random.below(254), ...random.bytes(6)])),
    },
    {
      name: "a solicitation that is cut",
      reason: "nd",
      make: () => ndFrame(group(solicitedNode(guest)), ND_TYPE.solicitation, random.bytes(12)),
    },
    {
      name: "an advertisement that nobody asked for",
      reason: "nd",
      make: () => {
        const body = buildNeighbour({ flags: 0x20, target: "2001:db8::5", options: [] });
        return ndFrame(group(ALL_NODES), ND_TYPE.advertisement, body);
      },
    },
  ];
}
