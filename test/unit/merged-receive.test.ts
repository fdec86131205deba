// Frames over several buffers (MRG_RXBUF), echoed whole, by chain and by indirect table; frames of
// all sizes with every MTU; and the same without merging. virtio 1.4 §5.1.9.4

import { assert, suite, type TestContext } from "qemu-test-harness";
import { type Guest, startGuest } from "../model/guest";
import { type NetOptions, USUAL_FEATURES } from "../model/net/net-device";
import { UDP_FRAME_HEADERS } from "../model/net/peer";
import { FORMATS, prefixOf, SPLIT, without } from "./ring-formats";

const test = suite("receive");

/** Bytes that differ from place to place, and from frame to frame. */
function pattern(bytes: number): Buffer {
  return Buffer.from(Array.from({ length: bytes }, (_, i) => (i * 7 + (i >> 8) + bytes) & 0xff));
}

/** Sends frames of these lengths, Ethernet header included, and checks each echo. */
function echoFrames(guest: Guest, lengths: readonly number[]): void {
  guest.settle();
  for (const length of lengths) {
    const payload = pattern(length - UDP_FRAME_HEADERS);
    assert.ok(guest.echo(payload).equals(payload), `a frame of ${length} bytes comes back whole`);
  }
  assert.is(guest.nic.receiver.dropped, 0);
}

/** A guest whose merge buffers hold about a page, and frames up to 9014 bytes. */
function jumbo(t: TestContext, net: Partial<NetOptions> = {}): Guest {
  return startGuest(t, { net: { mtu: 9000, ...net } });
}

for (const format of FORMATS) {
  const at = prefixOf(format);

  for (const buffers of [2, 3]) {
    test(`${at}a frame over ${buffers} buffers is echoed whole`, (t) => {
      const guest = jumbo(t, { features: format.features });
      guest.settle();
      const before = guest.nic.receiver.buffers;
      echoFrames(guest, [buffers === 2 ? 5000 : 9000]);
      assert.is(guest.nic.receiver.buffers - before, buffers);
    });
  }

  for (const segments of [2, 3]) {
    test(`${at}an answer of ${segments} pieces is one chain without indirect tables`, (t) => {
      const guest = jumbo(t, { features: without(format, "indirect_desc") });
      echoFrames(guest, [segments === 2 ? 5000 : 9000]);
      assert.is(guest.nic.sender.lastSegments, segments);
      assert.is(guest.nic.sender.lastDescriptors, segments);
    });
  }

  test(`${at}an answer of three pieces takes one descriptor with an indirect table`, (t) => {
    const guest = jumbo(t, { features: format.features });
    echoFrames(guest, [9000]);
    assert.is(guest.nic.sender.lastSegments, 3);
    assert.is(guest.nic.sender.lastDescriptors, 1);
  });

  for (const buffers of [4, 5, 6, 7, 8, 16]) {
    for (const indirect of [true, false]) {
      const how = indirect ? "with" : "without";
      test(`${at}a frame that the device spreads over ${buffers} buffers, ${how} indirect`, (t) => {
        const features = indirect ? format.features : without(format, "indirect_desc");
        const guest = jumbo(t, { features });
        guest.nic.receiver.spread = 500;
        guest.settle();
        const before = guest.nic.receiver.buffers;
        echoFrames(guest, [500 * buffers - 13]);
        assert.is(guest.nic.receiver.buffers - before, buffers);
        assert.is(guest.nic.sender.lastSegments, buffers);
      });
    }
  }

  for (const eventIdx of [true, false]) {
    const how = eventIdx ? "with" : "without";
    test(`${at}an answer of more than 18 pieces is dropped and counted, ${how} event_idx`, (t) => {
      const features = eventIdx ? format.features : without(format, "event_idx");
      const guest = jumbo(t, { features });
      guest.nic.receiver.spread = 450;
      guest.settle();
      guest.nic.receive(guest.peer.echoRequest(pattern(8900)));
      guest.settle();
      const stats = guest.stats();
      assert.equal(stats.queues[0]?.tx.drops, { too_long: 1 });
      echoFrames(guest, [1000]);
    });
  }

  test(`${at}an indirect table has no more entries than the ring (§2.7.5.3.1)`, (t) => {
    const guest = jumbo(t, { features: format.features, txSize: 8 });
    guest.nic.receiver.spread = 500;
    guest.settle();
    guest.nic.receive(guest.peer.echoRequest(pattern(4900)));
    guest.settle();
    assert.equal(guest.machine.violations.list, []);
  });

  test(`${at}many merged frames in small rings: every one comes back, nothing leaks`, (t) => {
    const guest = jumbo(t, { features: format.features, rxSize: 16, txSize: 16 });
    guest.settle();
    const before = guest.stats();
    echoFrames(
      guest,
      Array.from({ length: 500 }, (_, i) => 60 + ((i * 37) % 8950)),
    );
    guest.settle();
    const after = guest.stats();
    assert.is(after.queues[0]?.pool_free, before.queues[0]?.pool_free);
    assert.is(after.queues[0]?.tx.free, before.queues[0]?.tx.free);
  });

  test(`${at}a frame waits until there are buffers enough for all of it`, (t) => {
    const guest = jumbo(t, { features: format.features, rxSize: 4, txSize: 4 });
    guest.settle();
    const before = guest.peer.frames.length;
    const frames = Array.from({ length: 40 }, () => guest.peer.echoRequest(pattern(8000)));
    for (const frame of frames) guest.nic.receive(frame);
    guest.until(() => guest.peer.frames.length === before + frames.length, "all come back");
  });
}

for (const mtu of [1280, 1500, 2000, 4096, 9000]) {
  for (const mergeable of [true, false]) {
    const features = mergeable ? USUAL_FEATURES : without(SPLIT, "mrg_rxbuf");
    const how = mergeable ? "with" : "without";
    test(`MTU ${mtu} ${how} mrg_rxbuf: frames from 60 bytes to the longest`, (t) => {
      const guest = startGuest(t, { memoryMib: 64, net: { mtu, features } });
      assert.is(guest.machine.console.find("ready")?.mtu, mtu);
      const longest = mtu + 14;
      const steps = [60, 61, 64, 127, 128, 590, 1000, 1280, longest - 1, longest];
      echoFrames(
        guest,
        steps.filter((length) => length <= longest),
      );
    });
  }
}

test("every frame length from 60 to 1514 comes back whole", (t) => {
  const guest = startGuest(t);
  guest.machine.log.enabled = false;
  echoFrames(
    guest,
    Array.from({ length: 1455 }, (_, i) => 60 + i),
  );
});

test("without mrg_rxbuf num_buffers is ignored", (t) => {
  const guest = startGuest(t, { net: { features: without(SPLIT, "mrg_rxbuf") } });
  guest.nic.receiver.tamper = (header) => {
    header.writeUInt16LE(0x5555, 10);
  };
  echoFrames(guest, [60, 1514]);
});

test("header flags and sizes that were not negotiated change nothing", (t) => {
  const guest = startGuest(t);
  guest.nic.receiver.tamper = (header) => {
    header.fill(0xff, 0, 10);
  };
  echoFrames(guest, [60, 1514]);
});

test("a frame longer than the MTU allows is dropped and counted", (t) => {
  const guest = startGuest(t);
  guest.settle();
  guest.nic.receive(guest.peer.echoRequest(pattern(1600)));
  guest.settle();
  assert.equal(guest.stats().queues[0]?.rx.drops, { too_long: 1 });
  echoFrames(guest, [100]);
});

test.run();
