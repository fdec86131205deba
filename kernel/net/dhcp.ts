/**
 * A DHCP client, RFC 2131 section 4.4. Made by the stack for a NIC with ip=dhcp; the stack calls
 * receive() for datagrams to port 68 and poll() for the timers.
 *
 *   Selecting --offer--> Requesting --ack--> Bound --T1--> Renewing --T2--> Rebinding
 *      ^  ^                  |                 ^ ack           |               |
 *      |  +---nak, 4 tries---+                 +---------------+---------------+
 *      +------------------------------------------nak, expiry------------------+
 */
import * as machine from "../machine";
import * as events from "../events";
import { allocate } from "../memory/arena";
import { NEVER, deadlineIn, nowUs, tscToUs } from "../time";
import { Packet } from "../../drivers/net/packet";
import { LIMITED_BROADCAST, copyMac, isHost, isUnicast } from "./address";
import { Arp } from "./arp";
import { DropReason } from "./drops";
import { BROADCAST_MAC, ETHERNET_BYTES, ETHERTYPE_IPV4 } from "./ethernet";
import { Interface, RESEND_US } from "./interface";
import { MESSAGE_BYTES, MessageType } from "./dhcp-message";
import * as ethernet from "./ethernet";
import * as ipv4 from "./ipv4";
import * as message from "./dhcp-message";
import * as udp from "./udp";

enum State {
  Selecting,
  Requesting,
  Bound,
  Renewing,
  Rebinding,
}

const SECOND_US: u64 = 1_000_000;
/** RFC 2131 4.1: retries back off to 64 s; ours begin at 1 s, for a guest that boots in less. */
const BACK_OFF_MAX: u32 = 6;
/** Requests without an answer before the offer is given up. */
const REQUESTS_MAX: u32 = 4;
/** RFC 2131 4.4.5: no renewal is repeated sooner. */
const RENEW_MIN_US: u64 = 60 * SECOND_US;

const HEADERS_BYTES: u32 = ETHERNET_BYTES + ipv4.IPV4_BYTES + udp.UDP_BYTES;

export class Dhcp {
  /** When poll() has something to do. */
  deadline: u64 = 0;
  /** Whether there is a lease. */
  bound: bool = false;

  private state: State = State.Selecting;
  private xid: u32 = 0;
  /** Messages sent in this state. */
  private attempts: u32 = 0;
  private startedUs: u64 = 0;
  private offeredIp: u32 = 0;
  private server: u32 = 0;
  /** Where the last ACK came from: the server, or the router on the way to it. */
  private readonly serverMac: usize = allocate(8);
  private t1At: u64 = NEVER;
  private t2At: u64 = NEVER;
  private expiresAt: u64 = NEVER;

  /** `fixedGateway`, unless 0, goes before what the server says. */
  constructor(
    readonly net: Interface,
    readonly arp: Arp,
    readonly fixedGateway: u32,
  ) {
    this.restart(0);
  }

  /** Looks for a server from scratch, from time stamp `at` on. */
  private restart(at: u64): void {
    this.state = State.Selecting;
    this.attempts = 0;
    this.deadline = at;
    this.net.configuring = true;
  }

  /** A new transaction: answers to earlier ones are not for it. */
  private enter(state: State): void {
    this.state = state;
    this.attempts = 0;
    this.deadline = 0;
    if (state != State.Requesting) this.newTransaction();
  }

  private newTransaction(): void {
    this.xid = <u32>machine.entropy();
    this.startedUs = nowUs();
  }

  // ---- timers -----------------------------------------------------------------------------------

  poll(now: u64): void {
    if (now < this.deadline) return;
    if (this.bound && now >= this.expiresAt) this.expire();
    else if (this.state == State.Bound) this.enter(State.Renewing);
    else if (this.state == State.Renewing && now >= this.t2At) this.enter(State.Rebinding);
    if (this.state == State.Selecting) this.discover();
    else if (this.state == State.Requesting) this.request();
    else this.renew(now);
  }

  private discover(): void {
    if (this.attempts == 0) this.newTransaction();
    this.backOff(this.send(MessageType.Discover, 0, 0));
  }

  private request(): void {
    if (this.attempts == REQUESTS_MAX) {
      this.restart(0);
      this.discover();
      return;
    }
    this.backOff(this.send(MessageType.Request, this.offeredIp, this.server));
  }

  /** Renewing asks the server, rebinding any server; neither names one. RFC 2131 4.3.2 */
  private renew(now: u64): void {
    const sent = this.send(MessageType.Request, 0, 0);
    const until = this.state == State.Renewing ? this.t2At : this.expiresAt;
    if (!sent) {
      this.deadline = min(until, deadlineIn(RESEND_US));
      return;
    }
    this.attempts++;
    const half = tscToUs(until - now) >> 1;
    this.deadline = min(until, deadlineIn(max(half, RENEW_MIN_US)));
  }

  /** Sets the next retry: 1 s, 2 s, ... 64 s, each an eighth shorter or longer at random. */
  private backOff(sent: bool): void {
    if (!sent) {
      this.deadline = deadlineIn(RESEND_US);
      return;
    }
    const delay = SECOND_US << min(this.attempts, BACK_OFF_MAX);
    this.attempts++;
    this.deadline = deadlineIn(delay - (delay >> 3) + (machine.entropy() % (delay >> 2)));
  }

