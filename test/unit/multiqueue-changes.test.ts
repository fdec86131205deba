// Devices whose number of queue pairs is out of range, or another one after a reset; and faults on
// several CPUs at a time; and an answer with nothing in it. virtio 1.4 §5.1.9.5.6, §2.7.8.3

import { assert, suite } from "qemu-test-harness";
import { makeGuest } from "../model/guest";
import { commandName } from "../model/net/control-commands";
import { bit } from "../model/virtio/features";
import { options, start } from "./lanes";

const test = suite("multiqueue changes", { timeoutMs: 30_000 });

test("one fault is one recovery, whichever lanes saw it at once", (t) => {
  const guest = start(t, { cpus: 4, pairs: 4 });
  for (const { rx } of guest.nic.pairs.slice(1)) {
    rx.ring.writeUsed(0xffff, 60);
    rx.ring.publish();
    guest.nic.pci.interruptQueue(rx.queue);
  }
  guest.settle();
  const count = guest.errors().length;
  guest.machine.violations.take(/used element|lost wake-up/);
  assert.is(count, 1, "the reset after the first fault ends all of them");
});

test("a device that after its reset has fewer pairs ends the run, or works with them", (t) => {
  const guest = start(t, { cpus: 4, pairs: 4 });
  guest.nic.pci.tamper = (name, value) => (name === "max_virtqueue_pairs" ? 2 : value);
  guest.nic.pci.needReset();
  guest.machine.run(() => guest.machine.ended !== undefined, { us: 3_000_000 });
  guest.errors();
  const asked = guest.nic.control.commands.slice(1).map(({ data }) => data.readUInt16LE(0));
  assert.ok(
    asked.every((pairs) => pairs <= 2),
    `VQ_PAIRS_SET of ${asked.join()} with max_virtqueue_pairs 2`,
  );
});

test("a device that after its reset has no mq ends the run, or works with one pair", (t) => {
  const guest = start(t, { cpus: 2, pairs: 2, net: { controlSize: 256 } });
  const mq = Number(bit("mq"));
  guest.nic.pci.tamper = (name, value) => (name === "device_feature" ? (value & ~mq) >>> 0 : value);
  guest.nic.pci.needReset();
  guest.machine.run(() => guest.machine.ended !== undefined, { us: 3_000_000 });
  guest.errors();
});

for (const told of [0x8000, 0x8001, 0xffff]) {
  test(`max_virtqueue_pairs of ${told}: the control queue's index is none of another queue`, (t) => {
    const guest = makeGuest(t, options({ cpus: 2, pairs: 2 }));
    guest.nic.pci.tamper = (name, value) => (name === "max_virtqueue_pairs" ? told : value);
    guest.machine.boot();
    assert.is(guest.errors().length, 1);
    assert.is(guest.exitStatus(), 35);
  });
}

test("§2.7.8.3: an answer of 0 bytes has no ack in it, whatever the memory says", (t) => {
  const guest = makeGuest(t, options({ cpus: 2, pairs: 2 }));
  guest.nic.control.tamper = (command, usual) =>
    commandName(command) === "VQ_PAIRS_SET" ? { ...usual, usedBytes: 0 } : usual;
  guest.machine.boot();
  assert.equal(guest.errors(), ["the device does not take the number of queue pairs"]);
  assert.is(guest.exitStatus(), 35);
});

test.run();
