// What a vhost-user device can do amiss, in small steps with numbers at random, for sequences of
// them. Each says what it did. Carried out by hostile-backend.test.ts.
//
// A queue whose ring was lied about or written over rests afterwards (`held`): the honest device
// could no longer tell what is the driver's fault. It works again when the driver has started it
// anew.

import {
  type DeviceQueue,
  type DeviceRing,
  F_AVAIL,
  F_USED,
  PackedDeviceRing,
  type Random,
  SplitDeviceRing,
} from "qemu-test-harness";
import type { Scene } from "./hostile-backend-scene";

/** Does something and says what; undefined: there was nothing to do it to. */
type Act = (scene: Scene, random: Random) => string | undefined;

/** Values at which a comparison may be off by one, or a sum may wrap. */
const EDGES: readonly number[] = [
  ...[0, 1, 2, 3, 7, 11, 12, 13, 59, 60, 63, 64, 65, 127, 128, 255, 256, 257, 511, 512, 1514],
  ...[1599, 1600, 1601, 4096, 0x7fff, 0x8000, 0xfffe, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000],
  ...[0xffff_fff4, 0xffff_ffff],
];
const FRAMES_MAX = 12;
const FORGED_MAX = 4;
const WORDS_MAX = 8;
const STORM_MAX = 200;
const TOUCHED_BYTES = 128;

const numberOf = (random: Random) =>
  random.below(3) > 0 ? random.pick(EDGES) : random.below(0x1_0000_0000);

function queueOf({ net }: Scene, random: Random): [DeviceQueue, DeviceRing] | undefined {
  const { running } = net;
  if (running.length === 0) return undefined;
  const queue = random.pick(running);
  return queue.ring === undefined ? undefined : [queue, queue.ring];
}

// ---- traffic -----------------------------------------------------------------------------------

function pushTo(scene: Scene, random: Random, frame: Buffer, header: Record<string, number>) {
  const rx = scene.rx(random.below(scene.pairs));
  if (rx.running) rx.push(frame, header);
}

const frames: Act = (scene, random) => {
  const count = 1 + random.below(FRAMES_MAX);
  for (let i = 0; i < count; i++) {
    pushTo(scene, random, scene.datagram(random.bytes(random.below(scene.datagramBytes))), {});
  }
  return `${count} frames`;
};

/** Anything at all behind the first bytes of a good frame. */
const garbage: Act = (scene, random) => {
  const frame = random.bytes(14 + random.below(scene.datagramBytes));
  scene.datagram("garbage").copy(frame, 0, 0, random.below(60));
  pushTo(scene, random, frame, {});
  return `garbage of ${frame.length} bytes`;
};

const FIELDS = ["flags", "gsoType", "hdrLen", "gsoSize", "csumStart", "csumOffset"] as const;
const header: Act = (scene, random) => {
  const fields: Record<string, number> =
    random.below(2) === 0 ? {} : { flags: 1, csumStart: 34, csumOffset: 6, hdrLen: 42 };
  for (let i = 1 + random.below(2); i > 0; i--) {
    const field = random.pick(FIELDS);
    const mask = field === "flags" || field === "gsoType" ? 0xff : 0xffff;
    fields[field] = numberOf(random) & mask;
  }
  if (random.below(4) === 0) fields.numBuffers = numberOf(random) & 0xffff;
  pushTo(scene, random, scene.datagram(random.bytes(random.below(600))), fields);
  return `header ${JSON.stringify(fields)}`;
};

// ---- rings -------------------------------------------------------------------------------------

/** Ids: of a buffer that is there, any of the ring, just beyond it, anything. */
function idOf(ring: DeviceRing, random: Random): number {
  const { size } = ring.setup;
  const kind = random.below(4);
  if (kind === 0) return random.below(size);
  if (kind === 1) return size + random.below(size);
  return kind === 2 ? numberOf(random) : 0;
}

