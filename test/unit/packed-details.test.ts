// What is peculiar to the packed ring: buffers that come back out of order, lengths without WRITE,
// flags that a device rewrites, event structures that say anything, barriers on the record; and
// notifications that carry data. virtio 1.4 §2.8, §2.9, §4.1.5.2.1

import { assert, suite } from "qemu-test-harness";
import { type Guest, startGuest } from "../model/guest";
import type { NetOptions } from "../model/net/net-device";
import type { Chain } from "../model/virtio/chain";
import { EVENT } from "../model/virtio/packed-ring";
import { FORMATS, OTHER_FORMATS, PACKED, PACKED_IN_ORDER, SPLIT, without } from "./ring-formats";
import { exchange, free } from "./ring-load";

const test = suite("packed details", { timeoutMs: 30_000 });

const payload = Buffer.from("whatever comes");
const F_AVAIL = 0x80;
const F_USED = 0x8000;

function packedGuest(t: Parameters<typeof startGuest>[0], net: Partial<NetOptions> = {}): Guest {
  const guest = startGuest(t, { net: { features: PACKED.features, ...net } });
  guest.settle();
  return guest;
}

/** Has the guest send so many frames of these lengths, which the device takes and keeps. */
function keep(guest: Guest, lengths: readonly number[]): Chain[] {
  guest.nic.paused.tx = true;
  for (const length of lengths) {
    guest.nic.receive(guest.peer.echoRequest(Buffer.alloc(length, length & 0xff)));
    guest.settle();
  }
  const { queue, ring } = guest.nic.live("tx");
  const chains = Array.from({ length: ring.available() }, () => ring.take());
  ring.enableNotifications();
  queue.kicked = false;
  guest.nic.paused.tx = false;
  return chains;
}

for (const format of [SPLIT, PACKED]) {
  test(`${format.name}: lists of mixed lengths that come back in any order are all reclaimed`, (t) => {
    const features = without(format, "indirect_desc");
    const guest = startGuest(t, { net: { features, mtu: 9000, rxSize: 64, txSize: 64 } });
    const before = free(guest);
    for (let round = 0; round < 40; round++) {
      const chains = keep(guest, [100, 5000, 200, 8900, 60, 4500, 300]);
      assert.is(chains.length, 7);
      assert.equal(
        chains.map(({ descriptors }) => descriptors.length),
        [1, 2, 1, 3, 1, 2, 1],
      );
      const { ring } = guest.nic.live("tx");
      const turned = [...chains.slice(round % 7), ...chains.slice(0, round % 7)].reverse();
      for (const chain of turned) ring.give(chain, 0);
      guest.nic.publish(guest.nic.live("tx"));
      guest.settle();
    }
    exchange(guest, 200, 20);
    assert.equal(free(guest), before);
  });
}

test("a device that never sets WRITE in used descriptors, as QEMU's, is understood", (t) => {
  for (const { features } of [PACKED, PACKED_IN_ORDER]) {
    const guest = packedGuest(t, { features, mtu: 9000 });
    for (const { rx, tx } of guest.nic.pairs) {
      rx.packed.marksWritten = false;
      tx.packed.marksWritten = false;
    }
    for (const length of [20, 1000, 5000, 8900]) {
      const data = Buffer.alloc(length, length & 0xff);
      assert.ok(guest.echo(data).equals(data), `${length} bytes`);
    }
  }
});

test("a used length in the transmit queue means nothing, with and without WRITE (§2.8.4)", (t) => {
  for (const marksWritten of [false, true]) {
    const guest = packedGuest(t);
    const [chain] = keep(guest, [100]);
    const live = guest.nic.live("tx");
    live.packed.marksWritten = marksWritten;
    if (chain !== undefined) live.ring.give(chain, 0xffff_ffff);
    live.ring.publish();
    guest.settle();
    assert.equal(guest.stats().queues[0]?.tx.drops, {});
    assert.equal(guest.echo(payload), payload);
  }
});

for (const next of [false, true]) {
  test(`NEXT ${next ? "set" : "clear"} in used descriptors changes nothing (§2.8.6)`, (t) => {
    const guest = packedGuest(t, { features: without(PACKED, "indirect_desc"), mtu: 9000 });
    const { arena } = guest.machine.bootCpu;
    const mark = (direction: "rx" | "tx") => {
      const { queue, packed } = guest.nic.live(direction);
      const at = queue.desc - arena.base + 16 * packed.used.slot + 14;
      return () => {
        const flags = arena.view.getUint16(at, true);
        arena.view.setUint16(at, next ? flags | 1 : flags & ~1, true);
      };
    };
    for (let i = 0; i < 100; i++) {
      const [chain] = keep(guest, [i % 2 === 0 ? 100 : 8000]);
      const live = guest.nic.live("tx");
      const changed = mark("tx");
      if (chain !== undefined) live.ring.give(chain, 0);
      live.ring.publish();
      changed();
      guest.settle();
    }
    assert.equal(guest.echo(payload), payload);
    assert.is(guest.stats().recoveries, 0);
  });
}

