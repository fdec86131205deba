// Interrupts under load: one for many frames, and a timer for those that are fewer; at rest and for
// who waits for an answer none is late. virtio 1.4 §2.7.7, §2.8.10

import { assert, suite, type TestContext } from "qemu-test-harness";
import { type Guest, STATIC_IP, startGuest } from "../model/guest";
import { ticksOfUs } from "../model/machine/clock";
import { PACKED_FEATURES, USUAL_FEATURES } from "../model/net/net-device";
import type { FeatureName } from "../model/virtio/features";

const test = suite("moderation", { timeoutMs: 30_000 });

const FRAMES_EACH = 32;
/** What a frame waits at most for others, and what handling it may take. */
const LATE_US = 120;
/** Machine calls take some time in the model. */
const AT_ONCE_US = 20;
const payload = Buffer.alloc(18);

function start(t: TestContext, features: readonly FeatureName[], more = ""): Guest {
  const guest = startGuest(t, { commandLine: `${STATIC_IP} ${more}`, net: { features } });
  // The second announcement of its address comes by itself.
  guest.machine.run(() => guest.peer.announcements() === 2, { us: 5e6 });
  guest.settle();
  return guest;
}

function come(guest: Guest, frames: number): void {
  for (let i = 0; i < frames; i++) guest.nic.receive(guest.peer.echoRequest(payload));
}

function pass(guest: Guest, us: number): void {
  guest.machine.run(() => false, { us });
}

/** So many frames at a time, `everyUs` apart; answers how many of them an interrupt stood for. */
function framesEach(guest: Guest, rounds: number, frames: number, everyUs: number): number {
  const before = guest.stats().queues[0]?.rx;
  for (let round = 0; round < rounds; round++) {
    come(guest, frames);
    pass(guest, everyUs);
  }
  guest.settle();
  const after = guest.stats().queues[0]?.rx;
  assert.is((after?.packets ?? 0) - (before?.packets ?? 0), rounds * frames);
  return (rounds * frames) / ((after?.interrupts ?? 0) - (before?.interrupts ?? 0));
}

const nowUs = (guest: Guest) => guest.machine.clock.now / ticksOfUs(1);

/** Sees to it that a frame is answered without a wait. */
function answersAtOnce(guest: Guest): void {
  const began = nowUs(guest);
  guest.echo(payload);
  const us = nowUs(guest) - began;
  assert.ok(us < AT_ONCE_US, `answered after ${us} us`);
}

for (const [name, features] of [
  ["split", USUAL_FEATURES],
  ["packed", PACKED_FEATURES],
] as const) {
  for (const [frames, everyUs] of [
    [20, 250],
    [64, 100],
    [100, 1000],
  ] as const) {
    test(`${name}: ${frames} frames every ${everyUs} us are a load`, (t) => {
      const guest = start(t, features);
      const each = framesEach(guest, 60, frames, everyUs);
      t.log(`${Math.round(each)} frames an interrupt`);
      assert.ok(each >= FRAMES_EACH, `${each} frames an interrupt`);
    });
  }

  test(`${name}: the first frame after a silence is heard of at once, and after a load again`, (t) => {
    const guest = start(t, features);
    answersAtOnce(guest);
    framesEach(guest, 20, 40, 50);
    pass(guest, 6000);
    for (let i = 0; i < 5; i++) answersAtOnce(guest);
  });

  test(`${name}: a conversation of fifteen frames at a time is never made to wait`, (t) => {
    const guest = start(t, features);
    const { frames } = guest.peer;
    for (let round = 0; round < 100; round++) {
      const [before, began] = [frames.length, nowUs(guest)];
      come(guest, 15);
      guest.until(() => frames.length === before + 15, "all are answered");
      assert.ok(nowUs(guest) - began < AT_ONCE_US);
    }
  });

  test(`${name}: under load no frame waits longer than ${LATE_US} us`, (t) => {
    const guest = start(t, features);
    const { frames } = guest.peer;
    for (let last = 1; last < 60; last++) {
      come(guest, 40);
      pass(guest, 150);
      const [before, began] = [frames.length, nowUs(guest)];
      come(guest, last);
      guest.until(() => frames.length === before + last, `${last} frames are answered`);
      const us = nowUs(guest) - began;
      assert.ok(us <= LATE_US, `${last} frames waited ${us} us`);
    }
  });
}

for (const [what, features, more] of [
  ["mode=irq", USUAL_FEATURES, "mode=irq"],
  ["without event_idx", USUAL_FEATURES.filter((name) => name !== "event_idx"), ""],
] as const) {
  test(`${what}: each frame is heard of at once`, (t) => {
    const guest = start(t, features, more);
    framesEach(guest, 20, 40, 50);
    for (let i = 0; i < 5; i++) answersAtOnce(guest);
  });
}

test.run();
