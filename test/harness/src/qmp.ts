// A client for QEMU's machine protocol: commands with deadlines, and events. The VM owns one; tests
// use `vm.qmp`.
//
// We listen and QEMU connects, so that no connection attempt has to be repeated until QEMU is
// ready.

import { createServer, type Server, type Socket } from "node:net";
import { Inbox, withDeadline } from "./deadline";
import { HarnessError } from "./errors";
import { lineSplitter } from "./lines";

export interface QmpEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

interface Pending {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

interface Message {
  readonly QMP?: unknown;
  readonly event?: string;
  readonly data?: Record<string, unknown>;
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

export class Qmp {
  /** Both directions, one message a line, for the artefacts. */
  readonly log: string[] = [];
  /** Resolves when QEMU has connected and entered command mode. */
  readonly ready: Promise<void>;
  private readonly server: Server;
  private readonly inbox = new Inbox<QmpEvent>("a QMP event", 4096);
  private readonly pending = new Map<number, Pending>();
  private socket: Socket | undefined;
  private nextId = 1;
  private greeted: () => void = () => undefined;

  private constructor(server: Server) {
    this.server = server;
    const greeting = new Promise<void>((resolve) => {
      this.greeted = resolve;
    });
    this.ready = greeting.then(async () => {
      await this.execute("qmp_capabilities");
    });
    // A QEMU that dies before it speaks is reported by the VM.
    this.ready.catch(() => undefined);
    server.once("connection", (socket) => this.attach(socket));
  }

  /** Listens on the Unix socket `path`. */
  static async listen(path: string): Promise<Qmp> {
    const server = createServer();
    const qmp = new Qmp(server);
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(path, resolve);
    });
    return qmp;
  }

  private attach(socket: Socket): void {
    this.socket = socket;
    socket.on(
      "data",
      lineSplitter((line) => this.take(line)),
    );
    socket.on("error", () => this.close());
    socket.on("close", () => this.close());
  }

  private take(line: string): void {
    this.log.push(`<- ${line}`);
    const message = JSON.parse(line) as Message;
    if (message.QMP !== undefined) this.greeted();
    if (message.event !== undefined) this.inbox.push({ ...message, event: message.event });
    const pending = message.id === undefined ? undefined : this.pending.get(message.id);
    if (message.id === undefined || pending === undefined) return;
    this.pending.delete(message.id);
    if (message.error === undefined) pending.resolve(message.return);
    else pending.reject(new HarnessError(`QMP ${pending.command}: ${message.error.desc}`));
  }

  /**
   * Runs a command and returns what QEMU returns. Rejects on QEMU's error and after `timeoutMs`.
   */
  async execute(
    command: string,
    options: { arguments?: Record<string, unknown>; timeoutMs?: number } = {},
  ): Promise<unknown> {
    const socket = this.socket;
    if (socket === undefined) throw new HarnessError(`QMP ${command}: QEMU is not connected`);
    const id = this.nextId++;
    const line = JSON.stringify({ execute: command, arguments: options.arguments, id });
    this.log.push(`-> ${line}`);
    const answer = new Promise<unknown>((resolve, reject) => {
      this.pending.set(id, { command, resolve, reject });
    });
    socket.write(`${line}\n`);
    return withDeadline(answer, options.timeoutMs ?? 10_000, () => `QMP command ${command}`);
  }

  /** The next event of that name, which may have arrived already. */
  waitFor(name: string, timeoutMs = 10_000): Promise<QmpEvent> {
    return this.inbox.next(timeoutMs, (event) => event.event === name);
  }

  /** Ends the connection and rejects what is still open. */
  close(): void {
    const error = new HarnessError("QMP: the connection has ended");
    for (const pending of this.pending.values()) pending.reject(error);
    this.pending.clear();
    this.inbox.close(error);
    this.socket?.destroy();
    this.socket = undefined;
    this.server.close();
  }
}
