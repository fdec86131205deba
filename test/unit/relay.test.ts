// app=forward's short way: frames go from ring to ring and buffers come back, without a burst between
// (Ring.relay, Ring.giveTo). What is written then and what is not; and what may not take that way.

import { assert, suite, sumDrops, type TestContext } from "qemu-test-harness";
import { type Guest, startGuest } from "../model/guest";
import type { NetOptions } from "../model/net/net-device";
import { FORMATS, PACKED, prefixOf, SPLIT, without } from "./ring-formats";
import { driverBytes, overtake, watchTwice } from "./ring-watch";

const test = suite("relay");

const SIZE = 64;
const HEADER_BYTES = 12;

/** Frames between 60 and 199 bytes, numbered. */
function frameOf(number: number, bytes = 60 + (number % 140)): Buffer {
  const frame = Buffer.alloc(Math.max(bytes, 18), number & 0xff);
  frame.write("525400aaaa01525400bbbb0288b5", 0, "hex");
  frame.writeUInt32BE(number, 14);
  return frame.subarray(0, bytes);
}

function start(t: TestContext, a: Partial<NetOptions>, b: Partial<NetOptions> = a): Guest {
  const guest = startGuest(t, { commandLine: "app=forward", memoryMib: 64, net: a, more: [b] });
  guest.machine.log.enabled = false;
  guest.settle();
  return guest;
}

/** Sends frames in bursts and checks that all of them come out, in order, unchanged. */
function pass(guest: Guest, from: number, to: number, burst: number, bytes?: number): void {
  const { frames: out } = guest.peerAt(1);
  for (let number = from; number < to; number += burst) {
    out.splice(0);
    const frames = Array.from({ length: Math.min(burst, to - number) }, (_, i) =>
      frameOf(number + i, bytes),
    );
    for (const frame of frames) guest.nicAt(0).receive(frame);
    guest.settle();
    assert.equal(out, frames);
  }
}

const free = (guest: Guest) => guest.stats().queues[0]?.pool_free;

