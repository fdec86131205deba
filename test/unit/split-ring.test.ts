// The split ring under load, through the echo app so that both directions carry every packet: the
// index wraps of 16 bits, ring sizes, bursts beyond the ring, what is free afterwards.

import { assert, suite, type TestContext } from "qemu-test-harness";
import { type Guest, startGuest } from "../model/guest";
import { USUAL_FEATURES } from "../model/net/net-device";
import { UDP_FRAME_HEADERS } from "../model/net/peer";

const test = suite("split ring", { timeoutMs: 60_000 });

/** Three times round the 16-bit indices. */
const PACKETS = 3 * 65_536;
const NUMBER_OFFSET = UDP_FRAME_HEADERS;
const UDP_CHECKSUM = UDP_FRAME_HEADERS - 2;

/** Sends numbered datagrams in bursts and checks each echo as it comes: in order, none lost. */
function exchange(guest: Guest, count: number, burst: number): void {
  const { nic } = guest;
  const template = guest.peer.echoRequest(Buffer.alloc(18));
  // Without a checksum the number can change from packet to packet.
  template.writeUInt16BE(0, UDP_CHECKSUM);
  let received = 0;
  let wrong = "";
  nic.sender.onTransmit = (frame) => {
    if (frame.readUInt16BE(12) !== 0x0800) return;
    const number = frame.readUInt32BE(NUMBER_OFFSET);
    if (number !== received && wrong === "") wrong = `packet ${number} comes as number ${received}`;
    if (frame.length !== template.length && wrong === "") wrong = `${frame.length} bytes`;
    received++;
  };
  for (let sent = 0; sent < count; ) {
    for (const end = Math.min(sent + burst, count); sent < end; sent++) {
      const frame = Buffer.from(template);
      frame.writeUInt32BE(sent, NUMBER_OFFSET);
      nic.receive(frame);
    }
    guest.until(() => received >= sent || wrong !== "", `packet ${sent} comes back`);
    assert.is(wrong, "");
  }
  guest.settle();
  assert.is(received, count);
}

/** What must be as it was when nothing has leaked. */
function free(guest: Guest) {
  guest.settle();
  const queue = guest.stats().queues[0];
  return { rx: queue?.rx.free, tx: queue?.tx.free, pool: queue?.pool_free };
}

function endurance(t: TestContext, size: number, eventIdx: boolean): void {
  const features = USUAL_FEATURES.filter((name) => eventIdx || name !== "event_idx");
  const guest = startGuest(t, { net: { rxSize: size, txSize: size, features } });
  guest.machine.log.enabled = false;
  const before = free(guest);
  exchange(guest, PACKETS, 3 * size + 1);
  assert.equal(free(guest), before);
  const stats = guest.stats().queues[0];
  assert.ok((stats?.rx.packets ?? 0) >= PACKETS);
  assert.equal(stats?.rx.drops, {});
  assert.equal(stats?.tx.drops, {});
}

for (const size of [16, 256, 1024]) {
  for (const eventIdx of [true, false]) {
    const ring = `${size} entries, event_idx ${eventIdx ? "on" : "off"}`;
    test(`${PACKETS} packets each way, ${ring}: nothing lost, nothing leaked`, (t) => {
      endurance(t, size, eventIdx);
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
  const guest = startGuest(t, { net: { rxSize: 16, txSize: 16 } });
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
