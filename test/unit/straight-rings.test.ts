// Rings whose buffers come back in the order in which they were offered, and what is not written in
// them then; and devices that overtake, once or all the time, early or late: nothing is lost, no
// buffer is in a ring twice, and all is free at the end.

import { assert, parseUdpFrame, suite } from "qemu-test-harness";
import { type Guest, STATIC_IP, startGuest } from "../model/guest";
import { UDP_FRAME_HEADERS } from "../model/net/peer";
import { FORMATS, PACKED, prefixOf, SPLIT, without } from "./ring-formats";
import { free } from "./ring-load";
import { driverBytes, keepBack, overtake, watchTwice } from "./ring-watch";

const test = suite("straight rings");

const SIZE = 64;
const SOURCE = `${STATIC_IP} app=source size=100`;
const UDP_CHECKSUM = UDP_FRAME_HEADERS - 2;

/** Numbered datagrams in bursts, echoed in any order; each must come back once. */
function echoAll(guest: Guest, from: number, to: number, burst: number): void {
  const template = guest.peer.echoRequest(Buffer.alloc(18));
  // Without a checksum the number can change from packet to packet.
  template.writeUInt16BE(0, UDP_CHECKSUM);
  const missing = new Set<number>();
  guest.nic.sender.onTransmit = (frame) => {
    if (frame.readUInt16BE(12) !== 0x0800) return;
    assert.ok(missing.delete(frame.readUInt32BE(UDP_FRAME_HEADERS)), "it was sent, and once");
  };
  for (let number = from; number < to; ) {
    for (const end = Math.min(number + burst, to); number < end; number++) {
      const frame = Buffer.from(template);
      frame.writeUInt32BE(number, UDP_FRAME_HEADERS);
      missing.add(number);
      guest.nic.receive(frame);
    }
    guest.until(() => missing.size === 0, `all up to ${number} come back`);
  }
  guest.settle();
}

const WHENS: readonly { readonly name: string; readonly when: (turn: number) => boolean }[] = [
  { name: "always", when: () => true },
  { name: "once, in the first lap", when: (turn) => turn === 1 },
  { name: "once, later", when: (turn) => turn === 20 },
  { name: "now and then", when: (turn) => turn % 7 === 6 },
];

for (const format of [SPLIT, PACKED]) {
  for (const queue of ["rx", "tx"] as const) {
    for (const { name, when } of WHENS) {
      test(`${prefixOf(format)}a device that overtakes ${name}, ${queue}: echo loses nothing`, (t) => {
        const net = { rxSize: SIZE, txSize: SIZE, features: format.features };
        const guest = startGuest(t, { net });
        const before = free(guest);
        const { ring } = guest.nic.live(queue);
        const watch = watchTwice(ring);
        overtake(ring, when);
        echoAll(guest, 0, 3000, SIZE - 1);
        assert.equal(free(guest), before);
        assert.ok(watch.seen >= 3000);
      });
    }
  }

  for (const { name, when } of WHENS) {
    test(`${prefixOf(format)}a device that overtakes ${name}: a source sends its count`, (t) => {
      const net = { rxSize: SIZE, txSize: SIZE, features: format.features };
      const guest = startGuest(t, { commandLine: `${SOURCE} count=3000`, net });
      const { ring } = guest.nic.live("tx");
      watchTwice(ring);
      overtake(ring, when);
      guest.until(() => guest.machine.ended !== undefined, "it ends");
      assert.is(guest.peer.frames.filter(({ length }) => length === 100).length, 3000);
      const stats = guest.machine.console.find("stats")?.queues[0];
      assert.equal([stats?.tx.free, stats?.rx.free], [SIZE, 0]);
      assert.is(guest.exitStatus(), 33);
    });

    test(`${prefixOf(format)}a device that overtakes ${name}: a sink counts all`, (t) => {
      const features = without(format, "mrg_rxbuf");
      const net = { rxSize: SIZE, txSize: SIZE, features };
      const guest = startGuest(t, { commandLine: "app=sink", net });
      const before = free(guest);
      const { ring } = guest.nic.live("rx");
      watchTwice(ring);
      overtake(ring, when);
      for (let i = 0; i < 3000; i++) guest.nic.receive(Buffer.alloc(60 + (i % 9), 0xff));
      guest.until(() => guest.nic.receiver.frames === 3000, "all are delivered");
      assert.equal(free(guest), before);
      const { packets, bytes } = guest.stats().queues[0]?.rx ?? {};
      const sum = Array.from({ length: 3000 }, (_, i) => 60 + (i % 9)).reduce((a, b) => a + b, 0);
      assert.equal([packets, bytes], [3000, sum]);
    });
  }
}

for (const format of [SPLIT, PACKED]) {
  test(`${prefixOf(format)}a device that keeps a buffer back: a sink offers none that it has`, (t) => {
    const features = without(format, "mrg_rxbuf");
    const net = { rxSize: SIZE, txSize: SIZE, features };
    const guest = startGuest(t, { commandLine: "app=sink", net });
    const { ring } = guest.nic.live("rx");
    const watch = watchTwice(ring);
    keepBack(ring, 20);
    for (let i = 0; i < 3000; i++) guest.nic.receive(Buffer.alloc(60, 0xff));
    guest.until(() => watch.seen >= 3000, "all are received");
  });
}

