// The apps on rings of several sizes, and across a reset of the device in the midst of their work.

import { assert, parseUdpFrame, suite } from "qemu-test-harness";
import { makeGuest, STATIC_IP, startGuest } from "../model/guest";

const test = suite("apps");

const SOURCE = `${STATIC_IP} app=source size=100`;
/** The source's frames among those that the guest sent. */
const ofSource = (frames: readonly Buffer[]) => frames.filter(({ length }) => length === 100);

for (const txSize of [2, 4, 16, 256, 1024]) {
  for (const burst of [1, 7, 64]) {
    test(`source: 500 frames in bursts of ${burst} through ${txSize} entries`, (t) => {
      const commandLine = `${SOURCE} count=500 burst=${burst}`;
      const guest = startGuest(t, { commandLine, net: { txSize } });
      guest.until(() => guest.machine.ended !== undefined, "it ends");
      const frames = ofSource(guest.peer.frames);
      assert.is(frames.length, 500);
      for (const frame of frames) assert.is(parseUdpFrame(frame)?.udp.destinationPort, 9);
      assert.is(guest.machine.console.find("stats")?.queues[0]?.tx.free, txSize);
      assert.is(guest.exitStatus(), 33);
    });
  }
}

for (const mode of ["adaptive", "poll", "irq"]) {
  test(`source: mode=${mode} sends all its frames`, (t) => {
    const guest = startGuest(t, { commandLine: `${SOURCE} count=500 mode=${mode}` });
    guest.until(() => guest.machine.ended !== undefined, "it ends");
    assert.is(ofSource(guest.peer.frames).length, 500);
  });
}

test("source: duration ends it, and every frame is a right one", (t) => {
  const guest = startGuest(t, { commandLine: `${SOURCE} duration=1 burst=1` });
  guest.machine.log.enabled = false;
  let frames = 0;
  guest.nic.sender.onTransmit = (frame) => {
    if (frame.length === 100) frames++;
  };
  // Time passes faster, so that a second is not a million frames.
  guest.machine.onAccess = () => guest.machine.clock.advance(2_000);
  guest.until(() => guest.machine.ended !== undefined, "it ends", { us: 3_000_000 });
  assert.ok(frames > 100, `${frames} frames`);
  assert.is(guest.exitStatus(), 33);
});

test("source: it goes on after a reset, and ends", (t) => {
  const guest = startGuest(t, { commandLine: `${SOURCE} count=5000` });
  guest.until(() => ofSource(guest.peer.frames).length > 1000, "a thousand frames");
  guest.nic.pci.needReset();
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.equal(guest.errors(), ["the device needs a reset"]);
  assert.ok(ofSource(guest.peer.frames).length > 4000);
  assert.is(guest.exitStatus(), 33);
});

test("source: a frame longer than the MTU allows is an error by name", (t) => {
  const guest = makeGuest(t, { commandLine: `${STATIC_IP} app=source size=1515` });
  guest.machine.boot();
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.match(guest.errors()[0] ?? "", /^size: more than the device's MTU/);
  assert.is(guest.exitStatus(), 35);
});

test("sink: it counts what it receives and answers nothing but ARP", (t) => {
  const guest = startGuest(t, { commandLine: `${STATIC_IP} app=sink` });
  guest.settle();
  const before = guest.peer.frames.length;
  for (let i = 0; i < 5000; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.of(1)));
  guest.settle();
  assert.is(guest.stats().queues[0]?.rx.packets, 5000);
  assert.is(guest.peer.frames.length, before);
  guest.nic.receive(guest.peer.arpRequest());
  guest.settle();
  assert.is(guest.peer.frames.length, before + 1);
});

test("idle: it takes packets and sends nothing", (t) => {
  const guest = startGuest(t, { commandLine: "app=idle" });
  for (let i = 0; i < 5000; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.of(1)));
  guest.settle();
  assert.is(guest.stats().queues[0]?.rx.packets, 5000);
  assert.is(guest.peer.frames.length, 0);
});

for (const app of ["echo", "sink", "idle"]) {
  test(`${app}: a reset at any moment leaks no packet`, (t) => {
    const guest = startGuest(t, { commandLine: `${STATIC_IP} app=${app}` });
    guest.settle();
    const before = guest.stats().queues[0]?.pool_free;
    for (let round = 0; round < 30; round++) {
      for (let i = 0; i < 300; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.of(i)));
      guest.machine.run(() => false, { steps: round });
      guest.nic.pci.needReset();
      guest.settle();
    }
    guest.errors();
    assert.is(guest.stats().queues[0]?.pool_free, before);
    assert.is(guest.stats().recoveries, 30);
  });
}

test.run();
