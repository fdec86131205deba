// Every order of driver and device on small rings: no wake-up is lost, no buffer is used twice, and
// the 16-bit indices wrap in all of them. Packets come in, the echo app sends them back.

import { assert, suite } from "qemu-test-harness";
import { EchoScene } from "./echo-scene";
import { Explorer } from "./interleavings";

const test = suite("interleavings", { timeoutMs: 120_000 });

interface Order {
  readonly size: number;
  readonly packets: number;
  /** How often the device gets its turn within the driver's steps. */
  readonly turns: number;
  readonly eventIdx: boolean;
  readonly wraps: boolean;
}

const one = { size: 2, packets: 1, turns: 1, eventIdx: true, wraps: false };
const ORDERS: readonly Order[] = [
  one,
  { ...one, turns: 2 },
  { ...one, eventIdx: false },
  { ...one, size: 4 },
  { ...one, wraps: true },
  { ...one, packets: 2 },
];

for (const { eventIdx, packets, size, turns, wraps } of ORDERS) {
  const how = `${eventIdx ? "event_idx" : "flags"}${wraps ? ", across the wrap" : ""}`;
  test(`split ring of ${size}, ${packets} packets, ${turns} turns, ${how}: all ends well`, () => {
    const found = new Explorer(new EchoScene(size, packets, eventIdx, wraps), turns).explore();
    assert.equal(found.faults, []);
    assert.ok(found.runs > 10 && found.states > 100, JSON.stringify(found));
  });
}

test.run();
