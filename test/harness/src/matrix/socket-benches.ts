// The matrix's backends without privileges: QEMU's user network, whose host ports lead to the
// guest's echo service, and a stream socket, on whose other end this process speaks Ethernet itself.

import { type StreamBackend, stream } from "../backends/stream";
import { type UserBackend, user } from "../backends/user";
import { udpFrame } from "../codec/packets";
import { Peer } from "../peer";
import { Random } from "../random";
import type { Bench, Card, Exchange, Exchanged } from "./bench";
import type { BackendName, Cell } from "./cells";

const ECHO_PORT = 7;
const FIRST_PORT = 20_000;
const USER_ADDRESS = "10.0.2.15";
const STREAM_ADDRESS = "192.0.2.2";

/** One flow: sends `payload` and resolves with what comes back. */
type Ask = (payload: Buffer) => Promise<Buffer>;

/** Each flow's datagrams one after the other, all flows at once. */
async function askAll(load: Exchange, askOf: (flow: number) => Ask): Promise<Exchanged> {
  let [sent, right, wrong] = [0, 0, ""];
  const run = async (flow: number) => {
    const ask = askOf(flow);
    const random = new Random(flow);
    for (const length of load.bytes) {
      const payload = random.bytes(length);
      sent++;
      const answer = await ask(payload);
      if (!answer.equals(payload)) throw new Error(`flow ${flow}: ${length} bytes have changed`);
      right++;
    }
  };
  let next = 0;
  const runner = async () => {
    while (next < load.flows) await run(next++);
  };
  const flows = Array.from({ length: Math.min(load.window, load.flows) }, runner);
  for (const result of await Promise.allSettled(flows)) {
    if (result.status === "rejected" && wrong === "") wrong = String(result.reason);
  }
  return { sent, right, wrong };
}

class UserCard implements Card {
  readonly backend: UserBackend = user({ ipv6: false });
  readonly address = `${USER_ADDRESS}/24`;

  exchange(load: Exchange): Promise<Exchanged> {
    return askAll(load, () => (payload) => this.backend.echo(payload, load.timeoutMs));
  }

  async counts() {
    return undefined;
  }
}

class StreamCard implements Card {
  readonly backend: StreamBackend = stream();
  readonly address = `${STREAM_ADDRESS}/24`;
  private peer: Peer | undefined;

  async exchange(load: Exchange): Promise<Exchanged> {
    this.peer ??= new Peer(this.backend);
    const { peer } = this;
    const route = await peer.route(STREAM_ADDRESS);
    const result = await askAll(load, (flow) => async (payload) => {
      const sourcePort = FIRST_PORT + flow;
      const answer = peer.receiveUdp(sourcePort, load.timeoutMs);
      // A failure to send is thrown below; the answer that will then never come is not.
      answer.catch(() => undefined);
      const fields = { sourcePort, destinationPort: ECHO_PORT, payload };
      await this.backend.send(udpFrame(route, fields));
      return (await answer).udp.payload;
    });
    const wrong = result.wrong === "" ? (peer.malformed[0] ?? "") : result.wrong;
    return { ...result, wrong };
  }

  async counts() {
    return { toGuest: this.backend.sent, fromGuest: this.backend.received };
  }
}

class SocketBench implements Bench {
  readonly mostQueues = 1;
  readonly uniform = false;
  readonly spreads = true;
  readonly window = 64;
  readonly oneLink = false;

  constructor(
    readonly name: BackendName,
    private readonly make: () => Card,
  ) {}

  async unavailable() {
    return undefined;
  }

  async open(): Promise<void> {
    // Each card makes what it needs when QEMU is started.
  }

  async cards(cells: readonly Cell[]): Promise<readonly Card[]> {
    return cells.map(() => this.make());
  }

  async release(): Promise<void> {
    // The VM has stopped the backends.
  }

  async close(): Promise<void> {
    // Nothing outlives a boot.
  }
}

export const userBench = (): Bench => new SocketBench("user", () => new UserCard());
export const streamBench = (): Bench => new SocketBench("stream", () => new StreamCard());
