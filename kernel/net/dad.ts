/**
 * Duplicate address detection, RFC 4862 5.4: an address of ours is tentative until nobody has
 * objected to it for a second. Made by stack6.ts on CPU 0; slaac.ts and nd.ts tell it what comes.
 *
 *   Tentative --asked once, a second of silence--> Preferred
 *       +--------somebody has it or wants it-----> Duplicate; the link-local one: IPv6 is off
 */
import * as events from "../events";
import * as machine from "../machine";
import { allocate } from "../memory/arena";
import { NEVER, deadlineIn } from "../time";
import { ADDRESS6_BYTES, UNSPECIFIED, writeSolicitedNode } from "./address6";
import { AddressState, ENTRIES, LINK_ENTRY, Origin } from "./addresses6";
import { Interface, RESEND_US } from "./interface";
import * as message from "./nd-message";

/** RFC 4861 10: RETRANS_TIMER. DupAddrDetectTransmits is 1, as RFC 4862 5.1 has it. */
const SILENCE_US: u64 = 1_000_000;
/**
 * The first message is late by a random time, so that machines that come up together do not all
 * ask at once. RFC 4862 5.4.2 allows a second; we boot in a hundredth of one.
 */
const FIRST_DELAY_US: u64 = 100_000;

const ORIGINS: StaticArray<string> = ["link", "static", "slaac"];

export class Dad {
  /** When poll() has something to do. */
  deadline: u64 = NEVER;
  /** A time stamp for each entry: when to ask, and when the silence was long enough. */
  private readonly askAt: usize = allocate(ENTRIES * 8, 8);
  private readonly silentAt: usize = allocate(ENTRIES * 8, 8);
  private readonly group: usize = allocate(ADDRESS6_BYTES, 8);

  constructor(readonly net: Interface) {
    for (let i: u32 = 0; i < ENTRIES; i++) this.forget(i);
  }

  /** Begins with a new tentative address. */
  start(index: u32): void {
    this.forget(index);
    const delay = index == LINK_ENTRY ? machine.entropy() % FIRST_DELAY_US : 0;
    store<u64>(this.askAt + (index << 3), deadlineIn(delay));
    this.update();
  }

  /** Nothing more to do about an entry. */
  forget(index: u32): void {
    store<u64>(this.askAt + (index << 3), NEVER);
    store<u64>(this.silentAt + (index << 3), NEVER);
  }

  poll(now: u64): void {
    for (let i: u32 = 0; i < ENTRIES; i++) {
      if (now >= load<u64>(this.askAt + (i << 3))) this.ask(i);
      if (now >= load<u64>(this.silentAt + (i << 3))) this.succeed(i);
    }
    this.update();
  }

  private update(): void {
    let next = NEVER;
    for (let i: u32 = 0; i < ENTRIES; i++) {
      next = min(next, min(load<u64>(this.askAt + (i << 3)), load<u64>(this.silentAt + (i << 3))));
    }
    this.deadline = next;
  }

  private ask(index: u32): void {
    const net = this.net;
    const target = net.six.at(index);
    writeSolicitedNode(this.group, target);
    const type = message.SOLICITATION;
    const bytes = message.NEIGHBOUR_BYTES;
    const sent = message.send(net, type, 0, bytes, UNSPECIFIED, this.group, target, 0);
    store<u64>(this.askAt + (index << 3), sent ? NEVER : deadlineIn(RESEND_US));
    if (sent) store<u64>(this.silentAt + (index << 3), deadlineIn(SILENCE_US));
  }

  private succeed(index: u32): void {
    this.forget(index);
    const six = this.net.six;
    // Its time may have run out meanwhile; slaac.ts sees to that.
    six.setState(index, AddressState.Preferred);
    report(this.net, index, "preferred");
  }

  /** Somebody else has, or wants, the tentative address. RFC 4862 5.4.3, 5.4.4, 5.4.5 */
  refuse(index: u32): void {
    this.forget(index);
    this.update();
    this.net.six.setState(index, AddressState.Duplicate);
    report(this.net, index, "duplicate");
    events.warning(
      index == LINK_ENTRY
        ? "another host has our IPv6 link-local address: IPv6 is off"
        : "another host has our IPv6 address: it is not used",
    );
    // RFC 4862 5.4.5: it was made from a MAC that should be one of a kind.
    if (index == LINK_ENTRY) this.net.six.enabled = false;
  }
}

/** The `ipv6` event: what has become of an address. */
export function report(net: Interface, index: u32, state: string): void {
  const six = net.six;
  const origin = six.origin(index);
  events.begin("ipv6");
  events.num("nic", net.link.index);
  events.ip6("ip6", six.at(index));
  events.num("prefix", six.prefix(index));
  events.text("scope", origin == Origin.Link ? "link" : "global");
  events.text("origin", ORIGINS[origin]);
  events.text("state", state);
  events.end();
}
