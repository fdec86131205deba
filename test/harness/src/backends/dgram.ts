// The `dgram` backend: one UDP datagram on the loopback interface for each frame. No privileges;
// frames are dropped when a socket's buffer is full, which makes it the backend for tests of loss.

import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import type { Backend } from "./backend";
import { FramePort } from "./frame-port";
import { freeUdpPort } from "./user";

const HOST = "127.0.0.1";

export class DgramBackend extends FramePort implements Backend {
  readonly name = "dgram";
  private socket: Socket | undefined;
  private ownPort = 0;
  private qemuPort = 0;

  async available(): Promise<string | undefined> {
    return undefined;
  }

  async start(): Promise<void> {
    const socket = createSocket("udp4");
    this.socket = socket;
    socket.on("message", (frame) => this.take(frame));
    const bound = once(socket, "listening");
    socket.bind(0, HOST);
    await bound;
    this.ownPort = socket.address().port;
    this.qemuPort = await freeUdpPort(0);
  }

  netdev(id: string): readonly string[] {
    const end = (which: string, port: number) =>
      `${which}.type=inet,${which}.host=${HOST},${which}.port=${port}`;
    const ends = `${end("local", this.qemuPort)},${end("remote", this.ownPort)}`;
    return ["-netdev", `dgram,id=${id},${ends}`];
  }

  /** Gives a frame to QEMU, which may drop it. */
  async send(frame: Uint8Array): Promise<void> {
    this.noteSent(frame);
    await new Promise<void>((resolve, reject) => {
      const done = (error: Error | null) => (error === null ? resolve() : reject(error));
      this.socket?.send(frame, this.qemuPort, HOST, done);
    });
  }

  async stop(): Promise<void> {
    this.close();
    this.socket?.close();
    this.socket = undefined;
  }
}

/** A new datagram backend, for one VM. */
export function dgram(): DgramBackend {
  return new DgramBackend();
}
