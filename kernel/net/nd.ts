/**
 * Neighbour discovery, RFC 4861 7: what ARP is to IPv4. Answers for our addresses, announces them,
 * and asks for the one next hop that the source app sends to. Made and called by stack6.ts.
 */
import * as events from "../events";
import { Packet } from "../../drivers/net/packet";
import { allocate } from "../memory/arena";
import {
  ADDRESS6_BYTES,
  ALL_NODES,
  copy6,
  equal6,
  isGroup6,
  isSolicitedNode,
  isUnspecified6,
  writeSolicitedNode,
} from "./address6";
import { AddressState, ENTRIES } from "./addresses6";
import { equalMac } from "./address";
import { Dad } from "./dad";
import { DropReason } from "./drops";
import { Interface } from "./interface";
import * as ipv6 from "./ipv6";
import * as message from "./nd-message";
import { Neighbour } from "./neighbour";

/** RFC 4861 10: RETRANS_TIMER. */
const ANNOUNCE_US: u64 = 1_000_000;

export class Nd extends Neighbour {
  private readonly target: usize = allocate(ADDRESS6_BYTES, 8);
  private readonly group: usize = allocate(ADDRESS6_BYTES, 8);
  /** The target of the message at hand, out of the device's reach. */
  private readonly named: usize = allocate(ADDRESS6_BYTES, 8);

  constructor(
    net: Interface,
    private readonly dad: Dad,
  ) {
    super(net, ANNOUNCE_US);
  }

  // ---- what we ask and tell ---------------------------------------------------------------------

  /** Asks, until it is known, for the MAC of `address`, a neighbour. */
  resolve(address: usize): void {
    copy6(this.target, address);
    this.beginAsking();
  }

  /** One for each address, unasked and to everybody. RFC 4861 7.2.6 */
  protected sendAnnouncement(): bool {
    const net = this.net;
    const six = net.six;
    for (let i: u32 = 0; i < ENTRIES; i++) {
      if (!six.isUsable(i)) continue;
      const own = six.at(i);
      const sent = message.send(
        net,
        message.ADVERTISEMENT,
        message.OVERRIDE,
        message.NEIGHBOUR_BYTES,
        own,
        ALL_NODES,
        own,
        message.OPTION_TARGET_MAC,
      );
      if (!sent) return false;
    }
    return true;
  }

  protected sendQuestion(): bool {
    const net = this.net;
    const from = net.six.sourceFor(this.target);
    writeSolicitedNode(this.group, this.target);
    return (
      from >= 0 &&
      message.send(
        net,
        message.SOLICITATION,
        0,
        message.NEIGHBOUR_BYTES,
        net.six.at(<u32>from),
        this.group,
        this.target,
        message.OPTION_SOURCE_MAC,
      )
    );
  }

  protected warnUnanswered(): void {
    this.warn("nobody answers neighbour discovery for the next hop; still asking", this.target);
  }

  private warn(text: string, address: usize): void {
    events.begin("warning");
    events.text("message", text);
    events.num("nic", this.net.link.index);
    events.ip6("ip6", address);
    events.end();
  }

  // ---- what we hear -----------------------------------------------------------------------------

  /** Whether a message with a target holds together; the target is then in `named`. */
  private isWellFormed(packet: Packet): bool {
    const bytes = ipv6.payloadBytes;
    // One that goes on beyond a buffer is longer than any frame of a neighbour's.
    if (bytes < message.NEIGHBOUR_BYTES || ipv6.offset + bytes > packet.length) return false;
    const text = packet.data + ipv6.offset;
    if (load<u8>(text, 1) != 0) return false;
    copy6(this.named, text + 8);
    const options = bytes - message.NEIGHBOUR_BYTES;
    return !isGroup6(this.named) && message.parseOptions(text + message.NEIGHBOUR_BYTES, options);
  }

  private drop(): bool {
    return this.net.drops.count(DropReason.Nd);
  }

  private accept(): bool {
    this.net.drops.accepted++;
    return false;
  }

  /**
   * Turns a question for one of our addresses into its answer. True: to be sent. RFC 4861 7.2.3
   */
  solicited(packet: Packet): bool {
    if (!this.isWellFormed(packet)) return this.drop();
    const six = this.net.six;
    // RFC 4861 7.1.1: who looks for duplicates has no address, asks the group, and names no MAC.
    const isDad = isUnspecified6(ipv6.source);
    const isRightDad = isSolicitedNode(ipv6.destination, this.named) && !message.hasSourceMac;
    if (isDad && !isRightDad) return this.drop();
    const index = six.find(this.named);
    if (index < 0) return this.drop();
    if (six.isUsable(<u32>index)) {
      // Our own message, sent back by a switch, asks nothing.
      if (six.isOurs(ipv6.source)) return this.drop();
      message.answer(this.net, packet, six.at(<u32>index), isDad);
      this.accept();
      return true;
    }
    const isOwnEcho = equalMac(packet.data + 6, this.net.link.mac);
    if (!isDad || isOwnEcho || six.state(<u32>index) != AddressState.Tentative) return this.drop();
    this.dad.refuse(<u32>index);
    return this.accept();
  }

  /** Takes in whose an address is. RFC 4861 7.2.5 */
  advertised(packet: Packet): void {
    const flags: u32 = load<u8>(packet.data + ipv6.offset, 4);
    // RFC 4861 7.1.2: what goes to everybody was not asked for.
    const isOdd = ipv6.toGroup && (flags & message.SOLICITED) != 0;
    if (!this.isWellFormed(packet) || isOdd || isUnspecified6(ipv6.source)) {
      this.drop();
      return;
    }
    const index = this.net.six.find(this.named);
    if (index >= 0) this.contested(packet, <u32>index);
    else if (message.hasTargetMac && equal6(this.named, this.target)) this.learn();
    else this.drop();
  }

  private learn(): void {
    this.learnMac(message.targetMac);
    this.accept();
  }

  /** Somebody says that an address of ours is theirs. */
  private contested(packet: Packet, index: u32): void {
    const six = this.net.six;
    if (equalMac(packet.data + 6, this.net.link.mac)) {
      this.drop();
    } else if (six.state(index) == AddressState.Tentative) {
      this.dad.refuse(index);
      this.accept();
    } else {
      // Said once: a peer does not fill the console.
      if (!this.conflictSeen && six.isUsable(index)) {
        this.conflictSeen = true;
        this.warn("another host uses our IPv6 address", this.named);
      }
      this.drop();
    }
  }
}