for (const format of FORMATS) {
  const at = prefixOf(format);
  const plain = { rxSize: SIZE, txSize: SIZE, features: without(format, "mrg_rxbuf") };

  test(`${at}every burst size: all frames come out, no buffer is in a ring twice, none is lost`, (t) => {
    const guest = start(t, plain);
    const before = free(guest);
    const watches = [
      watchTwice(guest.nicAt(0).live("rx").ring),
      watchTwice(guest.nicAt(1).live("tx").ring),
    ];
    for (const burst of [1, 7, 31, 32, 33, SIZE]) pass(guest, 0, 500, burst);
    assert.equal(free(guest), before);
    for (const { seen } of watches) assert.ok(seen >= 3000);
  });

  test(`${at}what the device wrote into the header is not sent on`, (t) => {
    const guest = start(t, plain);
    const { sender } = guest.nicAt(1);
    let headers = 0;
    sender.onTransmit = () => {
      headers++;
      const { flags, gsoType, gsoSize, csumStart, csumOffset, numBuffers } = sender.lastHeader;
      assert.equal(
        [flags, gsoType, gsoSize, csumStart, csumOffset, numBuffers],
        [0, 0, 0, 0, 0, 0],
      );
    };
    for (let i = 0; i < 3 * SIZE; i++) {
      guest.nicAt(0).receive(frameOf(i), { flags: 0, hdrLen: 77, gsoSize: 1000, csumOffset: 9 });
      guest.settle();
    }
    assert.is(headers, 3 * SIZE);
  });

  test(`${at}lengths that no frame has: dropped and counted, and the rest goes on`, (t) => {
    const guest = start(t, plain);
    const before = free(guest);
    const { ring } = guest.nicAt(0).live("rx");
    const give = ring.give.bind(ring);
    const lies = new Map([
      [10, 0],
      [20, HEADER_BYTES - 1],
      [30, HEADER_BYTES + 13],
      [40, 65_000],
      [50, 0xffff_ffff],
    ]);
    let given = 0;
    ring.give = (chain, bytes) => give(chain, lies.get(given++ % 100) ?? bytes);
    for (let i = 0; i < 300; i += 30) {
      for (let n = i; n < i + 30; n++) guest.nicAt(0).receive(frameOf(n));
      guest.settle();
    }
    const { used_length = 0, too_short = 0 } = sumDrops(guest.stats(0), "rx");
    assert.equal([used_length, too_short], [12, 3]);
    assert.is(guest.stats(1).queues[0]?.tx.packets, 285);
    assert.is(free(guest), before);
  });

  test(`${at}the other side's MTU holds`, (t) => {
    const guest = start(t, { ...plain, mtu: 9000 }, { ...plain, mtu: 1500 });
    const out = guest.peerAt(1).frames;
    for (const bytes of [1514, 1515, 9014]) guest.nicAt(0).receive(frameOf(1, bytes));
    guest.settle();
    assert.equal(out, [frameOf(1, 1514)]);
    assert.equal(sumDrops(guest.stats(1), "tx"), { too_long: 2 });
  });

  test(`${at}a side that stands still and goes on: nothing has leaked, all goes on`, (t) => {
    const guest = start(t, plain);
    const before = free(guest);
    guest.nicAt(1).paused.tx = true;
    for (let i = 0; i < 5 * SIZE; i += 16) {
      for (let n = i; n < i + 16; n++) guest.nicAt(0).receive(frameOf(n));
      guest.settle();
    }
    assert.ok((sumDrops(guest.stats(0), "rx").forward_full ?? 0) >= 3 * SIZE);
    guest.nicAt(1).paused.tx = false;
    guest.settle();
    pass(guest, 0, 500, 32);
    assert.is(free(guest), before);
  });

  for (const [nic, queue] of [
    [0, "rx"],
    [1, "tx"],
  ] as const) {
    if (format.inOrder) continue;
    test(`${at}a device that overtakes, ${queue}: all frames come out all the same`, (t) => {
      const guest = start(t, plain);
      const before = free(guest);
      const { ring } = guest.nicAt(nic).live(queue);
      const watch = watchTwice(ring);
      overtake(ring, (turn) => turn % 5 === 3);
      const missing = new Set<number>();
      guest.nicAt(1).sender.onTransmit = (frame) => {
        const number = frame.readUInt32BE(14);
        assert.ok(missing.delete(number), "it was received, and is sent once");
        assert.equal(frame, frameOf(number));
      };
      for (let number = 0; number < 1000; ) {
        for (const end = number + 25; number < end; number++) {
          missing.add(number);
          guest.nicAt(0).receive(frameOf(number));
        }
        guest.settle();
        assert.is(missing.size, 0);
      }
      assert.ok(watch.seen >= 1000);
      assert.is(free(guest), before);
    });
  }
}

test("split: both rings are written once, and then only their indices", (t) => {
  const features = without(SPLIT, "mrg_rxbuf");
  const guest = start(t, { rxSize: SIZE, txSize: SIZE, features });
  const written = () =>
    [guest.nicAt(0).live("rx"), guest.nicAt(1).live("tx")].map(({ queue }) =>
      driverBytes(guest.machine, queue),
    );
  pass(guest, 0, 2 * SIZE, 16, 100);
  const before = written();
  pass(guest, 0, 9 * SIZE, 16, 100);
  assert.equal(written(), before);
  // One that is dropped moves those behind it by a place; a lap later all is still again.
  guest.nicAt(0).receive(frameOf(1, 13));
  guest.settle();
  pass(guest, 0, 3 * SIZE, 16, 100);
  const after = written();
  assert.not.equal(after, before);
  pass(guest, 0, 9 * SIZE, 16, 100);
  assert.equal(written(), after);
});

test("one side with a split ring, the other with a packed one: all frames come out", (t) => {
  const options = { rxSize: SIZE, txSize: SIZE };
  const [a, b] = [SPLIT, PACKED].map((format) => ({
    ...options,
    features: without(format, "mrg_rxbuf"),
  }));
  const guest = start(t, a ?? {}, b);
  const before = free(guest);
  pass(guest, 0, 1000, 20);
  assert.is(free(guest), before);
});

test("rings of different sizes: all frames come out", (t) => {
  const features = without(SPLIT, "mrg_rxbuf");
  for (const [rxSize, txSize] of [
    [256, 32],
    [32, 256],
  ] as const) {
    const guest = start(t, { rxSize, txSize, features });
    const before = free(guest);
    pass(guest, 0, 2000, 24);
    assert.is(free(guest), before);
  }
});

test.run();
