// The split ring under load, through the echo app so that both directions carry every packet: the
// index wraps of 16 bits, ring sizes, bursts beyond the ring, what is free afterwards.

import { assert, suite } from "qemu-test-harness";
import { STATIC_IP, startGuest } from "../model/guest";
import { USUAL_FEATURES } from "../model/net/net-device";
import { endurance, exchange, PACKETS } from "./ring-load";

const test = suite("split ring", { timeoutMs: 60_000 });

for (const size of [16, 256, 1024]) {
  for (const eventIdx of [true, false]) {
    const ring = `${size} entries, event_idx ${eventIdx ? "on" : "off"}`;
    test(`${PACKETS} packets each way, ${ring}: nothing lost, nothing leaked`, (t) => {
      const features = USUAL_FEATURES.filter((name) => eventIdx || name !== "event_idx");
      endurance(t, { rxSize: size, txSize: size, features });
    });
  }
}

for (const size of [2, 4, 8, 4096]) {
  test(`a ring of ${size} entries works`, (t) => {
    const guest = startGuest(t, { net: { rxSize: size, txSize: size } });
    exchange(guest, 500, 50);
  });
}

test("a size that is no power of two is rounded down", (t) => {
  const guest = startGuest(t, { net: { rxSize: 300, txSize: 1000 } });
  assert.is(guest.nic.rx?.queue.size, 256);
  assert.is(guest.nic.tx?.queue.size, 512);
  exchange(guest, 2000, 700);
});

test("a burst of ten rings' worth arrives whole when the device publishes one by one", (t) => {
  const guest = startGuest(t, { net: { rxSize: 64, txSize: 64, batch: 1 } });
  exchange(guest, 640, 640);
});

test("while the transmit side stands still nothing is lost, and afterwards all goes on", (t) => {
  // Longer than the watchdog would stand by.
  const commandLine = `${STATIC_IP} watchdog=0`;
  const guest = startGuest(t, { commandLine, net: { rxSize: 16, txSize: 16 } });
  guest.settle();
  const before = guest.peer.frames.length;
  guest.nic.paused.tx = true;
  for (let i = 0; i < 100; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.of(i)));
  guest.machine.run(() => false, { steps: 500 });
  assert.is(guest.peer.frames.length, before);
  guest.nic.paused.tx = false;
  guest.until(() => guest.peer.frames.length === before + 100, "all echoes");
});

test("a device that polls and wants no notification is served all the same", (t) => {
  const guest = startGuest(t, { net: { polls: true } });
  guest.machine.log.enabled = false;
  exchange(guest, 70_000, 200);
  const kicks = guest.nic.pci.common.queues.map((queue) => queue.kicks);
  assert.ok(
    kicks.every((count) => count <= 3),
    `kicks: ${kicks}`,
  );
});

test.run();
