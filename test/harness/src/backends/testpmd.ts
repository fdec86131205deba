// DPDK's testpmd as a program under control: starts it with a vhost-user port, and reads its
// statistics. Used by the vhost-user backend.
//
// With --stats-period 1 testpmd prints, every second and without a line break we could rely on:
//   RX-packets: 123        RX-missed: 0          RX-bytes:  7380
//   TX-packets: 456        TX-errors: 0          TX-bytes:  27360
//   Rx-pps:      1000          Rx-bps:       480000
//   Tx-pps:      2000          Tx-bps:       960000

import { DeadlineError, HarnessError } from "../errors";
import { lineSplitter } from "../lines";
import { type ManagedProcess, startProcess } from "../processes";

export interface PortStats {
  readonly rxPackets: number;
  readonly txPackets: number;
  readonly rxPps: number;
  readonly txPps: number;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const FIELDS: readonly [RegExp, keyof PortStats][] = [
  [/RX-packets:\s*(\d+)/, "rxPackets"],
  [/TX-packets:\s*(\d+)/, "txPackets"],
  [/Rx-pps:\s*(\d+)/, "rxPps"],
  [/Tx-pps:\s*(\d+)/, "txPps"],
];

export class Testpmd {
  readonly lines: string[] = [];
  /** One entry for every second, from the first. */
  readonly history: PortStats[] = [];
  private current: Partial<Mutable<PortStats>> = {};
  private readonly process: ManagedProcess;
  private ended = false;
  private readonly listeners = new Set<() => void>();

  constructor(argv: readonly string[]) {
    const [program = "", ...args] = argv;
    this.process = startProcess(program, args);
    const onLine = (line: string) => this.take(line);
    this.process.child.stdout?.on("data", lineSplitter(onLine));
    this.process.child.stderr?.on("data", lineSplitter(onLine));
    void this.process.exited.then(() => {
      this.ended = true;
      this.wake();
    });
  }

  private take(line: string): void {
    this.lines.push(line);
    for (const [pattern, field] of FIELDS) {
      const match = pattern.exec(line);
      if (match === null) continue;
      this.current[field] = Number(match[1]);
      // The transmit rate is the last number of a block.
      if (field === "txPps") this.history.push({ ...EMPTY, ...this.current });
    }
    this.wake();
  }

  private wake(): void {
    for (const listener of [...this.listeners]) listener();
  }

  /**
   * Waits until `ready` returns something; rejects when testpmd ends first and after `timeoutMs`.
   */
  until<T>(ready: () => T | undefined, timeoutMs: number, what: string): Promise<T> {
    return new Promise((resolve, reject) => {
      const finish = (act: () => void) => {
        clearTimeout(timer);
        this.listeners.delete(check);
        act();
      };
      const timer = setTimeout(() => {
        const message = `testpmd: no ${what} within ${timeoutMs} ms\n${this.tail()}`;
        finish(() => reject(new DeadlineError(message)));
      }, timeoutMs);
      const check = () => {
        const value = ready();
        if (value !== undefined) finish(() => resolve(value));
        else if (this.ended) {
          finish(() => reject(new HarnessError(`testpmd has ended\n${this.tail()}`)));
        }
      };
      this.listeners.add(check);
      check();
    });
  }

  private tail(): string {
    return this.lines.slice(-15).join("\n");
  }

  signal(signal: "SIGSTOP" | "SIGCONT"): void {
    this.process.kill(signal);
  }

  async stop(): Promise<void> {
    if (this.process.running) await this.process.stop();
  }
}

const EMPTY: PortStats = { rxPackets: 0, txPackets: 0, rxPps: 0, txPps: 0 };
