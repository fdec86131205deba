// A tiny host on the other end of a frame port: answers ARP for its own address, asks for the
// guest's, pings, sends UDP, and can serve DHCP. Used by tests with the stream and dgram backends.

import type { FramePort } from "./backends/frame-port";
import { BROADCAST_MAC } from "./codec/address";
import { ARP_REPLY, ARP_REQUEST, buildArp, parseArp } from "./codec/arp";
import {
  buildEthernet,
  type Ethernet,
  padded,
  parseEthernet,
  TYPE_ARP,
  TYPE_IPV4,
} from "./codec/ethernet";
import { ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, parseIcmpEcho } from "./codec/icmp";
import { type Ipv4, PROTOCOL_ICMP, PROTOCOL_UDP, parseIpv4 } from "./codec/ipv4";
import { icmpEchoFrame, type Route, udpFrame } from "./codec/packets";
import { parseUdp, type Udp } from "./codec/udp";
import { Inbox } from "./deadline";
import { HarnessError, messageOf } from "./errors";

export interface PeerOptions {
  readonly mac?: string;
  readonly ip?: string;
}

export interface ReceivedUdp {
  readonly ethernet: Ethernet;
  readonly ipv4: Ipv4;
  readonly udp: Udp;
}

export interface ReceivedEcho {
  readonly ethernet: Ethernet;
  readonly ipv4: Ipv4;
  readonly id: number;
  readonly sequence: number;
  readonly payload: Buffer;
}

interface ArpAnswer {
  readonly ip: string;
  readonly mac: string;
}

const DEFAULT_TIMEOUT_MS = 5000;
const UNSPECIFIED_MAC = "00:00:00:00:00:00";

export class Peer {
  readonly mac: string;
  readonly ip: string;
  /** Frames whose checksums or lengths are wrong: the guest must never send one. */
  readonly malformed: string[] = [];
  private readonly udpInbox = new Inbox<ReceivedUdp>("a UDP datagram from the guest");
  private readonly echoInbox = new Inbox<ReceivedEcho>("an ICMP echo reply from the guest");
  private readonly arpInbox = new Inbox<ArpAnswer>("an ARP reply from the guest");
  private readonly neighbours = new Map<string, string>();
  private readonly udpHandlers = new Map<number, (datagram: ReceivedUdp) => void>();
  private nextPort = 40_000;
  private nextSequence = 1;

  constructor(
    private readonly port: FramePort,
    options: PeerOptions = {},
  ) {
    this.mac = options.mac ?? "52:54:00:00:00:01";
    this.ip = options.ip ?? "192.0.2.1";
    port.onFrame((frame) => this.take(frame));
  }

  private take(frame: Buffer): void {
    try {
      const ethernet = parseEthernet(frame);
      const ours = ethernet.destination === this.mac || ethernet.destination === BROADCAST_MAC;
      if (ours && ethernet.type === TYPE_ARP) this.takeArp(ethernet);
      else if (ours && ethernet.type === TYPE_IPV4) this.takeIpv4(ethernet);
    } catch (error) {
      this.malformed.push(`${messageOf(error)}: ${frame.toString("hex", 0, 80)}`);
    }
  }

  private takeArp(ethernet: Ethernet): void {
    const arp = parseArp(ethernet.payload);
    if (arp.operation === ARP_REPLY) {
      this.neighbours.set(arp.senderIp, arp.senderMac);
      this.arpInbox.push({ ip: arp.senderIp, mac: arp.senderMac });
    } else if (arp.operation === ARP_REQUEST && arp.targetIp === this.ip) {
      this.answerArp(arp.senderMac, arp.senderIp);
    }
  }

  private answerArp(mac: string, ip: string): void {
    const payload = buildArp({
      operation: ARP_REPLY,
      senderMac: this.mac,
      senderIp: this.ip,
      targetMac: mac,
      targetIp: ip,
    });
    this.post(buildEthernet({ destination: mac, source: this.mac, type: TYPE_ARP, payload }));
  }

  /** Sends from inside a receive handler, where nobody can wait; the VM reports a dead QEMU. */
  private post(frame: Buffer): void {
    this.port.send(padded(frame)).catch(() => undefined);
  }

  private takeIpv4(ethernet: Ethernet): void {
    const ipv4 = parseIpv4(ethernet.payload);
    if (ipv4.protocol === PROTOCOL_ICMP) {
      const { type, id, sequence, payload } = parseIcmpEcho(ipv4.payload);
      if (type === ICMP_ECHO_REPLY) this.echoInbox.push({ ethernet, ipv4, id, sequence, payload });
    } else if (ipv4.protocol === PROTOCOL_UDP) {
      const datagram = { ethernet, ipv4, udp: parseUdp(ipv4.payload, ipv4) };
      const handler = this.udpHandlers.get(datagram.udp.destinationPort);
      if (handler === undefined) this.udpInbox.push(datagram);
      else handler(datagram);
    }
  }

