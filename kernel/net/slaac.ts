/**
 * Routers and what they say: solicitation (RFC 4861 6.3.7, RFC 7559), the default router, and
 * addresses made of advertised prefixes (RFC 4862 5.5). Made by stack6.ts on CPU 0 for a NIC with
 * ip6=auto; other options, an MTU among them, have no effect: what we begin ourselves is short, and
 * an answer is as long as its question.
 */
import * as machine from "../machine";
import { allocate } from "../memory/arena";
import { NEVER, deadlineIn, tscToUs } from "../time";
import { Packet } from "../../drivers/net/packet";
import {
  ADDRESS6_BYTES,
  ALL_ROUTERS,
  UNSPECIFIED,
  copy6,
  equal6,
  isGroup6,
  isLinkLocal6,
  samePrefix6,
} from "./address6";
import { AddressState, ENTRIES, LINK_ENTRY, Origin } from "./addresses6";
import { loadBE16, loadBE32 } from "./bytes";
import { Dad, report } from "./dad";
import { DropReason } from "./drops";
import { Interface, RESEND_US } from "./interface";
import * as ipv6 from "./ipv6";
import * as message from "./nd-message";

const SECOND_US: u64 = 1_000_000;
/** RTR_SOLICITATION_INTERVAL, doubled each time up to MRT, an hour. RFC 7559 2 */
const SOLICIT_US: u64 = 4 * SECOND_US;
const BACK_OFF_MAX: u32 = 10;
/** RFC 4862 5.5.3 e: a lifetime below this is not believed of an address that has more. */
const TWO_HOURS: u64 = 7200;
const ENDLESS: u32 = 0xffffffff;

const ON_LINK: u32 = 0x80;
const AUTONOMOUS: u32 = 0x40;
/** What Ethernet leaves to the prefix. RFC 2464 4 */
const PREFIX_BITS: u32 = 64;

export class Slaac {
  /** When poll() has something to do. */
  deadline: u64 = NEVER;
  private solicitAt: u64 = NEVER;
  private solicitations: u32 = 0;
  /** The default router, valid until then. */
  private readonly router: usize = allocate(ADDRESS6_BYTES, 8);
  private routerUntil: u64 = 0;
  private readonly formed: usize = allocate(ADDRESS6_BYTES, 8);

  constructor(
    readonly net: Interface,
    private readonly dad: Dad,
  ) {}

  /** Asks for routers: at first, and when the link came back. */
  solicit(): void {
    this.solicitations = 0;
    this.solicitAt = 0;
    this.deadline = 0;
  }

  /** The address of the default router, or 0. */
  defaultRouter(now: u64): usize {
    return now < this.routerUntil ? this.router : 0;
  }

  // ---- timers -----------------------------------------------------------------------------------

  poll(now: u64): void {
    if (!this.net.six.enabled) {
      this.deadline = NEVER;
      return;
    }
    if (now >= this.solicitAt) this.sendSolicitation();
    let next = this.solicitAt;
    for (let i: u32 = 1; i < ENTRIES; i++) next = min(next, this.age(i, now));
    this.deadline = next;
  }

  /** With an address if there is one already, and then with our MAC. RFC 4861 6.3.7 */
  private sendSolicitation(): void {
    const net = this.net;
    const isUsable = net.six.isUsable(LINK_ENTRY);
    const from = isUsable ? net.six.at(LINK_ENTRY) : UNSPECIFIED;
    const option = isUsable ? message.OPTION_SOURCE_MAC : 0;
    const type = message.ROUTER_SOLICITATION;
    const bytes = message.ROUTER_SOLICITATION_BYTES;
    if (!message.send(net, type, 0, bytes, from, ALL_ROUTERS, 0, option)) {
      this.solicitAt = deadlineIn(RESEND_US);
      return;
    }
    // A tenth longer or shorter, so that hosts do not ask in step.
    const wait = SOLICIT_US << min(this.solicitations, BACK_OFF_MAX);
    if (this.solicitations < BACK_OFF_MAX) this.solicitations++;
    this.solicitAt = deadlineIn(wait - wait / 10 + (machine.entropy() % (wait / 5)));
  }

  /** Lets an address grow old; answers when to look again. */
  private age(index: u32, now: u64): u64 {
    const six = this.net.six;
    const state = six.state(index);
    if (state == AddressState.None) return NEVER;
    const valid = six.validUntil(index);
    if (now >= valid) {
      const wasUsed = six.isUsable(index);
      this.dad.forget(index);
      six.remove(index);
      if (wasUsed) report(this.net, index, "expired");
      return NEVER;
    }
    if (state != AddressState.Preferred) return valid;
    const preferred = six.preferredUntil(index);
    if (now < preferred) return min(preferred, valid);
    six.setState(index, AddressState.Deprecated);
    report(this.net, index, "deprecated");
    return valid;
  }

