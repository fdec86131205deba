// An IPv6 host and router on the other end of the network device's wire: it builds frames to the
// guest and reads those that the guest sent. Used by tests of IPv6, beside the peer of guest.ts.

import {
  ALL_NODES,
  buildNeighbour,
  buildRouterAdvertisement,
  echo6Frame,
  eui64Address,
  type Frame6,
  ICMPV6_ECHO_REQUEST,
  linkLocalAddress,
  macOption,
  ND_FLAG,
  ND_OPTION,
  ND_TYPE,
  type NeighbourMessage,
  ndFrame,
  type PrefixInformation,
  parseFrame6,
  parseNeighbour,
  prefixOption,
  type Route6,
  solicitedNode,
  udp6Frame,
} from "qemu-test-harness";
import type { Guest } from "../guest";
import { ECHO_PORT, PEER, PEER_PORT } from "./peer";

export const PREFIX = "2001:db8:1:2::";
export const PEER_LINK = linkLocalAddress(PEER.mac);
export const PEER_GLOBAL = "2001:db8:1:2::1";

/** What routers usually say of a prefix. */
export const USUAL_PREFIX: PrefixInformation = {
  prefix: PREFIX,
  prefixLength: 64,
  onLink: true,
  autonomous: true,
  valid: 86_400,
  preferred: 14_400,
};

export interface Nd extends Frame6 {
  readonly type: number;
  readonly message: NeighbourMessage;
}

export class Peer6 {
  readonly guestLink: string;
  readonly guestGlobal: string;
  private readonly guestMac: string;

  constructor(private readonly guest: Guest) {
    this.guestMac = guest.nic.options.mac;
    this.guestLink = linkLocalAddress(this.guestMac);
    this.guestGlobal = eui64Address(PREFIX, this.guestMac);
  }

  /** To the guest's link-local address, or elsewhere. */
  route(rest: Partial<Route6> = {}): Route6 {
    return {
      sourceMac: PEER.mac,
      destinationMac: this.guestMac,
      source: PEER_LINK,
      destination: this.guestLink,
      ...rest,
    };
  }

  /** A route to a group: its Ethernet address follows from it. */
  groupRoute(destination: string, rest: Partial<Route6> = {}): Route6 {
    return { sourceMac: PEER.mac, source: PEER_LINK, destination, ...rest };
  }

  // ---- what the guest sent ----------------------------------------------------------------------

  /** All that is IPv6, from frame number `from` on; checksums verified. */
  sent(from = 0): Frame6[] {
    const frames = this.guest.peer.frames.slice(from).map((frame) => parseFrame6(frame));
    return frames.filter((frame) => frame !== undefined);
  }

  /** Solicitations or advertisements among them. */
  neighbourMessages(type: number, from = 0): Nd[] {
    return this.sent(from)
      .filter(({ icmpv6 }) => icmpv6?.type === type)
      .map((frame) => {
        const message = parseNeighbour(frame.icmpv6?.body ?? Buffer.alloc(0));
        return { ...frame, type, message };
      });
  }

  /** How often it has asked for routers. */
  routerSolicitations(): Frame6[] {
    return this.sent().filter(({ icmpv6 }) => icmpv6?.type === ND_TYPE.routerSolicitation);
  }

  /** What comes back for a frame. */
  answers(frame: Uint8Array): Frame6[] {
    const before = this.guest.peer.frames.length;
    this.guest.nic.receive(frame);
    this.guest.settle();
    return this.sent(before);
  }

  /** The `ipv6` events so far: address and state. */
  events(): [string, string][] {
    return this.guest.machine.console.all("ipv6").map(({ ip6, state }) => [ip6, state]);
  }

  /** Runs until an address is in this state. */
  until(address: string, state = "preferred"): void {
    const happened = () => this.events().some(([ip6, is]) => ip6 === address && is === state);
    this.guest.until(happened, `${address} is ${state}`);
  }

  // ---- frames to the guest ----------------------------------------------------------------------

  solicitation(target: string, rest: Partial<Route6> = {}): Buffer {
    const options = [macOption(ND_OPTION.sourceMac, PEER.mac)];
    const body = buildNeighbour({ flags: 0, target, options });
    return ndFrame(this.groupRoute(solicitedNode(target), rest), ND_TYPE.solicitation, body);
  }

  /** What a host sends that is about to take an address. */
  dadSolicitation(target: string, rest: Partial<Route6> = {}): Buffer {
    const body = buildNeighbour({ flags: 0, target, options: [] });
    const route = this.groupRoute(solicitedNode(target), { source: "::", ...rest });
    return ndFrame(route, ND_TYPE.solicitation, body);
  }

  advertisement(target: string, rest: Partial<Route6> = {}): Buffer {
    const options = [macOption(ND_OPTION.targetMac, PEER.mac)];
    const body = buildNeighbour({ flags: ND_FLAG.override, target, options });
    return ndFrame(this.groupRoute(ALL_NODES, rest), ND_TYPE.advertisement, body);
  }

  routerAdvertisement(
    prefixes: readonly Partial<PrefixInformation>[] = [{}],
    lifetime = 1800,
    rest: Partial<Route6> = {},
  ): Buffer {
    const options = prefixes.map((prefix) => prefixOption({ ...USUAL_PREFIX, ...prefix }));
    const body = buildRouterAdvertisement({ hopLimit: 64, lifetime, options });
    return ndFrame(this.groupRoute(ALL_NODES, rest), ND_TYPE.routerAdvertisement, body);
  }

  echoRequest(payload: Uint8Array, rest: Partial<Route6> = {}): Buffer {
    const fields = { sourcePort: PEER_PORT, destinationPort: ECHO_PORT, payload };
    return udp6Frame(this.route(rest), fields);
  }

  ping(payload: Uint8Array, rest: Partial<Route6> = {}): Buffer {
    return echo6Frame(this.route(rest), ICMPV6_ECHO_REQUEST, { id: 7, sequence: 1, payload });
  }
}