  /** Gives every datagram to one of our UDP ports to a handler instead of to `receiveUdp`. */
  onUdp(port: number, handler: (datagram: ReceivedUdp) => void): void {
    this.udpHandlers.set(port, handler);
  }

  /** The MAC of `ip`, asked by ARP every time. Rejects after `timeoutMs`. */
  async arp(ip: string, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<string> {
    const payload = buildArp({
      operation: ARP_REQUEST,
      senderMac: this.mac,
      senderIp: this.ip,
      targetMac: UNSPECIFIED_MAC,
      targetIp: ip,
    });
    const answer = this.arpInbox.next(timeoutMs, (reply) => reply.ip === ip);
    const request = { destination: BROADCAST_MAC, source: this.mac, type: TYPE_ARP, payload };
    await this.port.send(padded(buildEthernet(request)));
    return (await answer).mac;
  }

  /** Addresses for a frame to `ip`, after ARP if its MAC is not known yet. */
  async route(ip: string): Promise<Route> {
    const destinationMac = this.neighbours.get(ip) ?? (await this.arp(ip));
    return { sourceMac: this.mac, destinationMac, source: this.ip, destination: ip };
  }

  /** Pings once and checks that the payload comes back. Rejects after `timeoutMs`. */
  async ping(
    ip: string,
    payload: Uint8Array = Buffer.from("ping"),
    timeoutMs = DEFAULT_TIMEOUT_MS,
  ) {
    const route = await this.route(ip);
    const [id, sequence] = [0x7174, this.nextSequence++ & 0xffff];
    const mine = (reply: ReceivedEcho) => reply.id === id && reply.sequence === sequence;
    const answer = this.echoInbox.next(timeoutMs, mine);
    const request = { type: ICMP_ECHO_REQUEST, code: 0, id, sequence, payload };
    await this.sendAwaited(padded(icmpEchoFrame(route, request)), answer);
    const reply = await answer;
    if (!reply.payload.equals(payload)) throw new HarnessError("ping: the payload has changed");
    return reply;
  }

  /**
   * Sends a datagram and returns the answer to it, whatever its payload. Rejects after `timeoutMs`.
   */
  async udp(
    ip: string,
    port: number,
    payload: Uint8Array,
    timeoutMs = DEFAULT_TIMEOUT_MS,
  ): Promise<ReceivedUdp> {
    const route = await this.route(ip);
    const sourcePort = this.nextPort++;
    if (this.nextPort > 60_000) this.nextPort = 40_000;
    const answer = this.receiveUdp(sourcePort, timeoutMs);
    const fields = { sourcePort, destinationPort: port, payload };
    await this.sendAwaited(padded(udpFrame(route, fields)), answer);
    return answer;
  }

  /** Sends; a failure to send takes precedence over the answer that will then never come. */
  private async sendAwaited(frame: Buffer, answer: Promise<unknown>): Promise<void> {
    answer.catch(() => undefined);
    await this.port.send(frame);
  }

  /** The next datagram to our UDP port `port`. */
  receiveUdp(port: number, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<ReceivedUdp> {
    return this.udpInbox.next(timeoutMs, ({ udp }) => udp.destinationPort === port);
  }

  /** Sends to the guest's echo port and checks that the payload comes back unchanged. */
  async udpEcho(ip: string, payload: Uint8Array, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<void> {
    const { udp } = await this.udp(ip, 7, payload, timeoutMs);
    if (!udp.payload.equals(payload)) throw new HarnessError("UDP echo: the payload has changed");
  }

  /** Sends a datagram without awaiting anything. */
  async sendUdp(ip: string, port: number, payload: Uint8Array): Promise<void> {
    const fields = { sourcePort: this.nextPort, destinationPort: port, payload };
    await this.port.send(padded(udpFrame(await this.route(ip), fields)));
  }

  /** Sends a datagram to everybody on the link from one of our ports. */
  broadcastUdp(sourcePort: number, destinationPort: number, payload: Uint8Array): void {
    const route = {
      sourceMac: this.mac,
      destinationMac: BROADCAST_MAC,
      source: this.ip,
      destination: "255.255.255.255",
    };
    this.post(udpFrame(route, { sourcePort, destinationPort, payload }));
  }
}
