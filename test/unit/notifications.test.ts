// Suppression in both directions: kicks counted against what the rule asks for at every index, the
// interrupts that a driver must and must not get, barriers on the record. That no kick is missing
// and none is needless is checked all the time, by the model's audit; here are the numbers.
// virtio 1.4 §2.7.7, §2.7.10, §2.7.13, §2.7.14

import { assert, suite } from "qemu-test-harness";
import { type Guest, STATIC_IP, startGuest } from "../model/guest";
import { USUAL_FEATURES } from "../model/net/net-device";
import { FORMATS, prefixOf, without } from "./ring-formats";

const test = suite("notifications", { timeoutMs: 30_000 });

const FLAGS_ONLY = USUAL_FEATURES.filter((name) => name !== "event_idx");
const MODES = FORMATS.flatMap((format) => [
  { name: `${prefixOf(format)}event_idx`, features: format.features },
  { name: `${prefixOf(format)}flags`, features: without(format, "event_idx") },
]);

/** Sends `count` echoes, `burst` at a time, and waits for all of them. */
function traffic(guest: Guest, count: number, burst: number): void {
  const frame = guest.peer.echoRequest(Buffer.alloc(18));
  let back = 0;
  guest.nic.sender.onTransmit = () => {
    back++;
  };
  for (let sent = 0; sent < count; ) {
    const end = Math.min(count, sent + burst);
    for (; sent < end; sent++) guest.nic.receive(frame);
    guest.until(() => back >= sent, `echo ${sent} comes back`);
  }
}

for (const { name, features } of MODES) {
  test(`${name}: across the 16-bit wrap every kick is one that the rule asks for`, (t) => {
    const guest = startGuest(t, { net: { features, txSize: 64, rxSize: 64 } });
    guest.machine.log.enabled = false;
    // Bursts of 7 bring the wrap to every place within a burst.
    traffic(guest, 70_000, 7);
    for (const live of [guest.nic.rx, guest.nic.tx]) {
      assert.is(live?.audit.required, live?.queue.kicks);
    }
    assert.ok((guest.nic.tx?.queue.kicks ?? 0) >= 10_000);
  });

  test(`${name}: kicks and suppressed kicks in stats are those that the device saw`, (t) => {
    const guest = startGuest(t, { net: { features } });
    traffic(guest, 1000, 50);
    guest.settle();
    const queues = guest.nic.pci.common.queues.map(({ kicks }) => kicks);
    const stats = guest.stats().queues[0];
    assert.equal([stats?.rx.kicks, stats?.tx.kicks], queues);
    assert.ok((stats?.rx.kicks_suppressed ?? 0) > 0);
  });

  test(`${name}: a burst takes one kick at most, never one a packet`, (t) => {
    const guest = startGuest(t, { net: { features } });
    guest.settle();
    const before = guest.nic.tx?.queue.kicks ?? 0;
    traffic(guest, 640, 64);
    assert.ok((guest.nic.tx?.queue.kicks ?? 0) - before <= 30);
  });

  test(`${name}: a guest that polls a full ring is not interrupted for each packet`, (t) => {
    const guest = startGuest(t, { net: { features } });
    guest.settle();
    const before = guest.machine.bootCpu.interruptTotal;
    traffic(guest, 6400, 64);
    const interrupts = guest.machine.bootCpu.interruptTotal - before;
    assert.ok(interrupts > 0 && interrupts <= 400, `${interrupts} interrupts`);
  });

  test(`${name}: a sleeping guest is woken by each packet that comes alone`, (t) => {
    const guest = startGuest(t, { net: { features } });
    guest.settle();
    for (let i = 0; i < 50; i++) {
      const before = guest.machine.bootCpu.interruptTotal;
      guest.settle();
      assert.ok(guest.machine.bootCpu.sleeps, "it sleeps");
      assert.equal(guest.echo(Buffer.of(i)), Buffer.of(i));
      assert.ok(guest.machine.bootCpu.interruptTotal > before);
    }
  });

  test(`${name}: mode=poll is never interrupted by a queue`, (t) => {
    const guest = startGuest(t, { commandLine: `${STATIC_IP} mode=poll`, net: { features } });
    traffic(guest, 1000, 10);
    assert.is(guest.machine.bootCpu.interruptTotal, 0);
  });

  test(`${name}: a spurious interrupt does no harm (§2.7.7.1)`, (t) => {
    const guest = startGuest(t, { net: { features } });
    for (let i = 0; i < 20; i++) {
      for (const queue of guest.nic.pci.common.queues) guest.nic.pci.interruptQueue(queue);
      guest.nic.pci.interruptConfig();
      assert.equal(guest.echo(Buffer.of(i)), Buffer.of(i));
    }
  });

  test(`${name}: an interrupt in the middle of any machine call is not lost`, (t) => {
    // The device takes a turn within the guest's steps, at every 1st, 2nd, ... 23rd call.
    for (let every = 1; every <= 23; every++) {
      const guest = startGuest(t, { net: { features, rxSize: 8, txSize: 8, batch: 2 } });
      let calls = 0;
      guest.machine.onAccess = () => {
        if (++calls % every === 0) guest.nic.turn();
      };
      traffic(guest, 200, 20);
    }
  });
}

test("between the available index and the look at avail_event stands a full barrier", (t) => {
  const guest = startGuest(t);
  guest.machine.log.clear();
  guest.echo(Buffer.from("one packet"));
  const lines = guest.machine.log.lines(/barrier|tx\./);
  const index = lines.findIndex((line) => line.startsWith("write tx.avail_idx"));
  assert.is(lines[index - 1], "barrier release 0");
  assert.is(lines[index + 1], "barrier full 0");
  assert.match(lines[index + 2] ?? "", /^read tx.avail_event/);
});

test("between asking for an interrupt and looking again stands a full barrier", (t) => {
  const guest = startGuest(t);
  guest.settle();
  guest.machine.log.clear();
  guest.echo(Buffer.from("one packet"));
  guest.settle();
  const lines = guest.machine.log.lines(/barrier full|rx\.used/);
  const request = lines.findLastIndex((line) => line.startsWith("write rx.used_event"));
  assert.is(lines[request + 1], "barrier full 0");
  assert.match(lines[request + 2] ?? "", /^read rx.used_idx/);
});

test("with event_idx the used ring's flags play no part (§2.7.10.1)", (t) => {
  const guest = startGuest(t);
  guest.settle();
  const { queue } = guest.nic.live("tx");
  const { arena } = guest.machine.bootCpu;
  arena.view.setUint16(queue.device - arena.base, 1, true);
  assert.equal(guest.echo(Buffer.from("kicked")), Buffer.from("kicked"));
});

test("without event_idx avail_event plays no part (§2.7.10.1)", (t) => {
  const guest = startGuest(t, { net: { features: FLAGS_ONLY } });
  guest.settle();
  guest.nic.tx?.split.setAvailEvent(0x7fff);
  assert.equal(guest.echo(Buffer.from("kicked")), Buffer.from("kicked"));
});

test.run();