const forge: Act = (scene, random) => {
  const found = queueOf(scene, random);
  if (found === undefined) return undefined;
  const [queue, ring] = found;
  queue.held = true;
  scene.oracle.showAll();
  const said: string[] = [];
  for (let i = 1 + random.below(FORGED_MAX); i > 0; i--) {
    const [id, bytes] = [idOf(ring, random), numberOf(random)];
    ring.writeUsed(id, bytes);
    said.push(`${id}:${bytes}`);
  }
  ring.publish();
  queue.interrupt();
  scene.oracle.showAll();
  return `${queue.name}: used ${said.join()}`;
};

/** A used index, or marks of used descriptors, that are too far on. */
const jump: Act = (scene, random) => {
  const found = queueOf(scene, random);
  if (found === undefined) return undefined;
  const [queue, ring] = found;
  queue.held = true;
  scene.oracle.showAll();
  const by = numberOf(random) & 0xffff;
  if (ring instanceof SplitDeviceRing) ring.writeUsedIdx(ring.usedIdx + by);
  if (ring instanceof PackedDeviceRing) {
    const marks = random.pick([0, F_AVAIL, F_USED, F_AVAIL | F_USED]);
    for (let i = by % queue.size; i >= 0; i--) {
      const { slot } = ring.plus(ring.used, i);
      ring.writeSlot(slot, idOf(ring, random), numberOf(random), marks);
    }
  }
  queue.interrupt();
  scene.oracle.showAll();
  return `${queue.name}: used index on by ${by}`;
};

const scribble: Act = (scene, random) => {
  const found = queueOf(scene, random);
  if (found === undefined) return undefined;
  const [queue, ring] = found;
  queue.held = true;
  scene.oracle.showAll();
  const part = random.pick(["desc", "driver", "device"] as const);
  const { address, bytes } = ring.areas[part];
  for (let i = 1 + random.below(WORDS_MAX); i > 0; i--) {
    scene.net.memory.store16(address + 2 * random.below(bytes / 2), numberOf(random));
  }
  queue.interrupt();
  return `${queue.name}: ${part} written over`;
};

/** Writes into a buffer that stands in a receive ring, whoever has it. */
const touch: Act = (scene, random) => {
  const rx = scene.rx(random.below(scene.pairs));
  const buffers = scene.oracle.buffersIn(rx);
  if (buffers.length === 0) return undefined;
  scene.oracle.showAll();
  for (let i = 1 + random.below(WORDS_MAX); i > 0; i--) {
    const at = random.pick(buffers) + 2 * random.below(TOUCHED_BYTES / 2);
    scene.net.memory.store16(at, numberOf(random));
  }
  return `${rx.name}: buffers written over`;
};

// ---- notifications, interrupts, time -----------------------------------------------------------

const suppress: Act = (scene, random) => {
  const found = queueOf(scene, random);
  if (found === undefined) return undefined;
  const [queue, ring] = found;
  const [flags, event] = [numberOf(random) & 0xffff, numberOf(random) & 0xffff];
  ring.writeSuppression(flags, event);
  return `${queue.name}: notifications ${flags} ${event}`;
};

const storm: Act = (scene, random) => {
  const found = queueOf(scene, random);
  if (found === undefined) return undefined;
  const count = random.below(STORM_MAX);
  for (let i = 0; i < count; i++) found[0].interrupt();
  return `${found[0].name}: ${count} interrupts`;
};

const silence: Act = (scene, random) => {
  const found = queueOf(scene, random);
  if (found === undefined) return undefined;
  found[0].silent = random.below(2) === 0;
  return `${found[0].name}: silent ${found[0].silent}`;
};

/** The device does nothing here any more, for a driver to wait for. */
const hold: Act = (scene, random) => {
  const found = queueOf(scene, random);
  if (found === undefined) return undefined;
  found[0].held = true;
  return `${found[0].name}: held`;
};

/** The more often the more it is that has to come together for it to matter. */
export const ACTS: readonly Act[] = [
  ...[frames, frames, garbage, header, header],
  ...[forge, forge, jump, scribble, touch],
  ...[suppress, storm, silence, hold],
];
