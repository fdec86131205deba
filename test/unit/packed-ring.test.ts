// The packed ring, and devices that work in order in both formats, under load: wrap counters over
// many laps, sizes that are no powers of two, batches that one used entry stands for, what is free
// afterwards. That every descriptor and every flag is right is checked by the model all the time.
// virtio 1.4 §2.8, §2.7.9

import { assert, suite } from "qemu-test-harness";
import { type Guest, makeGuest, STATIC_IP, startGuest } from "../model/guest";
import { PACKED_FEATURES } from "../model/net/net-device";
import { STATUS } from "../model/virtio/common-config";
import { FORMATS, OTHER_FORMATS, PACKED, PACKED_IN_ORDER, without } from "./ring-formats";
import { endurance, exchange, PACKETS } from "./ring-load";

const test = suite("packed ring", { timeoutMs: 60_000 });

for (const size of [16, 17, 100, 256, 1024]) {
  for (const eventIdx of [true, false]) {
    const ring = `${size} entries, event_idx ${eventIdx ? "on" : "off"}`;
    test(`${PACKETS} packets each way, ${ring}: nothing lost, nothing leaked`, (t) => {
      const features = eventIdx ? PACKED.features : without(PACKED, "event_idx");
      endurance(t, { rxSize: size, txSize: size, features });
    });
  }
}

for (const format of OTHER_FORMATS) {
  if (!format.inOrder) continue;
  for (const usedBatch of [1, 3, 64]) {
    const batch = `one used entry for up to ${usedBatch} buffers`;
    test(`${format.name}: ${PACKETS} packets, ${batch}: nothing lost, nothing leaked`, (t) => {
      const size = format.packed ? 100 : 128;
      endurance(t, { rxSize: size, txSize: size, features: format.features, usedBatch });
    });
  }
}

for (const { name, features, packed } of OTHER_FORMATS) {
  for (const size of packed ? [2, 3, 5, 7, 333, 4096] : [2, 4, 8, 4096]) {
    test(`${name}: a ring of ${size} entries works`, (t) => {
      const guest = startGuest(t, { net: { rxSize: size, txSize: size, features } });
      assert.is(guest.nic.rx?.queue.size, Math.min(size, 1024));
      exchange(guest, 500, 50);
    });
  }

  test(`${name}: a burst of ten rings' worth arrives whole, published one by one`, (t) => {
    const guest = startGuest(t, { net: { rxSize: 64, txSize: 64, batch: 1, features } });
    exchange(guest, 640, 640);
  });

  test(`${name}: while the transmit side stands still nothing is lost`, (t) => {
    // Longer than the watchdog would stand by.
    const commandLine = `${STATIC_IP} watchdog=0`;
    const guest = startGuest(t, { commandLine, net: { rxSize: 16, txSize: 16, features } });
    guest.settle();
    const before = guest.peer.frames.length;
    guest.nic.paused.tx = true;
    for (let i = 0; i < 100; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.of(i)));
    guest.machine.run(() => false, { steps: 500 });
    assert.is(guest.peer.frames.length, before);
    guest.nic.paused.tx = false;
    guest.until(() => guest.peer.frames.length === before + 100, "all echoes");
  });

  test(`${name}: a device that polls and wants no notification is served all the same`, (t) => {
    const guest = startGuest(t, { net: { polls: true, features } });
    guest.machine.log.enabled = false;
    exchange(guest, 70_000, 200);
    const kicks = guest.nic.pci.common.queues.map((queue) => queue.kicks);
    assert.ok(
      kicks.every((count) => count <= 3),
      `kicks: ${kicks}`,
    );
  });

  test(`${name}: the control queue has the same format, and lanes work`, (t) => {
    const net = { features: [...features, "ctrl_vq", "mq"] as const, pairs: 2, controlSize: 7 };
    const guest = startGuest(t, { cpus: 2, net: packed ? net : { ...net, controlSize: 8 } });
    assert.is(guest.nic.active, 2);
    assert.is(guest.nic.control.commands.length, 1);
    assert.is(guest.nic.controlLive?.ring.options.packed, packed);
    assert.equal(guest.echo(Buffer.of(1, 2, 3)), Buffer.of(1, 2, 3));
  });
}