/** virtio 1.4 §2.8.4: of a used descriptor the address is the device's to write. */
function overwriteAddresses(guest: Guest, name: "rx" | "tx"): void {
  const { packed, queue, ring } = guest.nic.live(name);
  const { arena } = guest.machine.bootCpu;
  const give = ring.give.bind(ring);
  ring.give = (chain, bytes) => {
    const { slot } = packed.used;
    give(chain, bytes);
    arena.view.setBigUint64(queue.desc - arena.base + 16 * slot, 0n);
  };
}

for (const features of [PACKED.features, without(PACKED, "mrg_rxbuf")]) {
  const merged = features.includes("mrg_rxbuf") ? "merged buffers" : "plain";
  test(`packed: sink, ${merged}: an address that the device has written over is there again`, (t) => {
    const net = { rxSize: SIZE, txSize: SIZE, features };
    const guest = startGuest(t, { commandLine: "app=sink", net });
    const watch = watchTwice(guest.nic.live("rx").ring);
    overwriteAddresses(guest, "rx");
    for (let i = 0; i < 1000; i++) guest.nic.receive(Buffer.alloc(60, 0xff));
    guest.until(() => watch.seen >= 1000, "all are received");
  });
}

test("packed: source: an address that the device has written over is there again", (t) => {
  const net = { rxSize: SIZE, txSize: SIZE, features: PACKED.features };
  const guest = startGuest(t, { commandLine: `${SOURCE} count=3000`, net });
  watchTwice(guest.nic.live("tx").ring);
  overwriteAddresses(guest, "tx");
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.is(guest.peer.frames.filter(({ length }) => length === 100).length, 3000);
});

for (const format of FORMATS) {
  const at = prefixOf(format);

  for (const burst of [64, 8]) {
    test(`${at}source, burst=${burst}: whoever else sends, no buffer is in the ring twice`, (t) => {
      const net = { rxSize: SIZE, txSize: SIZE, features: format.features };
      const guest = startGuest(t, { commandLine: `${SOURCE} count=20000 burst=${burst}`, net });
      const watch = watchTwice(guest.nic.live("tx").ring);
      let frames = 0;
      let answers = 0;
      guest.nic.sender.onTransmit = (frame) => {
        if (frame.length !== 100) {
          answers++;
          return;
        }
        frames++;
        assert.is(parseUdpFrame(frame)?.udp.destinationPort, 9);
        // `stats` takes packets that were sent away from the source, an ARP request makes another one.
        if (frames % 1501 === 0) guest.machine.console.type("stats");
        if (frames % 1777 === 0) guest.nic.receive(guest.peer.arpRequest());
        if (frames % 4999 === 0) {
          guest.machine.console.type("stats");
          guest.nic.receive(guest.peer.arpRequest());
        }
      };
      guest.until(() => guest.machine.ended !== undefined, "it ends");
      assert.is(frames, 20_000);
      assert.ok(answers >= 10, `${answers} answers`);
      assert.ok(watch.seen >= 20_000);
      assert.is(guest.machine.console.all("stats").at(-1)?.queues !== undefined, true);
      assert.is(guest.exitStatus(), 33);
    });
  }

  for (const features of [format.features, without(format, "mrg_rxbuf")]) {
    const merged = features.includes("mrg_rxbuf") ? "merged buffers" : "plain";
    test(`${at}sink, ${merged}: lengths that cannot be are drops, and their buffers go back`, (t) => {
      const net = { rxSize: SIZE, txSize: SIZE, features };
      const guest = startGuest(t, { commandLine: "app=sink", net });
      const before = free(guest);
      const { ring } = guest.nic.live("rx");
      watchTwice(ring);
      const give = ring.give.bind(ring);
      let given = 0;
      ring.give = (chain, bytes) => {
        const lie = given % 100 === 17 ? 11 : given % 100 === 50 ? 65_000 : bytes;
        given++;
        give(chain, lie);
      };
      for (let i = 0; i < 1000; i++) guest.nic.receive(Buffer.alloc(60, 0xff));
      guest.until(() => guest.nic.receiver.frames === 1000, "all are delivered");
      assert.equal(free(guest), before);
      const rx = guest.stats().queues[0]?.rx;
      assert.equal([rx?.packets, rx?.bytes], [980, 980 * 60]);
      assert.equal(rx?.drops, { used_length: 20 });
    });
  }
}

for (const { app, queue } of [
  { app: "app=sink", queue: "rx" },
  { app: SOURCE, queue: "tx" },
] as const) {
  test(`${app}: a split ring is written once, and then only its index`, (t) => {
    const net = { rxSize: SIZE, txSize: SIZE };
    const guest = startGuest(t, { commandLine: app, net });
    guest.machine.log.enabled = false;
    let frames = 0;
    guest.nic.sender.onTransmit = () => {
      frames++;
    };
    const turn = (count: number) => {
      const end = frames + count;
      if (queue === "tx") guest.until(() => frames >= end, "frames are sent");
      else {
        for (let i = 0; i < count; i++) guest.nic.receive(Buffer.alloc(60, 0xff));
        guest.settle();
      }
    };
    turn(2 * SIZE);
    const before = driverBytes(guest.machine, guest.nic.live(queue).queue);
    turn(5 * SIZE + 3);
    assert.equal(driverBytes(guest.machine, guest.nic.live(queue).queue), before);
    const ids = Array.from({ length: SIZE }, (_, i) => before.avail.readUInt16LE(2 * i));
    assert.equal(ids, [...ids.keys()], "the avail ring holds the ids in turn");
  });
}

test.run();
