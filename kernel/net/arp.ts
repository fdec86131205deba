/**
 * ARP for IPv4 over Ethernet, RFC 826: answers for our address, announces it (RFC 5227 2.3), and
 * asks for the one next hop that the source app sends to. Made and called by the stack.
 *
 *   0 hardware type | 2 protocol type | 4 hlen | 5 plen | 6 operation
 *   8 sender MAC | 14 sender IPv4 | 18 target MAC | 24 target IPv4 | 28
 */
import { Packet } from "../../drivers/net/packet";
import * as events from "../events";
import { copyMac, equalMac, isGroupMac, isZeroMac } from "./address";
import { loadBE16, storeBE16 } from "./bytes";
import { DropReason } from "./drops";
import { BROADCAST_MAC, ETHERNET_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4 } from "./ethernet";
import { Interface } from "./interface";
import { Neighbour } from "./neighbour";
import * as ethernet from "./ethernet";

const ARP_BYTES: u32 = 28;
const HARDWARE_ETHERNET: u32 = 1;
const REQUEST: u32 = 1;
const REPLY: u32 = 2;

/** RFC 5227 1.1: ANNOUNCE_INTERVAL. */
const ANNOUNCE_US: u64 = 2_000_000;

export class Arp extends Neighbour {
  private target: u32 = 0;

  /** `isMirror`: CPU 0 asks, and this one is told. */
  constructor(
    net: Interface,
    private readonly isMirror: bool,
  ) {
    super(net, ANNOUNCE_US);
  }

  /** Asks, until it is known, for the MAC of `address`, a neighbour. */
  resolve(address: u32): void {
    if (this.isMirror) return;
    this.target = address;
    this.beginAsking();
  }

  /** CPU 0 has learned the next hop's MAC, and says so by mail. */
  mirror(macLow: u32, macHigh: u32): void {
    store<u32>(this.mac, macLow);
    store<u16>(this.mac, <u16>macHigh, 4);
    this.known = true;
  }

  protected sendAnnouncement(): bool {
    return this.sendRequest(this.net.ip);
  }

  protected sendQuestion(): bool {
    return this.sendRequest(this.target);
  }

  protected warnUnanswered(): void {
    events.begin("warning");
    events.text("message", "nobody answers ARP for the next hop; still asking");
    events.num("nic", this.net.link.index);
    events.ip("ip", this.target);
    events.end();
  }

  private sendRequest(target: u32): bool {
    const net = this.net;
    const packet = net.newPacket(ETHERNET_BYTES + ARP_BYTES);
    if (packet == null) return false;
    const frame = packet.data;
    ethernet.write(frame, BROADCAST_MAC, net.link.mac, ETHERTYPE_ARP);
    const arp = frame + ETHERNET_BYTES;
    storeBE16(arp, HARDWARE_ETHERNET);
    storeBE16(arp + 2, ETHERTYPE_IPV4);
    store<u8>(arp, 6, 4);
    store<u8>(arp, 4, 5);
    storeBE16(arp + 6, REQUEST);
    copyMac(arp + 8, net.link.mac);
    store<u32>(arp, net.ip, 14);
    memory.fill(arp + 18, 0, 6);
    store<u32>(arp, target, 24);
    return net.send(packet);
  }

  /** Takes in what a neighbour says; turns a question for us into its answer. True: to be sent. */
  receive(packet: Packet): bool {
    const net = this.net;
    if (packet.total < ETHERNET_BYTES + ARP_BYTES) return net.drops.count(DropReason.Arp);
    if (packet.length < ETHERNET_BYTES + ARP_BYTES) return net.drops.count(DropReason.Truncated);
    const arp = packet.data + ETHERNET_BYTES;
    if (!isWellFormed(arp)) return net.drops.count(DropReason.Arp);

    const sender = load<u32>(arp, 14);
    if (sender == net.ip && sender != 0) return this.reportConflict(arp);
    const learned = this.learn(sender, arp + 8);
    const forUs = load<u32>(arp, 24) == net.ip && net.ip != 0;
    if (!forUs || loadBE16(arp + 6) != REQUEST) {
      if (!learned) return net.drops.count(DropReason.Arp);
      net.drops.accepted++;
      return false;
    }
    storeBE16(arp + 6, REPLY);
    copyMac(arp + 18, arp + 8);
    store<u32>(arp, sender, 24);
    copyMac(arp + 8, net.link.mac);
    store<u32>(arp, net.ip, 14);
    copyMac(packet.data, arp + 18);
    copyMac(packet.data + 6, net.link.mac);
    net.drops.accepted++;
    return true;
  }

  private learn(sender: u32, mac: usize): bool {
    if (this.target == 0 || sender != this.target) return false;
    this.learnMac(mac);
    return true;
  }

  /** Somebody else has our address. Said once: a peer does not fill the console. */
  private reportConflict(arp: usize): bool {
    // Our own announcement, sent back by a switch, is no conflict.
    if (!this.conflictSeen && !equalMac(arp + 8, this.net.link.mac)) {
      this.conflictSeen = true;
      events.begin("warning");
      events.text("message", "another host uses our IPv4 address");
      events.num("nic", this.net.link.index);
      events.ip("ip", this.net.ip);
      events.mac("mac", arp + 8);
      events.end();
    }
    return this.net.drops.count(DropReason.Arp);
  }
}

function isWellFormed(arp: usize): bool {
  const operation = loadBE16(arp + 6);
  return (
    loadBE16(arp) == HARDWARE_ETHERNET &&
    loadBE16(arp + 2) == ETHERTYPE_IPV4 &&
    load<u8>(arp, 4) == 6 &&
    load<u8>(arp, 5) == 4 &&
    (operation == REQUEST || operation == REPLY) &&
    !isGroupMac(arp + 8) &&
    !isZeroMac(arp + 8)
  );
}

/** Whether the packet is a neighbour's answer; it need not be well-formed. */
export function isReply(packet: Packet): bool {
  if (packet.length < ETHERNET_BYTES + ARP_BYTES) return false;
  return loadBE16(packet.data + ETHERNET_BYTES + 6) == REPLY;
}