for (const format of [PACKED, PACKED_IN_ORDER]) {
  const half = [
    ["AVAIL alone", F_AVAIL],
    ["USED alone", F_USED],
    ["neither", 0],
  ] as const;
  for (const [what, marks] of half) {
    test(`${format.name}: ${what} on the first lap is not used, whatever else it says`, (t) => {
      const guest = packedGuest(t, { features: format.features });
      const { queue, packed } = guest.nic.live("rx");
      packed.lieInSlot(packed.used.slot, 0xffff, 72, marks);
      guest.nic.pci.interruptQueue(queue);
      guest.settle();
      assert.equal(guest.errors(), []);
      assert.is(guest.stats().queues[0]?.rx.packets, 0);
    });
  }

  test(`${format.name}: a used mark two slots ahead is not looked at`, (t) => {
    const guest = packedGuest(t, { features: format.features });
    const { queue, packed } = guest.nic.live("rx");
    packed.lieInSlot(packed.used.slot + 2, 2, 72, F_AVAIL | F_USED);
    guest.nic.pci.interruptQueue(queue);
    guest.settle();
    assert.equal(guest.errors(), []);
    assert.is(guest.stats().queues[0]?.rx.packets, 0);
  });

  test(`${format.name}: a whole ring marked used at once leads to one reset`, (t) => {
    const guest = packedGuest(t, { features: format.features });
    const { queue, packed } = guest.nic.live("rx");
    for (let slot = 0; slot < 256; slot++) packed.lieInSlot(slot, 7, 72, F_AVAIL | F_USED);
    guest.nic.pci.interruptQueue(queue);
    guest.settle();
    assert.equal(guest.errors(), ["receive queue: a used id is not outstanding"]);
    assert.equal(guest.echo(payload), payload);
  });
}

test("a device that writes over all of a used descriptor does no harm (§2.8.4)", (t) => {
  const guest = packedGuest(t, { rxSize: 16, txSize: 16 });
  const { arena } = guest.machine.bootCpu;
  for (let i = 0; i < 100; i++) {
    assert.equal(guest.echo(payload), payload);
    for (const direction of ["rx", "tx"] as const) {
      const { queue, packed } = guest.nic.live(direction);
      const slot = (packed.used.slot + queue.size - 1) % queue.size;
      if (direction === "tx") arena.view.setBigUint64(queue.desc - arena.base + 16 * slot, 0n);
    }
  }
});

for (const eventIdx of [true, false]) {
  const features = eventIdx ? PACKED.features : without(PACKED, "event_idx");
  const how = eventIdx ? "with" : "without";
  test(`device event flags 3, ${how} event_idx: traffic goes on`, (t) => {
    const guest = packedGuest(t, { features });
    const live = guest.nic.live("tx");
    live.packed.setDeviceEvent(0x1234, 3);
    assert.equal(guest.echo(payload), payload);
  });
}

test("a device event at a slot beyond the ring does no harm", (t) => {
  const guest = packedGuest(t);
  for (const place of [256, 0x7fff, 0x8100, 0xffff]) {
    guest.nic.live("tx").packed.setDeviceEvent(place, EVENT.desc);
    guest.nic.receive(guest.peer.echoRequest(payload));
    guest.settle();
    guest.nic.live("tx").queue.kicked = true;
    guest.settle();
  }
  assert.equal(guest.echo(payload), payload);
});

for (const behind of [2, 3, 100, 255, 256, 300]) {
  test(`a device event ${behind} slots behind, as QEMU leaves it: the device is notified`, (t) => {
    const guest = packedGuest(t);
    for (let i = 0; i < 300; i++) guest.echo(payload);
    guest.settle();
    const live = guest.nic.live("tx");
    const next = live.ring.nextOffer;
    const place = ((next & 0x7fff) + (next >> 15 === 1 ? 256 : 0) + 1024 - behind) % 512;
    live.packed.setDeviceEvent((place % 256) | (place >= 256 ? 0x8000 : 0), EVENT.desc);
    const before = live.queue.kicks;
    assert.equal(guest.echo(payload), payload);
    assert.is(live.queue.kicks, before + 1);
  });
}

test("between the offering flags and the device's event structure stands a full barrier", (t) => {
  const guest = packedGuest(t);
  guest.machine.log.clear();
  guest.echo(payload);
  const lines = guest.machine.log.lines(/barrier|tx\./);
  const index = lines.findIndex((line) => line.startsWith("write tx.flags"));
  assert.is(lines[index - 1], "barrier release 0");
  assert.is(lines[index + 1], "barrier full 0");
  assert.match(lines[index + 2] ?? "", /^read tx.device_event/);
});