for (const { name, features } of FORMATS) {
  // Sleeping for room it asks for an interrupt half a ring ahead, often beyond the ring's end.
  test(`${name}: a source that sleeps when the ring is full is woken every time`, (t) => {
    for (const txSize of [16, 64, 256]) {
      const commandLine = "app=source mode=irq dst=02:00:00:00:00:01 count=5000";
      const guest = startGuest(t, { commandLine, net: { features, txSize, batch: 5 } });
      let sent = 0;
      guest.nic.sender.onTransmit = () => {
        sent++;
      };
      for (let round = 0; round < 400 && guest.machine.ended === undefined; round++) {
        guest.nic.paused.tx = true;
        guest.machine.run(() => guest.machine.bootCpu.sleeps, { steps: 2000 });
        guest.nic.paused.tx = false;
        const wanted = Math.min(5000, sent + 1 + (round % 13));
        guest.until(() => sent >= wanted, `frame ${wanted} is sent`);
      }
      guest.until(() => guest.machine.ended !== undefined, "all is sent");
      assert.ok(sent >= 4900, `${sent} frames`);
      assert.is(guest.exitStatus(), 33);
    }
  });
}

test("the descriptor ring is zero when it is handed over, after a reset as well (§2.8.13)", (t) => {
  const guest = startGuest(t, { net: { features: PACKED.features } });
  exchange(guest, 1000, 50);
  guest.nic.pci.needReset();
  guest.settle();
  assert.is(guest.errors().length, 1);
  assert.is(guest.nic.pci.common.resets, 2);
  exchange(guest, 1000, 50);
});

test("the format in use stands in the ready event", (t) => {
  for (const { features } of [PACKED, PACKED_IN_ORDER]) {
    const guest = startGuest(t, { net: { features } });
    assert.is(guest.machine.console.find("ready")?.ring, "packed");
  }
  assert.is(startGuest(t).machine.console.find("ready")?.ring, "split");
});

test("ring=split declines ring_packed, with the reason", (t) => {
  const net = { features: PACKED_FEATURES };
  const guest = startGuest(t, { commandLine: `${STATIC_IP} ring=split`, net });
  assert.is(guest.nic.accepts("ring_packed"), false);
  const { declined } = guest.machine.console.find("features") ?? {};
  const reason = "ring=split or features=-ring_packed";
  assert.equal(declined, [{ name: "ring_packed", reason }]);
  assert.is(guest.machine.console.find("ready")?.ring, "split");
  assert.equal(guest.echo(Buffer.of(7)), Buffer.of(7));
});

test("ring=packed takes packed rings", (t) => {
  const net = { features: PACKED_FEATURES };
  const guest = startGuest(t, { commandLine: `${STATIC_IP} ring=packed`, net });
  assert.is(guest.nic.accepts("ring_packed"), true);
  assert.is(guest.machine.console.find("ready")?.ring, "packed");
});

for (const [what, words, features] of [
  ["not offered", "ring=packed", without(PACKED, "ring_packed")],
  ["left out", "ring=packed features=-ring_packed", PACKED_FEATURES],
] as const) {
  test(`ring=packed with ring_packed ${what}: an error, FAILED, status 35`, (t) => {
    const guest = makeGuest(t, { commandLine: `${STATIC_IP} ${words}`, net: { features } });
    guest.machine.boot();
    assert.equal(guest.errors(), ["ring=packed, but the device's rings cannot be packed"]);
    assert.ok(guest.nic.pci.common.status & STATUS.failed);
    assert.is(guest.exitStatus(), 35);
  });
}

/** The device shows, of bits 32 to 63 of its offer, what `change` makes of them. */
function changeOffer(guest: Guest, change: (high: number) => number): void {
  guest.nic.pci.tamper = (name, value) =>
    name === "device_feature" && guest.nic.pci.common.shownWord === 1 ? change(value) : value;
}

test("a device that offers no packed rings any more after its reset ends the run", (t) => {
  const guest = startGuest(t, { net: { features: PACKED_FEATURES } });
  changeOffer(guest, (high) => high & ~4);
  guest.nic.pci.needReset();
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.is(guest.errors().at(-1), "the device no longer has packed rings");
  assert.is(guest.exitStatus(), 35);
});

test("a device that offers packed rings only after its reset keeps split ones", (t) => {
  const guest = makeGuest(t, { net: { features: PACKED_FEATURES } });
  changeOffer(guest, (high) => high & ~4);
  guest.start();
  assert.is(guest.machine.console.find("ready")?.ring, "split");
  guest.nic.pci.tamper = undefined;
  guest.nic.pci.needReset();
  guest.settle();
  assert.equal(guest.errors(), ["the device needs a reset"]);
  assert.is(guest.nic.accepts("ring_packed"), false);
  exchange(guest, 100, 10);
});

test.run();
