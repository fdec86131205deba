// Guests with a lane on each of several vCPUs, and traffic on all of them. Used by the tests of
// multiqueue and of the control queue.

import type { QueueStats, TestContext } from "qemu-test-harness";
import { type Guest, type GuestOptions, STATIC_IP, startGuest } from "../model/guest";
import { MQ_FEATURES } from "../model/net/net-device";
import { PEER_PORT } from "../model/net/peer";

export interface Shape {
  readonly cpus: number;
  readonly pairs: number;
  readonly commandLine?: string;
  readonly net?: GuestOptions["net"];
}

/** Of a guest with so many vCPUs and queue pairs. */
export function options({ cpus, pairs, commandLine = STATIC_IP, net = {} }: Shape): GuestOptions {
  const memoryMib = 16 * cpus;
  return { cpus, memoryMib, commandLine, net: { features: MQ_FEATURES, pairs, ...net } };
}

/** Running, at rest. */
export function start(t: TestContext, shape: Shape): Guest {
  const guest = startGuest(t, options(shape));
  guest.settle();
  return guest;
}

/** An echo on each of `flows` flows, `rounds` times, each led to the queue of its own number. */
export function traffic(guest: Guest, rounds: number, flows: number): void {
  const { frames } = guest.peer;
  const { active } = guest.nic;
  guest.nic.steer = (frame) => (frame.readUInt16BE(34) - PEER_PORT) % active;
  for (let round = 0; round < rounds; round++) {
    const before = frames.length;
    const payload = Buffer.from(`round ${round}`);
    for (let flow = 0; flow < flows; flow++) {
      guest.nic.receive(guest.peer.echoRequest(payload, undefined, PEER_PORT + flow));
    }
    guest.until(() => frames.length >= before + flows, `the ${flows} echoes of ${round} come back`);
  }
  guest.nic.steer = undefined;
}

/** What a lane has of its own while nothing is under way. */
export function resources(queues: readonly (QueueStats & { pool_free: number })[]) {
  return queues.map(({ rx, tx, pool_free }) => ({ rx: rx.free, tx: tx.free, pool: pool_free }));
}
