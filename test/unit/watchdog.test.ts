// A device that stops sending: after `watchdog=` seconds it is notified again, after twice that it is
// reset, each time with more patience; and all of it stops as soon as it sends again. The model's clock jumps, so minutes cost nothing.

import { assert, suite, type TestContext } from "qemu-test-harness";
import { type Guest, type ModelStats, STATIC_IP, startGuest } from "../model/guest";
import { MQ_FEATURES } from "../model/net/net-options";
import type { FeatureName } from "../model/virtio/features";
import { resources, start, traffic } from "./lanes";

const test = suite("watchdog", { timeoutMs: 30_000 });

const WITH: readonly FeatureName[] = [...MQ_FEATURES, "ring_reset"];
const SECOND_US = 1_000_000;
const payload = Buffer.from("is anybody there?");
/** The notification that the device did not ask for is meant. */
const UNASKED = /a notification that the device did not ask for/;

type Stats = ModelStats & { readonly queue_resets: number };

interface Shape {
  readonly lanes?: number;
  readonly seconds?: number;
  readonly features?: readonly FeatureName[];
  readonly more?: string;
}

function atRest(t: TestContext, shape: Shape = {}): Guest {
  const { lanes = 1, seconds = 10, features = WITH, more = "" } = shape;
  const commandLine = `${STATIC_IP} watchdog=${seconds} ${more}`;
  const guest = start(t, { cpus: lanes, pairs: lanes, commandLine, net: { features } });
  // The second announcement of its address comes by itself.
  guest.machine.run(() => guest.peer.announcements() === 2, { us: 5 * SECOND_US });
  guest.settle();
  guest.stats();
  return guest;
}

/** The device takes no more packets, and gets one to send on a lane. */
function stall(guest: Guest, pair = 0): void {
  guest.nic.paused.tx = true;
  guest.nic.steer = () => pair;
  guest.nic.receive(guest.peer.echoRequest(payload));
  guest.settle();
  guest.nic.steer = undefined;
}

function pass(guest: Guest, seconds: number): void {
  guest.machine.run(() => guest.machine.ended !== undefined, { us: seconds * SECOND_US });
}

const warnings = (guest: Guest) => guest.machine.console.all("warning").map((e) => e.message);
const NOTIFIED = "transmit queue: nothing is sent; the device is notified again";
const STUCK = "transmit queue: the device sends nothing any more";

const counts = ({ nic }: Guest) => [nic.pci.common.queueResets, nic.pci.common.resets - 1];

for (const pair of [0, 1]) {
  test(`lane ${pair}: a notification, then a reset of the device`, (t) => {
    const guest = atRest(t, { lanes: 2 });
    const before = resources((guest.stats() as Stats).queues);
    const { queue } = guest.nic.live("tx", pair);
    stall(guest, pair);
    const kicks = queue.kicks;
    pass(guest, 7);
    assert.equal(warnings(guest), [], "7 s are no reason yet");
    pass(guest, 5);
    assert.equal(warnings(guest), [NOTIFIED]);
    assert.is(queue.kicks, kicks + 1);
    assert.equal(counts(guest), [0, 0]);
    pass(guest, 11);
    assert.equal(warnings(guest), [NOTIFIED, STUCK]);
    assert.equal(counts(guest), [0, 1]);
    // The packet is lost; the queue has nothing to do and so is not watched.
    pass(guest, 600);
    assert.equal(counts(guest), [0, 1]);
    stall(guest, pair);
    pass(guest, 36);
    assert.equal(counts(guest), [0, 1], "with twice the patience");
    pass(guest, 10);
    assert.equal(counts(guest), [0, 2]);
    stall(guest, pair);
    pass(guest, 90);
    guest.nic.paused.tx = false;
    guest.machine.violations.take(UNASKED);
    traffic(guest, 2, 4);
    guest.settle();
    const stats = guest.stats() as Stats;
    assert.equal(resources(stats.queues), before);
    const tx = stats.queues[pair]?.tx as { readonly watchdog?: number } | undefined;
    assert.ok((tx?.watchdog ?? 0) >= 5, `${tx?.watchdog} times`);
  });
}

test("without ring_reset the device is reset", (t) => {
  const guest = atRest(t, { features: MQ_FEATURES });
  stall(guest);
  pass(guest, 25);
  assert.equal(counts(guest), [0, 1]);
  assert.equal(warnings(guest), [NOTIFIED, STUCK]);
  guest.nic.paused.tx = false;
  guest.machine.violations.take(UNASKED);
  assert.equal(guest.echo(payload), payload);
  assert.equal(guest.stats().queues[0]?.tx.drops, { reset: 1 });
});

test("a device that had missed a notification sends after the next one, and nothing is reset", (t) => {
  const guest = atRest(t);
  const { frames } = guest.peer;
  const before = frames.length;
  const { queue } = guest.nic.live("tx");
  stall(guest);
  // The doorbell that rang is forgotten: the device waits for another.
  queue.kicked = false;
  guest.nic.paused.tx = false;
  guest.until(() => frames.length > before, "the echo comes", { us: 15 * SECOND_US });
  guest.machine.violations.take(UNASKED);
  pass(guest, 60);
  assert.equal(warnings(guest), [NOTIFIED]);
  assert.equal(counts(guest), [0, 0]);
});

