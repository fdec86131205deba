// A host on the other end of the network device's wire: it gives the guest an address by DHCP if
// asked, keeps the frames that the guest sends, and builds frames to it. Made by guest.ts.

import {
  ARP_REPLY,
  ARP_REQUEST,
  type Arp,
  BOOT_REPLY,
  BROADCAST_MAC,
  buildArp,
  buildDhcp,
  buildEthernet,
  DHCP_CLIENT_PORT,
  DHCP_MESSAGE,
  DHCP_OPTION,
  DHCP_SERVER_PORT,
  type Dhcp,
  ICMP_ECHO_REQUEST,
  icmpEchoFrame,
  ipv4Bytes,
  parseArp,
  parseDhcp,
  parseEthernet,
  parseUdpFrame,
  TYPE_ARP,
  udpFrame,
} from "qemu-test-harness";
import type { NetDevice } from "./net-device";

export const PEER = { mac: "52:54:00:00:00:01", ip: "192.0.2.1" } as const;
export const GUEST_IP = "192.0.2.2";
export const ECHO_PORT = 7;
export const PEER_PORT = 40_000;
/** Ethernet, IPv4 and UDP headers. */
export const UDP_FRAME_HEADERS = 42;

/** Where the destination port of a datagram without IPv4 options is. */
const DESTINATION_PORT_AT = 36;

function mayBeDhcp(frame: Buffer): boolean {
  if (frame.length < UDP_FRAME_HEADERS) return false;
  return frame.readUInt16BE(DESTINATION_PORT_AT) === DHCP_SERVER_PORT;
}

export class Peer {
  /** Frames from the guest, DHCP left out. */
  readonly frames: Buffer[] = [];
  /** DHCP message types that the guest sent, in order. */
  readonly dhcpSeen: number[] = [];

  constructor(private readonly device: NetDevice) {
    device.sender.onTransmit = (frame) => this.take(frame);
  }

  private get route() {
    return {
      sourceMac: PEER.mac,
      destinationMac: this.device.options.mac,
      source: PEER.ip,
      destination: GUEST_IP,
    };
  }

  private take(frame: Buffer): void {
    // Nearly all frames are none, and parsing one costs much more than this look.
    const packet = mayBeDhcp(frame) ? parseUdpFrame(frame) : undefined;
    if (packet?.udp.destinationPort === DHCP_SERVER_PORT)
      this.serveDhcp(parseDhcp(packet.udp.payload));
    else this.frames.push(frame);
  }

  private serveDhcp(request: Dhcp): void {
    const type = request.options.get(DHCP_OPTION.messageType)?.[0] ?? 0;
    this.dhcpSeen.push(type);
    const isDiscover = type === DHCP_MESSAGE.discover;
    const lease = Buffer.alloc(4);
    lease.writeUInt32BE(3600);
    const options = new Map<number, Uint8Array>([
      [DHCP_OPTION.messageType, Buffer.of(isDiscover ? DHCP_MESSAGE.offer : DHCP_MESSAGE.ack)],
      [DHCP_OPTION.serverId, ipv4Bytes(PEER.ip)],
      [DHCP_OPTION.subnetMask, ipv4Bytes("255.255.255.0")],
      [DHCP_OPTION.leaseTime, lease],
    ]);
    const reply = { ...request, operation: BOOT_REPLY, yourIp: GUEST_IP, serverIp: PEER.ip };
    const payload = buildDhcp({ ...reply, options });
    const route = { ...this.route, destinationMac: BROADCAST_MAC, destination: "255.255.255.255" };
    const ports = { sourcePort: DHCP_SERVER_PORT, destinationPort: DHCP_CLIENT_PORT };
    this.device.receive(udpFrame(route, { ...ports, payload }));
  }

  // ---- frames to the guest ---------------------------------------------------------------------

  arpRequest(): Buffer {
    const payload = buildArp({
      operation: ARP_REQUEST,
      senderMac: PEER.mac,
      senderIp: PEER.ip,
      targetMac: "00:00:00:00:00:00",
      targetIp: GUEST_IP,
    });
    const addresses = { destination: BROADCAST_MAC, source: PEER.mac };
    return buildEthernet({ ...addresses, type: TYPE_ARP, payload });
  }

  /** The answer to the guest's question for our address. */
  arpReply(): Buffer {
    const payload = buildArp({
      operation: ARP_REPLY,
      senderMac: PEER.mac,
      senderIp: PEER.ip,
      targetMac: this.device.options.mac,
      targetIp: GUEST_IP,
    });
    const addresses = { destination: this.device.options.mac, source: PEER.mac };
    return buildEthernet({ ...addresses, type: TYPE_ARP, payload });
  }

  /** Whether the guest has asked who has `ip`. */
  arpAsked(ip: string): boolean {
    return this.arps().some(({ operation, targetIp }) => {
      return operation === ARP_REQUEST && targetIp === ip;
    });
  }

  /** How often the guest has announced its address. RFC 5227 */
  announcements(): number {
    return this.arps().filter(({ senderIp, targetIp }) => senderIp === targetIp).length;
  }

  private arps(): Arp[] {
    const frames = this.frames.map((frame) => parseEthernet(frame));
    return frames.filter(({ type }) => type === TYPE_ARP).map(({ payload }) => parseArp(payload));
  }

  ping(sequence: number, payload: Uint8Array): Buffer {
    const fields = { type: ICMP_ECHO_REQUEST, code: 0, id: 7, sequence, payload };
    return icmpEchoFrame(this.route, fields);
  }

  /** A datagram that the guest sends back. Another source port is another flow. */
  echoRequest(payload: Uint8Array, destinationPort = ECHO_PORT, sourcePort = PEER_PORT): Buffer {
    return udpFrame(this.route, { sourcePort, destinationPort, payload });
  }
}
