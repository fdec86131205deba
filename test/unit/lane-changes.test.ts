// Lanes that are paused, that are blocked, and that begin anew: nothing is answered late, lost or
// sent twice for it, and nobody spins. virtio 1.4 §5.1.9.5.6

import { assert, parseUdpFrame, suite } from "qemu-test-harness";
import type { ModelStats } from "../model/guest";
import { STATIC_IP, startGuest } from "../model/guest";
import { MQ_FEATURES } from "../model/net/net-device";
import { PEER_PORT } from "../model/net/peer";
import { options, start, traffic } from "./lanes";

const test = suite("lane changes", { timeoutMs: 30_000 });

const SOURCE = `${STATIC_IP} app=source size=100`;
const ofSource = (frames: readonly Buffer[]) => frames.filter(({ length }) => length === 100);

test("what had come in before its lane was paused is answered on the lane's own queue", (t) => {
  const guest = start(t, { cpus: 2, pairs: 2 });
  const { frames } = guest.peer;
  traffic(guest, 1, 4);
  guest.settle();
  const before = frames.length;
  const { queue } = guest.nic.live("tx", 1);
  guest.nic.steer = () => 1;
  for (let i = 0; i < 150; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.of(i)));
  // They are in the ring of lane 1, which has not looked yet.
  for (let i = 0; i < 5; i++) guest.nic.turn();
  guest.nic.steer = undefined;
  const { usedIdx } = guest.nic.live("rx", 1).ring;
  guest.machine.console.type("queues 1");
  guest.until(() => guest.nic.active === 1, "one pair is left");
  guest.settle();
  t.log(`${usedIdx} buffers were used, ${frames.length - before} answers came`);
  assert.is(frames.length - before, 150);
  assert.ok(queue.kicks > 0);
});

for (const [from, to] of [
  [4, 1],
  [4, 3],
  [2, 1],
] as const) {
  test(`source: from ${from} lanes to ${to}, all that count= says is sent`, (t) => {
    const commandLine = `${SOURCE} count=20000 burst=8`;
    const guest = startGuest(t, options({ cpus: from, pairs: from, commandLine }));
    const { frames } = guest.peer;
    guest.until(() => ofSource(frames).length > 2000, "a part of them");
    guest.machine.console.type(`queues ${to}`);
    guest.until(() => guest.machine.ended !== undefined, "it ends");
    assert.is(guest.exitStatus(), 33);
    assert.is(guest.nic.active, to);
    assert.is(ofSource(frames).length, 20_000);
  });
}

test("source: lanes down and up again, and not a frame too many", (t) => {
  const commandLine = `${SOURCE} count=40000 burst=8`;
  const guest = startGuest(t, options({ cpus: 4, pairs: 4, commandLine }));
  const { frames } = guest.peer;
  for (const [sent, lanes] of [
    [2000, 1],
    [6000, 4],
    [9000, 2],
  ] as const) {
    guest.until(() => ofSource(frames).length > sent, `${sent} of them`);
    guest.machine.console.type(`queues ${lanes}`);
  }
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.is(ofSource(frames).length, 40_000);
});

test("source: queues refused: each lane keeps its share", (t) => {
  const commandLine = `${SOURCE} count=20000 burst=8`;
  const guest = startGuest(t, options({ cpus: 4, pairs: 4, commandLine }));
  const { frames } = guest.peer;
  guest.until(() => ofSource(frames).length > 2000, "a part of them");
  guest.nic.control.refuses = () => true;
  guest.machine.console.type("queues 1");
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  const { queues } = guest.machine.console.all("stats").at(-1) as unknown as ModelStats;
  assert.is(ofSource(frames).length, 20_000);
  assert.ok(queues.every(({ tx }) => tx.packets >= 5000));
});

test("source: after a reset each lane builds its frames anew, from packets of its own", (t) => {
  // Without that a packet would be in the pool and in a lane's hand at the same time.
  const commandLine = `${SOURCE} count=60000`;
  const guest = startGuest(t, options({ cpus: 2, pairs: 2, commandLine }));
  const { frames } = guest.peer;
  guest.machine.log.enabled = false;
  guest.until(() => ofSource(frames).length > 2000, "some frames");
  // Some packets come back and are held, some are in the ring, when the reset comes.
  for (let i = 0; i < 5; i++) {
    guest.nic.pci.needReset();
    const before = frames.length;
    guest.until(() => frames.length > before + 3000, "some more");
    // A packet taken from the pool twice shows when both queues of a lane have it.
    guest.nic.steer = (frame) => frame.readUInt8(frame.length - 1) & 1;
    for (let j = 0; j < 300; j++) {
      guest.nic.receive(guest.peer.echoRequest(Buffer.of(j & 1), 9, PEER_PORT + j));
    }
  }
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.is(guest.errors().length, 5);
  for (const frame of ofSource(frames)) assert.is(parseUdpFrame(frame)?.udp.destinationPort, 9);
  const { queues } = guest.machine.console.all("stats").at(-1) as unknown as ModelStats;
  for (const { rx, tx, pool_free } of queues) {
    assert.equal([tx.free, rx.free, pool_free], [256, 0, 384]);
  }
});

for (const features of [MQ_FEATURES, MQ_FEATURES.filter((name) => name !== "event_idx")]) {
  for (const txSize of [16, 256]) {
    const how = features.includes("event_idx") ? "event_idx" : "flags";

    test(`echo with a full ring of ${txSize} sleeps, and wakes when there is room, ${how}`, (t) => {
      const guest = startGuest(t, { net: { features, txSize } });
      const { frames } = guest.peer;
      guest.settle();
      const before = frames.length;
      guest.nic.paused.tx = true;
      for (let i = 0; i < 600; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.of(i & 255)));
      guest.settle();
      const { steps } = guest.machine.bootCpu;
      guest.machine.run(() => false, { us: 1_000_000 });
      const woken = guest.machine.bootCpu.steps - steps;
      assert.ok(woken <= 5, `${woken} steps in a second with nothing to do`);
      guest.nic.paused.tx = false;
      guest.until(() => frames.length === before + 600, "all of them come back");
      assert.is(guest.stats().recoveries, 0);
    });
  }
}

test.run();
