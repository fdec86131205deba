// Ring.shouldWait: a device at full speed is left alone until a turn's worth is there, so that its
// cache lines stay with it. But nothing waits for long, and for a slow device nothing waits at all.

import { assert, suite, type TestContext } from "qemu-test-harness";
import { type Guest, startGuest } from "../model/guest";
import { FORMATS, prefixOf, type RingFormat, without } from "./ring-formats";

const test = suite("turns");

const SIZE = 256;
/** As in ring.ts: frames of a turn, of a turn that shows full speed, and turns that are waited. */
const TURNFUL = 96;
const LOADED = 24;
const PATIENCE = 64;
/** What the guest does besides: interrupts, and a look before it sleeps. */
const FEW = 12;
const STEPS_MAX = 1000;

interface Pass {
  /** Steps of the machine until all was quiet. */
  readonly steps: number;
  /** Frames received so far. */
  readonly received: number;
}

/** Gives `count` frames to the guest at once and runs it until it has nothing to do. */
function pass(guest: Guest, count: number): Pass {
  const { machine } = guest;
  for (let i = 0; i < count; i++) guest.nicAt(0).receive(Buffer.alloc(60, i));
  let steps = 0;
  while ((machine.step() || machine.passMoment()) && steps < STEPS_MAX) steps++;
  return { steps, received: Number(guest.stats().queues[0]?.rx.packets) };
}

function start(t: TestContext, format: RingFormat, mode: string): Guest {
  const net = { rxSize: SIZE, features: without(format, "mrg_rxbuf") };
  const commandLine = `app=sink mode=${mode}`;
  const guest = startGuest(t, { commandLine, memoryMib: 64, net });
  guest.machine.log.enabled = false;
  for (let i = 0; i < STEPS_MAX; i++) guest.machine.step();
  return guest;
}

for (const format of FORMATS) {
  const canLookAhead = !(format.packed && format.inOrder);

  for (const mode of ["adaptive", "irq"]) {
    test(`${prefixOf(format)}${mode}: a slow device is not waited for`, (t) => {
      const guest = start(t, format, mode);
      for (let i = 1; i <= 20; i++) {
        const { steps, received } = pass(guest, LOADED - 1);
        assert.is(received, i * (LOADED - 1));
        assert.ok(steps <= FEW, `${steps} steps`);
      }
    });
  }

  test(`${prefixOf(format)}the turn after a full one waits, but not for long`, (t) => {
    const guest = start(t, format, "adaptive");
    for (let i = 1; i <= 20; i++) {
      const { steps, received } = pass(guest, LOADED);
      assert.is(received, i * LOADED);
      const waited = canLookAhead ? PATIENCE : 0;
      assert.ok(steps >= waited && steps <= waited + FEW, `${steps} steps`);
    }
  });

  if (!canLookAhead) continue;

  test(`${prefixOf(format)}what is less than a turn is left alone`, (t) => {
    const guest = start(t, format, "poll");
    const { machine } = guest;
    const { ring } = guest.nicAt(0).live("rx");
    /** Frames that the guest has not taken, after so many steps. */
    const leftAfter = (steps: number, more: number) => {
      for (let i = 0; i < more; i++) guest.nicAt(0).receive(Buffer.alloc(60, i));
      for (let i = 0; i < steps; i++) machine.step();
      return SIZE - ring.available();
    };
    assert.is(leftAfter(FEW, LOADED), 0);
    for (let i = 0; i < 10; i++) {
      assert.is(leftAfter(FEW, TURNFUL - 1), TURNFUL - 1);
      assert.is(leftAfter(2, 1), 0);
    }
  });
}

test.run();
