// Every order of driver and device on small rings: no wake-up is lost, no buffer is used twice, and
// indices and wrap counters wrap in all of them. Packets come in, the echo app sends them back.

import { assert, suite } from "qemu-test-harness";
import {
  IN_ORDER_FEATURES,
  PACKED_FEATURES,
  PACKED_IN_ORDER_FEATURES,
  USUAL_FEATURES,
} from "../model/net/net-device";
import { EchoScene, NEAR_WRAP, type SceneOptions } from "./echo-scene";
import { Explorer } from "./interleavings";

const test = suite("interleavings", { timeoutMs: 120_000 });

const FORMATS = {
  split: USUAL_FEATURES,
  "split in order": IN_ORDER_FEATURES,
  packed: PACKED_FEATURES,
  "packed in order": PACKED_IN_ORDER_FEATURES,
} as const;

interface Order extends Omit<SceneOptions, "features"> {
  readonly format: keyof typeof FORMATS;
  /** How often the device gets its turn within the driver's steps. */
  readonly turns: number;
  readonly eventIdx: boolean;
}

const one: Order = {
  format: "split",
  size: 2,
  packets: 1,
  before: 0,
  turns: 1,
  eventIdx: true,
  batches: false,
};
const packed: Order = { ...one, format: "packed" };
const ORDERS: readonly Order[] = [
  one,
  { ...one, turns: 2 },
  { ...one, eventIdx: false },
  { ...one, size: 4 },
  { ...one, before: NEAR_WRAP },
  { ...one, packets: 2 },
  { ...one, format: "split in order" },
  { ...one, format: "split in order", packets: 2, before: NEAR_WRAP, batches: true },
  packed,
  { ...packed, turns: 2 },
  { ...packed, eventIdx: false },
  // The last slot of the first lap, the first of the second one, and the last of that.
  ...[1, 2, 3].map((before) => ({ ...packed, before })),
  { ...packed, size: 3, before: 2 },
  { ...packed, size: 4, before: 3 },
  { ...packed, format: "packed in order", before: 1 },
  { ...packed, format: "packed in order", size: 3, packets: 2, before: 2, batches: true },
];

function nameOf({ batches, before, eventIdx, format, packets, size, turns }: Order): string {
  const how = [
    `${packets} packets`,
    ...(before > 0 ? [`after ${before}`] : []),
    `${turns} turns`,
    eventIdx ? "event_idx" : "flags",
    ...(batches ? ["one used entry for all that is there"] : []),
  ];
  return `${format} ring of ${size}, ${how.join(", ")}`;
}

for (const order of ORDERS) {
  test(`${nameOf(order)}: all ends well`, () => {
    const { eventIdx, format, turns, ...options } = order;
    const features = FORMATS[format].filter((name) => eventIdx || name !== "event_idx");
    const found = new Explorer(new EchoScene({ ...options, features }), turns).explore();
    assert.equal(found.faults, []);
    assert.ok(found.runs > 10 && found.states > 100, JSON.stringify(found));
  });
}

test.run();
