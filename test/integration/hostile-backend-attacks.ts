// What a vhost-user device can do to a driver, one thing at a time, and what must come of it. Those
// of test/hostile/attacks.ts that a back end has in its hands, against the image under QEMU. Carried
// out by hostile-backend.test.ts.

import {
  type Chain,
  delay,
  F_AVAIL,
  F_USED,
  PackedDeviceRing,
  Random,
  SplitDeviceRing,
} from "qemu-test-harness";
import { type BackendAttack, firstOf, takeOne } from "./hostile-backend-attack";
import { FRAME_ATTACKS } from "./hostile-backend-frames";
import { ringOf, type Scene } from "./hostile-backend-scene";

/** The net header, and the shortest frame. */
const HEADER_BYTES = 12;
const FRAME_BYTES = 60;
/** A datagram that takes three buffers, which is what the driver uses a table for. */
const LARGE_BYTES = 8900;
const LARGE_DATAGRAMS = 40;
const LATE_WORDS = 40;
const LATE_RESETS = 5;
const STORM = 5000;
const TOUCHES = 3000;
const SILENT_FRAMES = 5;
const SEED = 88;
const WATCHDOG_MS = 6000;

// ---- used ids, indexes -------------------------------------------------------------------------

/** Writes used entries that are lies, and sees to it that the driver looks. */
function forge(scene: Scene, pair: number, isRx: boolean, ids: readonly number[]): void {
  const queue = isRx ? scene.rx(pair) : scene.tx(pair);
  const ring = ringOf(queue);
  queue.held = true;
  scene.oracle.showAll();
  for (const id of ids) ring.writeUsed(id, HEADER_BYTES + FRAME_BYTES);
  ring.publish();
  scene.poke(pair);
}

function wrongIds(queue: "receive" | "transmit"): BackendAttack[] {
  const isRx = queue === "receive";
  const beyond = new RegExp(`^${queue} queue: a used id is beyond the ring`);
  const notOutstanding = new RegExp(`^${queue} queue: a used id is not outstanding`);
  const sizeOf = (scene: Scene, pair: number) => (isRx ? scene.rx(pair) : scene.tx(pair)).size;
  const prepare = async (scene: Scene, pair: number): Promise<readonly Chain[]> =>
    isRx ? [takeOne(scene, pair)] : scene.fillTransmit(pair);
  return [
    {
      name: "§2.7.8.2: a used id is the ring's size",
      ...{ queue, error: beyond },
      run: async (scene, pair) => {
        await prepare(scene, pair);
        forge(scene, pair, isRx, [sizeOf(scene, pair)]);
      },
    },
    {
      name: "§2.7.8.2: a used id has all bits set",
      ...{ queue, error: beyond },
      run: async (scene, pair) => {
        await prepare(scene, pair);
        forge(scene, pair, isRx, [0xffff_ffff]);
      },
    },
    {
      name: "§2.7.8.2: a buffer is given back twice",
      ...{ queue, error: notOutstanding },
      run: async (scene, pair) => {
        const { id } = firstOf(await prepare(scene, pair));
        forge(scene, pair, isRx, [id, id]);
      },
    },
    {
      name: "§2.8.6: a whole lap is given back with one id",
      ...{ queue, ring: "packed", error: notOutstanding },
      run: async (scene, pair) => {
        const { id } = firstOf(await prepare(scene, pair));
        forge(scene, pair, isRx, Array<number>(sizeOf(scene, pair)).fill(id));
      },
    },
  ];
}

const FREE_ID: BackendAttack = {
  name: "§2.7.8.2: a used id that was never offered",
  queue: "transmit",
  error: /^transmit queue: a used id is not outstanding/,
  run: async (scene, pair) => {
    const taken = new Set((await scene.fillTransmit(pair)).map(({ id }) => id));
    const all = Array.from({ length: scene.tx(pair).size }, (_, id) => id);
    forge(scene, pair, false, [all.find((id) => !taken.has(id)) ?? 0]);
  },
};

/** Split rings only: a packed ring has no index. */
function jumps(queue: "receive" | "transmit"): BackendAttack[] {
  const isRx = queue === "receive";
  const error = new RegExp(`^${queue} queue: the used index jumped`);
  const steps = [
    ["one more than the ring holds", (size: number) => size + 1],
    ["half of all there are", () => 0x8000],
    ["one back", () => -1],
  ] as const;
  return steps.map(([what, by]) => ({
    name: `§2.7.8: the used index moves by ${what}`,
    ...{ queue, error, ring: "split" as const },
    run: async (scene: Scene, pair: number) => {
      if (!isRx) await scene.fillTransmit(pair);
      const subject = isRx ? scene.rx(pair) : scene.tx(pair);
      const ring = ringOf(subject);
      if (!(ring instanceof SplitDeviceRing)) throw new Error("not a split ring");
      subject.held = true;
      scene.oracle.showAll();
      ring.writeUsedIdx(ring.usedIdx + by(subject.size));
      scene.poke(pair);
    },
  }));
}

