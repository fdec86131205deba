// The traffic of the soak: loads of which everything must come back unchanged, and noise of which
// some may be lost, but nothing changed. For a stream socket and for a tap. Used by soak-run.ts.

import type { FaultyStreamBackend } from "../test/harness/src/backends/faulty-stream";
import type { TapBackend } from "../test/harness/src/backends/tap";
import { type Route, udpFrame } from "../test/harness/src/codec/packets";
import { delay } from "../test/harness/src/deadline";
import { HarnessError } from "../test/harness/src/errors";
import { PeerProcess } from "../test/harness/src/matrix/peer-process";
import { Peer } from "../test/harness/src/peer";
import { Random } from "../test/harness/src/random";

export const GUEST_IP = "192.0.2.2";

const ECHO_PORT = 7;
const LOAD_PORT = 30_000;
const NOISE_PORT = 31_000;
/** Less than the guest's watchdog takes to notice. */
const STALL_MS = 8000;
const NOISE_BURST = 8;
const NOISE_PAUSE_MS = 2;
const SHORTEST_BYTES = 18;
const TAP_FLOWS_MOST = 32;
const NOISE_TIMEOUT_MS = 400;

export interface Load {
  readonly count: number;
  /** Datagrams under way at a time. */
  readonly window: number;
  /** The largest payload; the others are from 18 bytes on. */
  readonly bytes: number;
}

export interface Traffic {
  /** Rejects unless every datagram comes back unchanged. */
  load(load: Load): Promise<void>;
  /** Sends until `until` is settled, without waiting for anything to come back. */
  noise(until: Promise<unknown>): Promise<void>;
  /** Something that the guest must never do, if it has. */
  complaint(): string | undefined;
}

/** Datagram `number`: its number, its length, then bytes that depend on both. */
function payloadOf(number: number, length: number): Buffer {
  const payload = Buffer.alloc(length, (number * 31 + length) & 0xff);
  payload.writeUInt32BE(number);
  payload.writeUInt16BE(length, 4);
  return payload;
}

function isWhole(payload: Buffer): boolean {
  if (payload.length < SHORTEST_BYTES) return false;
  return payload.equals(payloadOf(payload.readUInt32BE(0), payload.length));
}

export class StreamTraffic implements Traffic {
  readonly peer: Peer;
  private changed: string | undefined;
  private arrived: (number: number) => void = () => undefined;
  private noiseNumber = 0;

  constructor(
    readonly net: FaultyStreamBackend,
    private readonly stallMs = STALL_MS,
  ) {
    this.peer = new Peer(net);
    for (const port of [LOAD_PORT, NOISE_PORT]) {
      this.peer.onUdp(port, ({ udp }) => {
        if (!isWhole(udp.payload)) this.changed ??= udp.payload.toString("hex", 0, 40);
        else if (port === LOAD_PORT) this.arrived(udp.payload.readUInt32BE(0));
      });
    }
  }

  complaint(): string | undefined {
    const [malformed] = this.peer.malformed;
    if (malformed !== undefined) return `a malformed frame: ${malformed}`;
    return this.changed === undefined ? undefined : `a datagram has changed: ${this.changed}`;
  }

  route(): Promise<Route> {
    return this.peer.route(GUEST_IP);
  }

  async load({ count, window, bytes }: Load): Promise<void> {
    const route = await this.route();
    const back = new Set<number>();
    let wake: () => void = () => undefined;
    this.arrived = (number) => {
      if (back.has(number)) this.changed ??= `datagram ${number} came back twice`;
      back.add(number);
      wake();
    };
    const progress = () =>
      new Promise<void>((resolve, reject) => {
        const fail = () =>
          reject(new HarnessError(`${back.size} of ${count} datagrams came back, then no more`));
        const timer = setTimeout(fail, this.stallMs);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    const random = new Random(count);
    for (let number = 0; number < count; number++) {
      while (number - back.size >= window) await progress();
      const payload = payloadOf(number, SHORTEST_BYTES + random.below(bytes - SHORTEST_BYTES + 1));
      const fields = { sourcePort: LOAD_PORT, destinationPort: ECHO_PORT, payload };
      await this.net.send(udpFrame(route, fields));
    }
    while (back.size < count) await progress();
  }

  async noise(until: Promise<unknown>): Promise<void> {
    const route = await this.route();
    let over = false;
    const ended = until.finally(() => {
      over = true;
    });
    // Whoever waits for `until` hears of its failure.
    ended.catch(() => undefined);
    const random = new Random(this.noiseNumber);
    while (!over) {
      const frames = Array.from({ length: NOISE_BURST }, () => {
        const payload = payloadOf(this.noiseNumber++, SHORTEST_BYTES + random.below(1400));
        return udpFrame(route, { sourcePort: NOISE_PORT, destinationPort: ECHO_PORT, payload });
      });
      await this.net.sendBurst(frames);
      await delay(NOISE_PAUSE_MS);
    }
  }
}

/** The kernel is the peer; the program that sends is in the tap's namespace. */
export class TapTraffic implements Traffic {
  private readonly process: PeerProcess;
  private changed: string | undefined;

  constructor(net: TapBackend) {
    this.process = new PeerProcess(net.wrapper);
  }

  complaint(): string | undefined {
    return this.changed;
  }

  async load({ count, window, bytes }: Load): Promise<void> {
    const flows = Math.min(window, TAP_FLOWS_MOST);
    const random = new Random(count);
    const each = Math.ceil(count / flows);
    const sizes = Array.from({ length: each }, () => SHORTEST_BYTES + random.below(bytes - 17));
    const exchange = { bytes: sizes, flows, window: flows, timeoutMs: STALL_MS };
    const { wrong, right } = await this.process.exchange(GUEST_IP, LOAD_PORT, exchange);
    if (wrong !== "") throw new HarnessError(`${wrong}; ${right} were right`);
  }

  async noise(until: Promise<unknown>): Promise<void> {
    let over = false;
    until
      .finally(() => {
        over = true;
      })
      .catch(() => undefined);
    while (!over) {
      const sizes = Array.from({ length: 50 }, (_, i) => SHORTEST_BYTES + i * 20);
      const [flows, timeoutMs] = [TAP_FLOWS_MOST, NOISE_TIMEOUT_MS];
      const exchange = { bytes: sizes, flows, window: flows, timeoutMs };
      const { wrong } = await this.process.exchange(GUEST_IP, NOISE_PORT, exchange);
      if (/has changed|an answer from/.test(wrong)) this.changed ??= wrong;
    }
  }

  async stop(): Promise<void> {
    await this.process.stop();
  }
}
