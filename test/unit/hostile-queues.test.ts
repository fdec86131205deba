// A device that lies in its rings and headers. Whatever it says, there is no trap and no access
// outside the arena; an event or a counter names it; and traffic goes on, after a reset if need be.

import { assert, suite, type TestContext } from "qemu-test-harness";
import { type Guest, startGuest } from "../model/guest";
import type { Direction } from "../model/net/net-device";
import { Random } from "../model/random";
import type { Chain } from "../model/virtio/chain";
import { bit } from "../model/virtio/features";
import { FORMATS, prefixOf, type RingFormat, SPLIT, SPLIT_IN_ORDER, without } from "./ring-formats";

const test = suite("hostile queues", { timeoutMs: 30_000 });

const NAMES = { rx: "receive queue", tx: "transmit queue" } as const;
const payload = Buffer.from("life goes on");

/** A running guest at rest: nothing is outstanding on its transmit ring. */
function atRest(t: TestContext, format: RingFormat, net = {}): Guest {
  const guest = startGuest(t, { net: { features: format.features, ...net } });
  guest.settle();
  guest.stats();
  return guest;
}

/** Makes the guest look at its rings. */
function wake(guest: Guest): void {
  for (const queue of guest.nic.pci.common.queues) guest.nic.pci.interruptQueue(queue);
  guest.settle();
}

/** The guest reported `message`, reset the device once, and carries traffic again. */
function recovered(guest: Guest, message: string | RegExp): void {
  const errors = guest.errors();
  assert.is(errors.length, 1, errors.join());
  assert.match(errors[0] ?? "", message);
  assert.is(guest.machine.ended, undefined);
  assert.is(guest.nic.pci.common.resets, 2);
  guest.machine.violations.take(/used element|lost wake-up/);
  assert.equal(guest.echo(payload), payload);
  const stats = guest.stats();
  assert.is(stats.recoveries, 1);
}

/** Has the guest send a packet that the device takes and does not give back. */
function keepOne(guest: Guest): Chain {
  guest.nic.paused.tx = true;
  guest.nic.receive(guest.peer.echoRequest(payload));
  guest.settle();
  const { queue, ring } = guest.nic.live("tx");
  const chain = ring.take();
  ring.enableNotifications();
  queue.kicked = false;
  guest.nic.paused.tx = false;
  return chain;
}

/** Uses a buffer of the guest without having taken it, as a lying device does. */
function use(guest: Guest, direction: Direction, id: number, bytes: number): void {
  if (direction === "tx") keepOne(guest);
  const ring = guest.nic.live(direction).ring;
  ring.writeUsed(id, bytes);
  ring.publish();
  wake(guest);
  // Sent packets are looked at when there is a need for room.
  if (direction === "tx") guest.machine.console.type("stats");
  guest.settle();
}

const WIDE_IDS = [256, 0xffff, 0x10000, 0x8000_0000, 0xffff_ffff];