test("between asking for an interrupt and looking again stands a full barrier", (t) => {
  const guest = packedGuest(t);
  guest.machine.log.clear();
  guest.echo(payload);
  guest.settle();
  const lines = guest.machine.log.lines(/barrier|rx\.(driver|flags|used)/);
  const request = lines.findLastIndex((line) => line.startsWith("write rx.driver_flags 2"));
  assert.match(lines[request - 2] ?? "", /^write rx.driver_off_wrap/);
  assert.is(lines[request - 1], "barrier release 0");
  assert.is(lines[request + 1], "barrier full 0");
  assert.match(lines[request + 2] ?? "", /^read rx.flags/);
});

test("the event modes: 2 only with event_idx, 3 never (§2.8.10, §2.8.14)", (t) => {
  for (const features of [PACKED.features, without(PACKED, "event_idx")]) {
    const guest = startGuest(t, { net: { features } });
    guest.settle();
    for (let i = 0; i < 20; i++) guest.echo(payload);
    guest.settle();
    const writes = guest.machine.log.lines(/write \w+\.driver_flags/);
    const modes = new Set(writes.map((line) => line.split(" ").at(-1)));
    const asks = features.includes("event_idx") ? "2" : "0";
    assert.equal([...modes].sort(), [asks, "1"].sort());
  }
});

// ---- notifications with data -------------------------------------------------------------------

for (const { name, features } of FORMATS) {
  for (const named of [false, true]) {
    const more = named ? (["notif_config_data"] as const) : [];
    const who = named ? "names that the device gives" : "queue indices";

    test(`${name}: notifications of two bytes carry ${who}`, (t) => {
      const guest = startGuest(t, { net: { features: [...features, ...more, "ctrl_vq"] } });
      assert.equal(guest.echo(payload), payload);
      const notified = guest.machine.log.lines(/write notify\./);
      const { queues } = guest.nic.pci.common;
      const values = queues.map(({ index, notifyData }) => (named ? notifyData : index));
      assert.ok(notified.length >= 2);
      for (const line of notified) assert.ok(values.includes(Number(line.split(" ").at(-1))), line);
    });

    test(`${name}: notifications of four bytes carry ${who} and the next place`, (t) => {
      const all = [...features, ...more, "notification_data", "ctrl_vq", "mq"] as const;
      const net = { features: all, pairs: 2, rxSize: 8, txSize: 8 };
      const guest = startGuest(t, { cpus: 2, net });
      guest.machine.log.enabled = false;
      // That each is right is checked by the model; so many pass both 32,768 and 65,536.
      exchange(guest, 70_000, 3);
      const kicks = guest.nic.pairs.map(({ tx }) => tx.queue.kicks);
      assert.ok(Math.max(...kicks) > 20_000, `kicks: ${kicks}`);
      assert.is(guest.nic.control.commands.length, 1);
    });
  }
}

test("notif_config_data is not accepted when its field is missing", (t) => {
  const net: Partial<NetOptions> = {
    features: [...SPLIT.features, "notif_config_data"],
    capabilities: (usual) => usual.map((c) => (c.type === 1 ? { ...c, length: 56 } : c)),
  };
  const guest = startGuest(t, { net });
  assert.is(guest.nic.accepts("notif_config_data"), false);
  assert.equal(guest.echo(payload), payload);
});

for (const name of ["access_platform", "order_platform"] as const) {
  test(`${name} is accepted, and changes nothing`, (t) => {
    const guest = startGuest(t, { net: { features: [...SPLIT.features, name] } });
    assert.is(guest.nic.accepts(name), true);
    assert.equal(guest.echo(payload), payload);
  });
}

for (const { name, features } of OTHER_FORMATS) {
  test(`${name}: a device that takes turns within the guest's steps loses nothing`, (t) => {
    for (let every = 1; every <= 17; every++) {
      const net = { features, rxSize: 8, txSize: 8, batch: 2 };
      const guest = startGuest(t, { net });
      let calls = 0;
      guest.machine.onAccess = () => {
        if (++calls % every === 0) guest.nic.turn();
      };
      exchange(guest, 200, 20);
    }
  });
}

for (const [who, lies] of [
  ["the device's own lie is not judged", true],
  ["an id beyond the ring is the driver's fault", false],
] as const) {
  test(`packed: where an offer says what nobody may say, ${who}`, (t) => {
    const guest = packedGuest(t);
    const { cpu, packed, queue } = guest.nic.live("tx");
    const { slot } = packed.used;
    // What a device writes over an offer whose flags the driver is about to write.
    packed.lieInSlot(slot, queue.size, 60, 0);
    const at = queue.desc - cpu.arena.base + 16 * slot;
    if (!lies) cpu.arena.view.setUint32(at + 8, 61, true);
    cpu.arena.view.setUint16(at + 14, F_AVAIL, true);
    queue.kicked = true;
    guest.nic.turn();
    const found = guest.machine.violations.take(/buffer id \d+ in a ring/);
    assert.is(found.length, lies ? 0 : 1);
    assert.is(guest.nic.isBroken, true);
  });
}

test.run();
