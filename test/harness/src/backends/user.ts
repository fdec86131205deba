// The `user` backend: QEMU's own user-mode network with DHCP, and host UDP ports forwarded to the
// guest. No privileges.

import { createSocket } from "node:dgram";
import { once } from "node:events";
import { withDeadline } from "../deadline";
import { HarnessError, messageOf } from "../errors";
import type { Artifact, Backend } from "./backend";

export const UDP_ECHO_PORT = 7;
export const UDP_DISCARD_PORT = 9;
const HIGHEST_PORT = 65_535;

export interface UserOptions {
  /**
   * The host port wanted for the guest's port 7; the next free one is taken. Any free one unless
   * given.
   */
  readonly echoPort?: number;
  readonly discardPort?: number;
  /** Whether QEMU's network speaks IPv6 too, with a router at fec0::2; on unless given. */
  readonly ipv6?: boolean;
}

export class UserBackend implements Backend {
  readonly name = "user";
  /** Host ports that lead to the guest's UDP echo and discard, known after `start`. */
  echoPort = 0;
  discardPort = 0;

  constructor(private readonly options: UserOptions) {}

  async available(): Promise<string | undefined> {
    return undefined;
  }

  async start(): Promise<void> {
    this.echoPort = await freeUdpPort(this.options.echoPort ?? 0);
    const wanted = this.options.discardPort ?? 0;
    this.discardPort = await freeUdpPort(
      wanted === this.echoPort && wanted > 0 ? wanted + 1 : wanted,
    );
  }

  netdev(id: string): readonly string[] {
    const forward = (host: number, guest: number) => `hostfwd=udp:127.0.0.1:${host}-:${guest}`;
    const echo = forward(this.echoPort, UDP_ECHO_PORT);
    const discard = forward(this.discardPort, UDP_DISCARD_PORT);
    const ipv6 = this.options.ipv6 === undefined ? "" : `,ipv6=${this.options.ipv6 ? "on" : "off"}`;
    return ["-netdev", `user,id=${id}${ipv6},${echo},${discard}`];
  }

  /**
   * Sends a datagram to the guest's echo port and returns what comes back. Rejects after
   * `timeoutMs`.
   */
  async echo(payload: Uint8Array, timeoutMs = 5000): Promise<Buffer> {
    const socket = createSocket("udp4");
    try {
      const answer = once(socket, "message");
      socket.send(payload, this.echoPort, "127.0.0.1");
      const what = () => `UDP echo from host port ${this.echoPort}`;
      const [message] = (await withDeadline(answer, timeoutMs, what)) as [Buffer];
      return message;
    } finally {
      socket.close();
    }
  }

  async stop(): Promise<void> {
    // QEMU held the ports, and has ended.
  }

  artifacts(): readonly Artifact[] {
    return [];
  }
}

/** `wanted` if it is free, else the next free UDP port above it; 0 means any. */
export async function freeUdpPort(wanted: number): Promise<number> {
  for (let port = wanted; port <= HIGHEST_PORT; port++) {
    const free = await bindOnce(port);
    if (free !== undefined) return free;
  }
  throw new HarnessError(`no free UDP port from ${wanted} on`);
}

async function bindOnce(port: number): Promise<number | undefined> {
  const socket = createSocket("udp4");
  try {
    const bound = once(socket, "listening");
    socket.bind(port, "127.0.0.1");
    await bound;
    return socket.address().port;
  } catch (error) {
    if (/EADDRINUSE|EACCES/.test(messageOf(error))) return undefined;
    throw error;
  } finally {
    socket.close();
  }
}

/** A new user-network backend, for one VM. */
export function user(options: UserOptions = {}): UserBackend {
  return new UserBackend(options);
}
