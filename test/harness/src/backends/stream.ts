// The `stream` backend: frames over a Unix stream socket, each after its length in four big-endian
// bytes. No privileges needed; nothing is lost, because QEMU waits when the socket is full. We
// listen, QEMU connects when it starts.

import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { withDeadline } from "../deadline";
import { HarnessError } from "../errors";
import { scratchDirectory } from "../run-scope";
import type { Backend } from "./backend";
import { FramePort } from "./frame-port";

const LENGTH_BYTES = 4;
/** QEMU's own limit of a frame on a stream netdev. */
const LONGEST_FRAME = 4096 + 65_536;
const SEND_TIMEOUT_MS = 10_000;

export class StreamBackend extends FramePort implements Backend {
  readonly name = "stream";
  private server: Server | undefined;
  private socket: Socket | undefined;
  private path = "";
  private rest: Buffer = Buffer.alloc(0);
  private connected: (socket: Socket) => void = () => undefined;
  private readonly connection = new Promise<Socket>((resolve) => {
    this.connected = resolve;
  });

  async available(): Promise<string | undefined> {
    return undefined;
  }

  async start(): Promise<void> {
    this.path = join(scratchDirectory(), "net");
    const server = createServer((socket) => this.attach(socket));
    this.server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.path, resolve);
    });
  }

  private attach(socket: Socket): void {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => this.cut(chunk));
    // QEMU's end is reported by the VM.
    socket.on("error", () => undefined);
    this.connected(socket);
  }

  private cut(chunk: Buffer): void {
    const data = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk]);
    let at = 0;
    while (at + LENGTH_BYTES <= data.length) {
      const length = data.readUInt32BE(at);
      if (length > LONGEST_FRAME) throw new HarnessError(`stream: a frame of ${length} bytes`);
      const start = at + LENGTH_BYTES;
      if (start + length > data.length) break;
      this.take(data.subarray(start, start + length));
      at = start + length;
    }
    this.rest = data.subarray(at);
  }

  netdev(id: string): readonly string[] {
    const address = `addr.type=unix,addr.path=${this.path}`;
    return ["-netdev", `stream,id=${id},server=off,${address}`];
  }

  /** Gives a frame to the guest; resolves when the socket can take another. */
  send(frame: Uint8Array): Promise<void> {
    return this.sendBurst([frame]);
  }

  /** Gives frames to the guest in one write, so that they arrive as close together as can be. */
  async sendBurst(frames: readonly Uint8Array[]): Promise<void> {
    const what = () => "QEMU does not take frames from the stream socket";
    const socket = this.socket ?? (await withDeadline(this.connection, SEND_TIMEOUT_MS, what));
    const parts: Uint8Array[] = [];
    for (const frame of frames) {
      const length = Buffer.alloc(LENGTH_BYTES);
      length.writeUInt32BE(frame.length);
      this.noteSent(frame);
      parts.push(length, frame);
    }
    if (socket.write(Buffer.concat(parts))) return;
    await withDeadline(drained(socket), SEND_TIMEOUT_MS, what);
  }

  /** Stops reading, so that QEMU and then the guest's ring fill up; `resume` reads on. */
  async pause(): Promise<void> {
    const what = () => "QEMU does not connect to the stream socket";
    (this.socket ?? (await withDeadline(this.connection, SEND_TIMEOUT_MS, what))).pause();
  }

  resume(): void {
    this.socket?.resume();
  }

  async stop(): Promise<void> {
    this.close();
    this.socket?.destroy();
    this.server?.close();
  }
}

/** Resolves when the socket can take more, or has been closed and never will. */
function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off("drain", done);
      socket.off("close", done);
      resolve();
    };
    socket.on("drain", done);
    socket.on("close", done);
    if (socket.destroyed) done();
  });
}

/** A new stream backend, for one VM. */
export function stream(): StreamBackend {
  return new StreamBackend();
}