/** Packed rings only: flags that mean nothing yet. */
const WRAPS: readonly BackendAttack[] = (["AVAIL", "USED", "neither"] as const).map((mark) => ({
  name: `§2.8.1: used descriptors of the wrong lap, ${mark} set the wrong way round`,
  queue: "receive",
  ring: "packed",
  spoils: true,
  run: (scene, pair) => {
    const queue = scene.rx(pair);
    const ring = ringOf(queue);
    if (!(ring instanceof PackedDeviceRing)) throw new Error("not a packed ring");
    queue.held = true;
    scene.oracle.showAll();
    const right = ring.used.wrap ? F_AVAIL | F_USED : 0;
    const wrong = { AVAIL: right ^ F_AVAIL, USED: right ^ F_USED, neither: 0x8080 ^ right }[mark];
    for (let slot = 0; slot < queue.size; slot++) ring.writeSlot(slot, slot, 72, wrong);
    scene.poke(pair);
  },
}));

const TX_LENGTHS: BackendAttack = {
  name: "§2.7.8.3: used lengths of what was sent have all bits set",
  queue: "transmit",
  run: async (scene, pair) => {
    const tx = scene.tx(pair);
    const ring = ringOf(tx);
    for (const chain of await scene.fillTransmit(pair)) ring.give(chain, 0xffff_ffff);
    tx.flush(ring);
    scene.poke(pair);
  },
};

// ---- memory ------------------------------------------------------------------------------------

const PARTS = ["desc", "driver", "device"] as const;

/** Random bytes over all of a part of a ring. The device then follows no descriptor any more. */
function rewrites(queue: "receive" | "transmit"): BackendAttack[] {
  return PARTS.map((part) => ({
    name: `§2.7, §2.8: the ${part} area is rewritten`,
    ...{ queue, spoils: true },
    run: async (scene: Scene, pair: number) => {
      const isRx = queue === "receive";
      const subject = isRx ? scene.rx(pair) : scene.tx(pair);
      if (!isRx) await scene.fillTransmit(pair);
      subject.held = true;
      scene.oracle.showAll();
      const { address, bytes } = ringOf(subject).areas[part];
      scene.net.memory.write(address, new Random(SEED + pair).bytes(bytes));
      scene.poke(pair);
    },
  }));
}

/** What was taken is what counts: the driver reads nothing back from a table. */
const TABLES: BackendAttack = {
  name: "§2.7.5.3, §2.8.7: the tables of what is to be sent are rewritten",
  queue: "transmit",
  run: async (scene, pair) => {
    const tx = scene.tx(pair);
    const ring = ringOf(tx);
    const chains = await scene.collect(pair, LARGE_DATAGRAMS, Buffer.alloc(LARGE_BYTES, 7));
    const tables = scene.oracle.tablesIn(tx);
    if (tables.length < LARGE_DATAGRAMS) throw new Error(`${tables.length} indirect tables`);
    scene.oracle.showAll();
    const random = new Random(SEED);
    for (const { address, bytes } of tables) scene.net.memory.write(address, random.bytes(bytes));
    for (const chain of chains) ring.give(chain, 0);
    tx.flush(ring);
    scene.poke(pair);
  },
};

const TOUCH: BackendAttack = {
  name: "a frame is written to after it was given back",
  queue: "receive",
  run: async (scene, pair) => {
    const random = new Random(SEED);
    const queue = scene.rx(pair);
    const places: number[] = [];
    const { onTake } = scene.net;
    scene.net.onTake = (from, chain) => {
      onTake(from, chain);
      if (from === queue) places.push(...chain.segments.map(({ address }) => address));
    };
    for (let i = 0; i < TOUCHES; i++) {
      if (i % 100 === 0) queue.push(scene.datagram("touched"), {});
      const at = random.pick(places) + HEADER_BYTES + random.below(FRAME_BYTES);
      scene.net.memory.bytes(at, 1)[0] = random.below(256);
    }
    scene.net.onTake = onTake;
  },
};

