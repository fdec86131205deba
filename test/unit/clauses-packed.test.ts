// Clauses of the packed ring (and of lists in both formats) that take a device which looks closely:
// at every machine call of the driver, or at the time that passes. Named after the clauses.

import { assert, suite } from "qemu-test-harness";
import { startGuest } from "../model/guest";
import { TSC_KHZ } from "../model/machine/clock";
import { EVENT } from "../model/virtio/packed-ring";
import { FORMATS, PACKED, PACKED_IN_ORDER, prefixOf, without } from "./ring-formats";

const test = suite("clauses packed");

const payload = Buffer.from("every flag of it");
/** The watchdog looks after a queue that stands still, but not as soon as this. */
const SOON_MS = 100;

for (const behind of [2, 100, 255]) {
  test(`§2.8.16: a place ${behind} slots behind is answered by a notification at once`, (t) => {
    const guest = startGuest(t, { net: { features: PACKED.features } });
    for (let i = 0; i < 300; i++) guest.echo(payload);
    guest.settle();
    const live = guest.nic.live("tx");
    const { size } = live.queue;
    const next = live.ring.nextOffer;
    const lap = next >> 15 === 1 ? size : 0;
    const place = ((next & 0x7fff) + lap + 4 * size - behind) % (2 * size);
    live.packed.setDeviceEvent((place % size) | (place >= size ? 0x8000 : 0), EVENT.desc);
    const begin = guest.machine.clock.now;
    assert.equal(guest.echo(payload), payload);
    assert.ok((guest.machine.clock.now - begin) / TSC_KHZ < SOON_MS, "not before the watchdog");
  });
}

for (const format of [PACKED, PACKED_IN_ORDER]) {
  for (const indirect of [true, false]) {
    const how = indirect ? "tables" : "lists";
    test(`§2.8.17: ${format.name}, ${how}: nothing of a batch is there before all of it is`, (t) => {
      const features = indirect ? format.features : without(format, "indirect_desc");
      const guest = startGuest(t, { net: { features, mtu: 9000, txSize: 32 } });
      guest.nic.receiver.spread = 500;
      guest.settle();
      guest.nic.paused.tx = true;
      const { cpu, packed } = guest.nic.live("tx");
      // Looks into the ring before every machine call. What is offered by then was offered by the
      // call before, which is the store of the flags, and the barrier was the one before that.
      let offered = 0;
      let releases = [0, 0];
      guest.machine.onAccess = () => {
        const now = packed.available();
        const [earlier = 0, before = 0] = releases;
        if (now !== offered) assert.ok(before > earlier, "offered before the barrier");
        offered = now;
        releases = [before, cpu.releases];
      };
      for (const bytes of [100, 1000, 3000, 4500]) {
        guest.nic.receive(guest.peer.echoRequest(Buffer.alloc(bytes)));
        guest.settle();
      }
      assert.is(offered, 4);
      guest.machine.onAccess = undefined;
      guest.nic.paused.tx = false;
      guest.settle();
      assert.equal(guest.echo(payload), payload);
    });
  }
}

for (const format of FORMATS) {
  test(`§2.7.5.2, §2.8.17: ${prefixOf(format)}an answer of more pieces than the ring has is dropped`, (t) => {
    const features = without(format, "indirect_desc");
    const guest = startGuest(t, { net: { features, mtu: 9000, rxSize: 64, txSize: 8 } });
    guest.nic.receiver.spread = 200;
    guest.settle();
    guest.nic.receive(guest.peer.echoRequest(Buffer.alloc(9 * 200 - 60)));
    guest.settle();
    assert.equal(guest.stats().queues[0]?.tx.drops, { too_long: 1 });
    const whole = Buffer.alloc(8 * 200 - 60, 7);
    assert.equal(guest.echo(whole), whole);
  });
}

for (const format of FORMATS) {
  test(`§2.8.17: ${prefixOf(format)}a list waits until the ring has room for all of it`, (t) => {
    const features = without(format, "indirect_desc");
    const guest = startGuest(t, { net: { features, mtu: 9000, rxSize: 64, txSize: 8 } });
    guest.nic.receiver.spread = 1000;
    guest.settle();
    guest.nic.paused.tx = true;
    const before = guest.peer.frames.length;
    // Three pieces each: two lists leave room for two pieces more.
    for (let i = 0; i < 6; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.alloc(2500, i)));
    guest.settle();
    assert.is(guest.nic.live("tx").ring.available(), 2);
    guest.nic.paused.tx = false;
    guest.until(() => guest.peer.frames.length === before + 6, "all come back");
    assert.equal(guest.stats().queues[0]?.tx.drops, {});
  });
}

test.run();
