// The program that exchanges datagrams with guests out of a network namespace (peers/exchange.mjs):
// started once for a backend, since starting node takes longer than an exchange. Used by
// kernel-benches.ts.

import { join } from "node:path";
import { Inbox } from "../deadline";
import { HarnessError } from "../errors";
import { packageDirectory } from "../lab/lab";
import { lineSplitter } from "../lines";
import { type ManagedProcess, startProcess } from "../processes";
import type { Exchange, Exchanged } from "./bench";

interface Answer extends Exchanged {
  readonly id: number;
}

/** Beyond the exchange's own deadline, twice: the first datagram goes alone. */
const GRACE_MS = 5000;

export class PeerProcess {
  private readonly process: ManagedProcess;
  private readonly answers = new Inbox<Answer>("an answer of the peer in the namespace");
  private readonly said: string[] = [];
  private nextId = 1;

  constructor(wrapper: readonly string[]) {
    const script = join(packageDirectory(), "peers/exchange.mjs");
    const [program = "", ...args] = [...wrapper, process.execPath, script];
    this.process = startProcess(program, args);
    const { stdout, stderr, stdin } = this.process.child;
    stdout?.on(
      "data",
      lineSplitter((line) => this.answers.push(JSON.parse(line) as Answer)),
    );
    stderr?.on(
      "data",
      lineSplitter((line) => this.said.push(line)),
    );
    // The end of the program closes the inbox, which says more.
    stdin?.on("error", () => undefined);
    void this.process.exited.then(() => {
      this.answers.close(new HarnessError(`the peer has ended: ${this.said.join("\n")}`));
    });
  }

  async exchange(address: string, basePort: number, load: Exchange): Promise<Exchanged> {
    const id = this.nextId++;
    this.process.child.stdin?.write(`${JSON.stringify({ id, address, basePort, ...load })}\n`);
    return this.answers.next(2 * load.timeoutMs + GRACE_MS, (answer) => answer.id === id);
  }

  async stop(): Promise<void> {
    if (this.process.running) await this.process.stop();
  }
}