/** A device whose writes are late: they meet rings that are being made anew, and new ones. */
function lateWrites(queue: "receive" | "transmit"): BackendAttack {
  return {
    name: "§2.4: the device goes on writing to a ring after it was reset",
    ...{ queue, spoils: true },
    run: async (scene, pair) => {
      const { memory, onStart } = scene.net;
      const random = new Random(SEED + pair);
      const subject = queue === "receive" ? scene.rx(pair) : scene.tx(pair);
      const { areas } = ringOf(subject);
      subject.held = true;
      scene.oracle.showAll();
      const write = () => {
        for (let i = 0; i < LATE_WORDS; i++) {
          const { address, bytes } = areas[random.pick(PARTS)];
          memory.store16(address + 2 * random.below(bytes / 2), random.below(0x1_0000));
        }
        // What the driver looks at first: a split ring's used index, id and flags of a packed slot.
        memory.store16(areas.device.address + 2, random.below(0x1_0000));
        memory.store32(areas.desc.address + 12, random.below(0x1_0000_0000));
        subject.interrupt();
      };
      scene.net.onStart = (started) => {
        started.held = true;
      };
      const timer = setInterval(write, 1);
      try {
        for (let i = 0; i < LATE_RESETS; i++) await scene.reset();
      } finally {
        clearInterval(timer);
        scene.net.onStart = onStart;
      }
    },
  };
}

// ---- notifications and interrupts --------------------------------------------------------------

function suppression(queue: "receive" | "transmit"): BackendAttack[] {
  const lies = [
    ["none is wanted", 1, 0],
    ["a place far off", 0, 0x7fff],
    ["a reserved value", 3, 0xffff],
    ["a place beyond the ring", 2, 0x7ffe],
  ] as const;
  return lies.map(([what, flags, event]) => ({
    name: `§2.7.10, §2.8.10: which notifications are wanted is a lie: ${what}`,
    queue,
    run: async (scene: Scene, pair: number) => {
      const subject = queue === "receive" ? scene.rx(pair) : scene.tx(pair);
      for (let i = 0; i < SILENT_FRAMES; i++) {
        ringOf(subject).writeSuppression(flags, event);
        scene.rx(pair).push(scene.datagram(`suppressed ${i}`), {});
        ringOf(subject).writeSuppression(flags, event);
        await delay(1);
      }
    },
  }));
}

const STORMS: readonly BackendAttack[] = (["receive", "transmit"] as const).map((queue) => ({
  name: `${STORM} interrupts for nothing`,
  queue,
  run: async (scene: Scene, pair: number) => {
    const subject = queue === "receive" ? scene.rx(pair) : scene.tx(pair);
    for (let i = 0; i < STORM; i++) {
      subject.interrupt();
      if (i % 500 === 0) await delay(1);
    }
  },
}));

const SILENCE: BackendAttack = {
  name: "frames without an interrupt, and one for all of them later",
  queue: "receive",
  run: async (scene, pair) => {
    const queue = scene.rx(pair);
    queue.silent = true;
    const payloads = Array.from({ length: SILENT_FRAMES }, (_, i) => `silent ${i}`);
    for (const payload of payloads) queue.push(scene.datagram(payload), {});
    await scene.stats();
    queue.silent = false;
    queue.interrupt();
    const arrived = () => payloads.every((payload) => scene.answers.has(payload));
    await scene.net.until(arrived, 5000, "answers to what was sent in silence");
  },
};

const STALL: BackendAttack = {
  name: "nothing that was sent is ever given back",
  queue: "transmit",
  spoils: true,
  run: async (scene, pair) => {
    const mark = scene.mark();
    await scene.fillTransmit(pair);
    const { starts } = scene.net;
    const said = () =>
      scene
        .since(mark, "warning")
        .some(({ message }) => String(message).includes("sends nothing any more"));
    await scene.net.until(said, WATCHDOG_MS, "warning of the watchdog");
    await scene.restarted(starts);
  },
};

export const ATTACKS: readonly BackendAttack[] = [
  ...wrongIds("receive"),
  ...jumps("receive"),
  ...WRAPS,
  ...FRAME_ATTACKS,
  ...rewrites("receive"),
  lateWrites("receive"),
  TOUCH,
  ...suppression("receive"),
  SILENCE,
  ...wrongIds("transmit"),
  FREE_ID,
  ...jumps("transmit"),
  TX_LENGTHS,
  ...rewrites("transmit"),
  lateWrites("transmit"),
  TABLES,
  ...suppression("transmit"),
  ...STORMS,
  STALL,
];