  private expire(): void {
    this.report("warning", "the DHCP lease expired; looking for a server again", this.net.ip);
    this.dropAddress();
    this.restart(0);
  }

  private dropAddress(): void {
    this.bound = false;
    this.arp.silence();
    this.net.clearAddress();
  }

  // ---- messages ---------------------------------------------------------------------------------

  private send(type: MessageType, requested: u32, server: u32): bool {
    const net = this.net;
    const packet = net.newPacket(HEADERS_BYTES + MESSAGE_BYTES);
    if (packet == null) return false;
    const unicast = this.state == State.Renewing;
    const to = unicast ? this.server : LIMITED_BROADCAST;
    const mac = net.link.mac;
    const ip = packet.data + ETHERNET_BYTES;
    const header = ip + ipv4.IPV4_BYTES;
    const seconds = min((nowUs() - this.startedUs) / SECOND_US, 0xffff);
    message.write(
      header + udp.UDP_BYTES,
      type,
      this.xid,
      <u32>seconds,
      mac,
      net.ip,
      requested,
      server,
    );
    udp.write(header, udp.PORT_DHCP_CLIENT, udp.PORT_DHCP_SERVER, MESSAGE_BYTES, net.ip, to);
    const total = ipv4.IPV4_BYTES + udp.UDP_BYTES + MESSAGE_BYTES;
    ipv4.write(ip, total, ipv4.PROTOCOL_UDP, net.ip, to);
    ethernet.write(packet.data, unicast ? this.serverMac : BROADCAST_MAC, mac, ETHERTYPE_IPV4);
    return net.send(packet);
  }

  /** Takes in a datagram of `length` bytes of data at `offset`, in the first segment. */
  receive(packet: Packet, offset: u32, length: u32): void {
    const net = this.net;
    const drops = net.drops;
    if (packet.length < offset + length) {
      drops.count(DropReason.Truncated);
      return;
    }
    const wellFormed =
      udp.sourcePort == udp.PORT_DHCP_SERVER &&
      message.parse(packet.data + offset, length, this.xid, net.link.mac);
    const taken = wellFormed && this.handle(packet);
    if (taken) drops.accepted++;
    else drops.count(DropReason.Dhcp);
  }

  /** False for a message that does not fit the state. RFC 2131 figure 5 */
  private handle(packet: Packet): bool {
    // Every answer names its server, which is one host. RFC 2131 table 3
    if (!isUnicast(message.server)) return false;
    if (this.state == State.Selecting) {
      return this.attempts > 0 && message.type == MessageType.Offer && this.takeOffer();
    }
    if (this.state == State.Bound) return false;
    if (this.state != State.Rebinding && message.server != this.server) return false;
    if (message.type == MessageType.Ack) return this.takeAck(packet);
    if (message.type != MessageType.Nak) return false;
    this.takeNak();
    return true;
  }

  private takeOffer(): bool {
    if (!isHost(message.yourIp, prefixLength())) return false;
    this.offeredIp = message.yourIp;
    this.server = message.server;
    this.report("debug", "dhcp: offer", this.offeredIp);
    this.enter(State.Requesting);
    return true;
  }

  private takeAck(packet: Packet): bool {
    const prefix = prefixLength();
    const ip = message.yourIp;
    const expected = this.state == State.Requesting ? this.offeredIp : this.net.ip;
    if (ip != expected || !isHost(ip, prefix) || message.lease == 0) return false;
    this.server = message.server;
    copyMac(this.serverMac, packet.data + 6);
    this.setTimers();
    this.state = State.Bound;
    this.deadline = min(this.t1At, this.expiresAt);
    this.net.configuring = false;
    const router = isUnicast(message.router) && message.router != ip ? message.router : 0;
    this.net.setAddress(ip, prefix, this.fixedGateway != 0 ? this.fixedGateway : router);
    this.report("debug", "dhcp: ack", ip);
    if (!this.bound) this.arp.announce();
    this.bound = true;
    return true;
  }

  /** RFC 2131 4.4.5: T1 is half the lease, T2 seven eighths, unless the server says otherwise. */
  private setTimers(): void {
    const lease = <u64>message.lease * SECOND_US;
    let t1 = <u64>message.t1 * SECOND_US;
    let t2 = <u64>message.t2 * SECOND_US;
    if (t2 == 0 || t2 >= lease) t2 = lease - (lease >> 3);
    if (t1 == 0 || t1 >= t2) t1 = min(lease >> 1, t2);
    this.t1At = deadlineIn(t1);
    this.t2At = deadlineIn(t2);
    this.expiresAt = deadlineIn(lease);
  }

  /** The server takes its word back. A second's pause keeps two such from spinning. */
  private takeNak(): void {
    this.report(
      "warning",
      "the DHCP server refused the address",
      this.bound ? this.net.ip : this.offeredIp,
    );
    this.dropAddress();
    this.restart(deadlineIn(SECOND_US));
  }

  private report(event: string, text: string, ip: u32): void {
    events.begin(event);
    events.text("message", text);
    events.num("nic", this.net.link.index);
    events.ip("ip", ip);
    events.ip("server", this.server);
    events.end();
  }
}

/** The prefix in the message; without a mask, that of the address's class. RFC 950 */
function prefixLength(): u32 {
  if (message.prefix >= 0) return <u32>message.prefix;
  const first = message.yourIp & 255;
  return first < 128 ? 8 : first < 192 ? 16 : 24;
}