  // ---- advertisements ---------------------------------------------------------------------------

  /** Takes in a router's advertisement. RFC 4861 6.3.4 */
  advertised(packet: Packet, now: u64): void {
    const bytes = ipv6.payloadBytes;
    const text = packet.data + ipv6.offset;
    const fixed = message.ROUTER_ADVERTISEMENT_BYTES;
    // RFC 4861 6.1.2
    const isRight =
      bytes >= fixed &&
      ipv6.offset + bytes <= packet.length &&
      load<u8>(text, 1) == 0 &&
      isLinkLocal6(ipv6.source) &&
      message.parseOptions(text + fixed, bytes - fixed);
    if (!isRight) {
      this.net.drops.count(DropReason.Nd);
      return;
    }
    const limit: u32 = load<u8>(text, 4);
    if (limit != 0) this.net.six.hopLimit = limit;
    this.takeRouter(loadBE16(text + 6));
    const end = text + bytes;
    let option = message.nextPrefix(text + fixed, end);
    while (option != 0) {
      this.takePrefix(option, now);
      option = message.nextPrefix(message.afterPrefix(option), end);
    }
    this.net.drops.accepted++;
    // Lifetimes have changed.
    this.deadline = 0;
  }

  /** One router is enough: the first, as long as it says that it is one. */
  private takeRouter(seconds: u32): void {
    const isOurs = equal6(this.router, ipv6.source);
    if (seconds == 0) {
      if (isOurs) this.routerUntil = 0;
      return;
    }
    this.solicitAt = NEVER;
    if (!isOurs && machine.tsc() < this.routerUntil) return;
    copy6(this.router, ipv6.source);
    this.routerUntil = deadlineIn(<u64>seconds * SECOND_US);
  }

  /** RFC 4862 5.5.3 */
  private takePrefix(option: usize, now: u64): void {
    const flags: u32 = load<u8>(option, 3);
    const valid = loadBE32(option + 4);
    const preferred = loadBE32(option + 8);
    copy6(this.formed, option + 16);
    const isUsable =
      (flags & AUTONOMOUS) != 0 &&
      load<u8>(option, 2) == PREFIX_BITS &&
      preferred <= valid &&
      !isLinkLocal6(this.formed) &&
      !isGroup6(this.formed) &&
      load<u64>(this.formed) != 0;
    if (!isUsable) return;
    const six = this.net.six;
    let index = this.findPrefix();
    if (index < 0) {
      index = six.free();
      // Two prefixes have had our attention: a third is nobody's loss.
      if (valid == 0 || index < 0) return;
      // That of the link-local address, also when our MAC has changed since: one group for both.
      store<u64>(this.formed, load<u64>(six.at(LINK_ENTRY), 8), 8);
      six.set(<u32>index, this.formed, PREFIX_BITS, Origin.Slaac);
      six.setLifetimes(<u32>index, until(preferred), until(valid));
      this.dad.start(<u32>index);
    } else {
      this.renew(<u32>index, preferred, valid, now);
    }
    six.setOnLink(<u32>index, (flags & ON_LINK) != 0);
  }

  /** The entry that was made of the prefix in `formed`, or -1. */
  private findPrefix(): i32 {
    const six = this.net.six;
    for (let i: u32 = 1; i < ENTRIES; i++) {
      const isIts = six.origin(i) == Origin.Slaac && six.state(i) != AddressState.None;
      if (isIts && samePrefix6(six.at(i), this.formed, PREFIX_BITS)) return <i32>i;
    }
    return -1;
  }

  /** RFC 4862 5.5.3 e: nobody takes an address away within two hours. */
  private renew(index: u32, preferred: u32, valid: u32, now: u64): void {
    const six = this.net.six;
    const end = six.validUntil(index);
    const left: u64 = end == NEVER ? u64.MAX_VALUE : tscToUs(end - min(end, now)) / SECOND_US;
    let newEnd = end;
    if (valid > TWO_HOURS || valid > left) newEnd = until(valid);
    else if (left > TWO_HOURS) newEnd = until(<u32>TWO_HOURS);
    const newPreferred = until(preferred);
    six.setLifetimes(index, newPreferred, newEnd);
    if (six.state(index) != AddressState.Deprecated || newPreferred <= now || preferred == 0)
      return;
    six.setState(index, AddressState.Preferred);
    report(this.net, index, "preferred");
  }
}

/** The time stamp `seconds` from now; all ones stand for ever. RFC 4861 4.6.2 */
function until(seconds: u32): u64 {
  return seconds == ENDLESS ? NEVER : deadlineIn(<u64>seconds * SECOND_US);
}