for (const format of FORMATS) {
  const at = prefixOf(format);

  for (const direction of ["rx", "tx"] as const) {
    for (const id of format.packed ? [256, 0x7fff, 0xffff] : WIDE_IDS) {
      test(`${at}${NAMES[direction]}: a used id of ${id} in a ring of 256 is rejected`, (t) => {
        const guest = atRest(t, format);
        use(guest, direction, id, 60);
        recovered(guest, `${NAMES[direction]}: a used id is beyond the ring`);
      });
    }
  }

  test(`${at}receive queue: a used id that is used twice in one go is rejected`, (t) => {
    const guest = atRest(t, format);
    const ring = guest.nic.live("rx").ring;
    const chain = ring.take();
    ring.writeUsed(chain.head, 72);
    ring.writeUsed(chain.head, 72);
    ring.publish();
    wake(guest);
    recovered(guest, "receive queue: a used id is not outstanding");
  });

  // In order the second one stands for both.
  if (!format.inOrder) {
    test(`${at}receive queue: a used id that overtakes, and then comes again, is rejected`, (t) => {
      const guest = atRest(t, format);
      const ring = guest.nic.live("rx").ring;
      ring.take();
      const second = ring.take();
      ring.writeUsed(second.head, 72);
      ring.writeUsed(second.head, 72);
      ring.publish();
      wake(guest);
      recovered(guest, "receive queue: a used id is not outstanding");
    });
  }

  test(`${at}transmit queue: a used id that is not outstanding is rejected`, (t) => {
    const guest = atRest(t, format);
    const id = (keepOne(guest).head + 1) % 256;
    guest.nic.live("tx").ring.writeUsed(id, 0);
    guest.nic.live("tx").ring.publish();
    guest.machine.console.type("stats");
    wake(guest);
    recovered(guest, "transmit queue: a used id is not outstanding");
  });

  for (const used of [0, 1, 11, 4097, 0xffff, 0x8000_0000, 0xffff_ffff]) {
    test(`${at}receive queue: a used length of ${used} is dropped and counted`, (t) => {
      const guest = atRest(t, format);
      const ring = guest.nic.live("rx").ring;
      const chain = ring.take();
      chain.write(Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
      ring.give(chain, used);
      ring.publish();
      wake(guest);
      assert.equal(guest.stats().queues[0]?.rx.drops, { used_length: 1 });
      assert.equal(guest.echo(payload), payload);
      assert.is(guest.stats().recoveries, 0);
    });
  }

  test(`${at}receive queue: a used length of 12 is an empty frame, dropped and counted`, (t) => {
    const guest = atRest(t, format);
    const ring = guest.nic.live("rx").ring;
    const chain = ring.take();
    chain.write(Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
    ring.give(chain, 12);
    ring.publish();
    wake(guest);
    assert.equal(guest.stats().queues[0]?.rx.drops, { too_short: 1 });
    assert.equal(guest.echo(payload), payload);
  });

  test(`${at}transmit queue: the used length means nothing (§2.7.8.3)`, (t) => {
    const guest = atRest(t, format);
    const { ring } = guest.nic.live("tx");
    ring.give(keepOne(guest), 0xffff_ffff);
    ring.publish();
    wake(guest);
    assert.equal(guest.stats().queues[0]?.tx.drops, {});
    assert.equal(guest.echo(payload), payload);
  });

  test(`${at}receive queue: num_buffers 0 is dropped and counted`, (t) => {
    const guest = atRest(t, format);
    guest.nic.receiver.tamper = (header) => {
      header.writeUInt16LE(0, 10);
    };
    guest.nic.receive(guest.peer.echoRequest(payload));
    guest.settle();
    guest.nic.receiver.tamper = undefined;
    assert.equal(guest.stats().queues[0]?.rx.drops, { num_buffers: 1 });
    assert.equal(guest.echo(payload), payload);
  });

  for (const buffers of [257, 0x8000, 0xffff]) {
    test(`${at}receive queue: num_buffers ${buffers} with a ring of 256 leads to a reset`, (t) => {
      const guest = atRest(t, format);
      guest.nic.receiver.tamper = (header) => {
        header.writeUInt16LE(buffers, 10);
      };
      guest.nic.receive(guest.peer.echoRequest(payload));
      guest.settle();
      guest.nic.receiver.tamper = undefined;
      recovered(guest, "receive queue: num_buffers is more than the ring holds");
    });
  }

  test(`${at}receive queue: num_buffers 2 for a frame in one buffer swallows two, and no more`, (t) => {
    const guest = atRest(t, format);
    guest.nic.receiver.tamper = (header) => {
      header.writeUInt16LE(2, 10);
    };
    guest.nic.receive(guest.peer.echoRequest(payload));
    guest.settle();
    guest.nic.receiver.tamper = undefined;
    guest.nic.receive(guest.peer.echoRequest(payload));
    guest.settle();
    assert.equal(guest.echo(payload), payload);
  });

  test(`${at}DEVICE_NEEDS_RESET leads to a reset, and traffic goes on`, (t) => {
    const guest = atRest(t, format);
    guest.nic.pci.needReset();
    guest.settle();
    recovered(guest, "the device needs a reset");
  });

  test(`${at}DEVICE_NEEDS_RESET with packets in both rings leaks nothing`, (t) => {
    const guest = atRest(t, format);
    const before = guest.stats().queues[0];
    guest.nic.paused.tx = true;
    for (let i = 0; i < 100; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.of(i)));
    guest.settle();
    guest.nic.paused.tx = false;
    guest.nic.pci.needReset();
    guest.settle();
    recovered(guest, "the device needs a reset");
    guest.settle();
    const after = guest.stats().queues[0];
    assert.is(after?.pool_free, before?.pool_free);
    assert.is(after?.tx.free, before?.tx.free);
  });

  test(`${at}a device that asks for a reset a hundred times gets it a hundred times`, (t) => {
    const guest = atRest(t, format);
    for (let i = 1; i <= 100; i++) {
      guest.nic.pci.needReset();
      guest.settle();
      assert.is(guest.nic.pci.common.resets, i + 1);
    }
    assert.is(guest.errors().length, 100);
    assert.equal(guest.echo(payload), payload);
  });

  for (const [name, features] of [
    ["merging", format.features],
    ["not merging", without(format, "mrg_rxbuf")],
  ] as const) {
    test(`${at}900 random used elements, ${name}: no trap, and traffic in the end`, (t) => {
      const guest = atRest(t, format, { features });
      const random = new Random(11);
      guest.machine.log.enabled = false;
      for (let i = 0; i < 900; i++) {
        const ring = guest.nic.live("rx").ring;
        const kind = random.below(3);
        const id = kind === 0 ? random.next() : random.below(256);
        ring.writeUsed(id, kind === 1 ? random.next() : random.below(5000));
        ring.publish();
        wake(guest);
        assert.is(guest.machine.ended, undefined, guest.describe());
      }
      guest.errors();
      guest.machine.violations.take(/used element|lost wake-up/);
      guest.nic.pci.needReset();
      guest.settle();
      guest.errors();
      assert.equal(guest.echo(payload), payload);
    });
  }
}

for (const format of [SPLIT, SPLIT_IN_ORDER]) {
  for (const direction of ["rx", "tx"] as const) {
    for (const jump of [257, 0x7fff, 0x8000, 0xffff]) {
      test(`${prefixOf(format)}${NAMES[direction]}: a used index that jumps by ${jump} is rejected`, (t) => {
        const guest = atRest(t, format);
        if (direction === "tx") keepOne(guest);
        const ring = guest.nic.live(direction).split;
        ring.setUsedIdx(ring.usedIdx + jump);
        wake(guest);
        if (direction === "tx") guest.machine.console.type("stats");
        guest.settle();
        recovered(guest, `${NAMES[direction]}: the used index jumped`);
      });
    }
  }
}

/** Takes mrg_rxbuf out of the offer and has the device ask for a reset. */
function resetWithoutMerging(guest: Guest): void {
  const mergeBit = Number(bit("mrg_rxbuf"));
  guest.nic.pci.tamper = (name, value) =>
    name === "device_feature" ? (value & ~mergeBit) >>> 0 : value;
  guest.nic.pci.needReset();
}

test("a device that offers no mrg_rxbuf after its reset: buffers that fit", (t) => {
  const guest = atRest(t, SPLIT);
  resetWithoutMerging(guest);
  guest.settle();
  recovered(guest, "the device needs a reset");
  assert.is(guest.nic.accepts("mrg_rxbuf"), false);
});

test("§5.1.9.3.1: a device that after its reset needs larger buffers ends the run", (t) => {
  const guest = atRest(t, SPLIT, { mtu: 9000 });
  resetWithoutMerging(guest);
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.is(guest.errors().at(-1), "the device now needs larger receive buffers");
  assert.is(guest.exitStatus(), 35);
});

test("a device that does not come back from its reset ends the run in failure", (t) => {
  const guest = atRest(t, SPLIT);
  guest.nic.pci.tamper = (name, value) => (name === "device_status" ? value | 0x40 : value);
  guest.nic.pci.interruptConfig();
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.equal(guest.errors().at(-1), "the device does not finish its reset");
  assert.is(guest.exitStatus(), 35);
});

test("without MSI-X, too, DEVICE_NEEDS_RESET leads to a reset", (t) => {
  const guest = startGuest(t, { net: { msixEntries: 0 } });
  guest.nic.pci.needReset();
  guest.machine.run(() => guest.nic.pci.common.resets > 1, { us: 2_000_000 });
  recovered(guest, "the device needs a reset");
});

test("an mtu that shrinks to nothing while the device runs does not stop traffic", (t) => {
  const guest = atRest(t, SPLIT);
  guest.nic.config.writeUInt16LE(0, 10);
  guest.nic.pci.interruptConfig();
  guest.settle();
  assert.equal(guest.echo(payload), payload);
});

test.run();