test("a device that is stuck for good is left in peace more and more", (t) => {
  const guest = atRest(t, { features: MQ_FEATURES });
  guest.nic.paused.tx = true;
  let resets = 0;
  for (let hour = 1; hour <= 4; hour++) {
    for (let minute = 0; minute < 60; minute++) {
      guest.nic.receive(guest.peer.echoRequest(payload));
      pass(guest, 60);
    }
    const now = guest.nic.pci.common.resets - 1;
    t.log(`hour ${hour}: ${now - resets} resets`);
    assert.ok(now - resets <= (hour === 1 ? 10 : 4), `${now - resets} resets in hour ${hour}`);
    resets = now;
  }
  assert.ok(resets >= 8, "it does not give up either");
  guest.nic.paused.tx = false;
  guest.machine.violations.take(UNASKED);
  guest.nic.machine.run(() => false, { us: SECOND_US });
  assert.is(guest.machine.ended, undefined);
});

test("a slow device, a packet every nine seconds, is not stuck", (t) => {
  const guest = atRest(t);
  guest.nic.paused.tx = true;
  for (let i = 0; i < 20; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.of(i)));
  guest.settle();
  const live = guest.nic.live("tx");
  for (let i = 0; i < 20; i++) {
    pass(guest, 6);
    live.ring.give(live.ring.take(), 0);
    guest.nic.publish(live);
  }
  pass(guest, 60);
  assert.equal([warnings(guest), counts(guest)], [[], [0, 0]]);
});

/** How often an idle guest, whose packets are all sent, wakes in an hour. */
function wakes(t: TestContext, options: { seconds?: number } = {}): number {
  const guest = atRest(t, options);
  assert.equal(guest.echo(payload), payload);
  pass(guest, 10);
  const { steps } = guest.machine.bootCpu;
  pass(guest, 3600);
  return guest.machine.bootCpu.steps - steps;
}

test("an idle guest whose packets are all sent is not woken by it", (t) => {
  const without = wakes(t, { seconds: 0 });
  // It looks once a second whether its NIC is still there (kernel/hotplug.ts).
  assert.ok(without <= 3601, `${without} wakes without the watchdog`);
  assert.is(wakes(t), without);
});

test("watchdog=0: as long as it takes", (t) => {
  const guest = atRest(t, { seconds: 0 });
  const { frames } = guest.peer;
  const before = frames.length;
  stall(guest);
  pass(guest, 3600);
  guest.nic.paused.tx = false;
  guest.until(() => frames.length > before, "the echo comes");
  assert.equal([warnings(guest), counts(guest)], [[], [0, 0]]);
});

for (const more of ["mode=poll", "mode=irq"]) {
  test(`${more}: it is watched as well`, (t) => {
    const guest = startGuest(t, {
      commandLine: `${STATIC_IP} watchdog=1 ${more}`,
      net: { features: WITH },
    });
    guest.nic.paused.tx = true;
    guest.nic.receive(guest.peer.echoRequest(payload));
    for (let i = 0; i < 40 && guest.nic.pci.common.resets === 1; i++) {
      for (let step = 0; step < 20; step++) guest.machine.step();
      guest.machine.clock.now += 0.1e9;
    }
    assert.equal(counts(guest), [0, 1]);
    guest.nic.paused.tx = false;
    guest.machine.violations.take(UNASKED);
    assert.equal(guest.echo(payload), payload);
  });
}

for (const features of [WITH, MQ_FEATURES]) {
  test(`a source in front of a stuck device, ${features.at(-1)}: it goes on after the reset`, (t) => {
    const more = "app=source dst=02:00:00:00:00:01 count=5000";
    const guest = startGuest(t, {
      commandLine: `${STATIC_IP} watchdog=1 ${more}`,
      net: { features },
    });
    guest.until(() => guest.peer.frames.length >= 1000, "it has sent 1000");
    guest.nic.paused.tx = true;
    const { common } = guest.nic.pci;
    guest.until(() => common.queueResets + common.resets === 2, "a reset", { us: 5e6 });
    guest.nic.paused.tx = false;
    guest.until(() => guest.machine.ended !== undefined, "it ends");
    guest.machine.violations.take(UNASKED);
    assert.is(guest.exitStatus(), 33);
    const stats = guest.machine.console.all("stats").at(-1) as unknown as Stats;
    const [queue] = stats.queues;
    assert.ok(queue !== undefined);
    const lost = (queue.tx.drops as { readonly reset?: number }).reset ?? 0;
    assert.ok(lost > 0 && lost <= 256, `${lost} lost`);
    assert.is(guest.peer.frames.length, queue.tx.packets - lost);
  });
}

test.run();
