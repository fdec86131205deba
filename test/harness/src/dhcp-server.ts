// A DHCP server with one address to give, on a peer. For tests of the guest's DHCP client without
// QEMU's user network.

import {
  BOOT_REPLY,
  buildDhcp,
  DHCP_CLIENT_PORT,
  DHCP_MESSAGE,
  DHCP_OPTION,
  DHCP_SERVER_PORT,
  type Dhcp,
  ipv4Bytes,
  parseDhcp,
} from "./codec/dhcp";
import type { Peer } from "./peer";

export interface DhcpServerOptions {
  /** The address the guest gets. */
  readonly address: string;
  readonly subnetMask?: string;
  readonly leaseSeconds?: number;
  /** Messages of each kind to leave unanswered first, to see the client repeat itself. */
  readonly ignoreFirst?: number;
}

export class DhcpServer {
  /** The message types (option 53) seen, in order. */
  readonly seen: number[] = [];

  constructor(
    private readonly peer: Peer,
    private readonly options: DhcpServerOptions,
  ) {
    peer.onUdp(DHCP_SERVER_PORT, ({ udp }) => this.take(parseDhcp(udp.payload)));
  }

  private take(request: Dhcp): void {
    const type = request.options.get(DHCP_OPTION.messageType)?.[0] ?? 0;
    this.seen.push(type);
    const count = this.seen.filter((seen) => seen === type).length;
    if (count <= (this.options.ignoreFirst ?? 0)) return;
    if (type === DHCP_MESSAGE.discover) this.answer(request, DHCP_MESSAGE.offer);
    if (type === DHCP_MESSAGE.request) this.answer(request, DHCP_MESSAGE.ack);
  }

  private answer(request: Dhcp, type: number): void {
    const lease = Buffer.alloc(4);
    lease.writeUInt32BE(this.options.leaseSeconds ?? 3600);
    const options = new Map<number, Uint8Array>([
      [DHCP_OPTION.messageType, Buffer.from([type])],
      [DHCP_OPTION.serverId, ipv4Bytes(this.peer.ip)],
      [DHCP_OPTION.subnetMask, ipv4Bytes(this.options.subnetMask ?? "255.255.255.0")],
      [DHCP_OPTION.router, ipv4Bytes(this.peer.ip)],
      [DHCP_OPTION.leaseTime, lease],
    ]);
    const reply = buildDhcp({
      ...request,
      operation: BOOT_REPLY,
      yourIp: this.options.address,
      serverIp: this.peer.ip,
      options,
    });
    this.peer.broadcastUdp(DHCP_SERVER_PORT, DHCP_CLIENT_PORT, reply);
  }
}
