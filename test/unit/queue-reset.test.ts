// RING_RESET: a queue whose ring the device broke is reset alone, while the others and what they hold
// go on; with a device that cannot, does not let go of the queue, or breaks it again, all of it is
// reset. The model checks the order of accesses. virtio 1.4 §2.6.1, §4.1.4.3.2

import { assert, suite, type TestContext } from "qemu-test-harness";
import { type Guest, type ModelStats, STATIC_IP, startGuest } from "../model/guest";
import type { Direction } from "../model/net/net-device";
import type { NetOptions } from "../model/net/net-options";
import { MQ_FEATURES } from "../model/net/net-options";
import { resources, start, traffic } from "./lanes";

const test = suite("queue reset", { timeoutMs: 30_000 });

const FEATURES = [...MQ_FEATURES, "ring_reset"] as const;
const payload = Buffer.from("one queue less, one queue more");

type Stats = ModelStats & { readonly queue_resets: number };
const statsOf = (guest: Guest) => guest.stats() as Stats;

function atRest(t: TestContext, lanes = 1, net: Partial<NetOptions> = {}): Guest {
  const guest = start(t, {
    cpus: lanes,
    pairs: lanes,
    net: { features: FEATURES, ...net },
  });
  guest.stats();
  return guest;
}

/** Gives back a buffer that does not exist, and has the guest see it. */
function breakRing(guest: Guest, direction: Direction, pair: number): void {
  const { ring, queue } = guest.nic.live(direction, pair);
  if (direction === "tx") {
    guest.nic.paused.tx = true;
    guest.nic.steer = () => pair;
    guest.nic.receive(guest.peer.echoRequest(payload));
    guest.settle();
    guest.nic.steer = undefined;
    ring.take();
  }
  ring.writeUsed(0xffff, 60);
  ring.publish();
  guest.nic.pci.interruptQueue(queue);
  // Sent packets are looked at when there is a need for room, or for their number.
  if (direction === "tx") guest.machine.console.type("stats");
  guest.nic.paused.tx = false;
  guest.settle();
  guest.machine.violations.take(/used element|lost wake-up/);
}

for (const lanes of [1, 4]) {
  for (const pair of lanes === 1 ? [0] : [0, 2]) {
    for (const direction of ["rx", "tx"] as const) {
      const index = 2 * pair + (direction === "tx" ? 1 : 0);

      test(`${lanes} lanes, queue ${index}: it alone is reset, and all goes on`, (t) => {
        const guest = atRest(t, lanes);
        const before = resources(statsOf(guest).queues);
        guest.machine.log.clear();
        breakRing(guest, direction, pair);
        assert.is(guest.errors().length, 1);
        const { common } = guest.nic.pci;
        assert.equal([common.queueResets, common.resets], [1, 1]);
        const lines = guest.machine.log.lines(/common\.queue_(select|reset|enable|desc_low)/);
        const names = lines.map((line) => line.replace(/ \S+$/, ""));
        assert.equal(names, [
          "write common.queue_select",
          "write common.queue_reset",
          "read common.queue_reset",
          "read common.queue_enable",
          "write common.queue_select",
          "write common.queue_select",
          "write common.queue_select",
          "write common.queue_desc_low",
          "write common.queue_enable",
        ]);
        const warnings = guest.machine.console.all("warning");
        assert.match(warnings.at(-1)?.message ?? "", /a queue was reset/);
        traffic(guest, 3, 2 * lanes);
        guest.settle();
        const stats = statsOf(guest);
        assert.equal(resources(stats.queues), before);
        assert.equal([stats.queue_resets, stats.recoveries], [1, 0]);
        const drops = stats.queues[pair]?.tx.drops;
        assert.equal(drops, direction === "tx" ? { reset: 1 } : {});
      });
    }
  }
}

test("the other queues carry on while one is being reset", (t) => {
  const guest = atRest(t, 2);
  guest.nic.pci.common.queues.forEach((queue) => {
    assert.ok(queue.enabled || queue.name === "ctrl");
  });
  const { frames } = guest.peer;
  const before = frames.length;
  guest.nic.steer = () => 0;
  for (let i = 0; i < 50; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.of(i)));
  breakRing(guest, "rx", 1);
  guest.until(() => frames.length === before + 50, "all fifty come back");
  guest.errors();
  assert.is(guest.nic.pci.common.resets, 1);
});

test("packets in hand and in the other ring of the pair survive", (t) => {
  const guest = atRest(t);
  const { frames } = guest.peer;
  const before = frames.length;
  guest.nic.paused.tx = true;
  for (let i = 0; i < 40; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.of(i)));
  guest.settle();
  breakRing(guest, "rx", 0);
  guest.until(() => frames.length === before + 40, "the forty that were under way come back");
  guest.errors();
  assert.equal(guest.echo(payload), payload);
});

test("half of a merged packet is let go of with its queue", (t) => {
  const guest = atRest(t);
  const before = resources(statsOf(guest).queues);
  guest.nic.receiver.tamper = (header) => {
    header.writeUInt16LE(3, 10);
  };
  guest.nic.receive(guest.peer.echoRequest(payload));
  guest.settle();
  guest.nic.receiver.tamper = undefined;
  breakRing(guest, "rx", 0);
  guest.errors();
  assert.equal(guest.echo(payload), payload);
  guest.settle();
  assert.equal(resources(statsOf(guest).queues), before);
});

test("num_buffers beyond the ring: the receive queue is reset alone", (t) => {
  const guest = atRest(t);
  guest.nic.receiver.tamper = (header) => {
    header.writeUInt16LE(0xffff, 10);
  };
  guest.nic.receive(guest.peer.echoRequest(payload));
  guest.settle();
  guest.nic.receiver.tamper = undefined;
  assert.equal(guest.errors(), ["receive queue: num_buffers is more than the ring holds"]);
  assert.is(guest.nic.pci.common.queueResets, 1);
  assert.equal(guest.echo(payload), payload);
});

for (const queueResetReads of [1, 100]) {
  test(`a queue reset that takes ${queueResetReads} looks is waited for`, (t) => {
    const guest = atRest(t, 2, { queueResetReads });
    breakRing(guest, "rx", 1);
    guest.errors();
    assert.is(guest.nic.pci.common.resets, 1);
    traffic(guest, 2, 4);
  });
}

test("a device that never lets go of the queue is reset, in bounded time", (t) => {
  const guest = atRest(t, 2, { queueResetReads: Infinity });
  const begin = guest.machine.clock.now;
  breakRing(guest, "rx", 1);
  guest.errors();
  assert.is(guest.nic.pci.common.resets, 2);
  assert.ok(guest.machine.clock.now - begin < 5e9, "it takes more than 5 s");
  traffic(guest, 2, 4);
  assert.equal([statsOf(guest).queue_resets, statsOf(guest).recoveries], [0, 1]);
});

test("a queue that breaks again at once leads to a reset of the device", (t) => {
  const guest = atRest(t, 2);
  breakRing(guest, "rx", 1);
  breakRing(guest, "tx", 1);
  assert.is(guest.nic.pci.common.resets, 1, "another queue is another matter");
  breakRing(guest, "rx", 1);
  guest.errors();
  assert.equal([guest.nic.pci.common.queueResets, guest.nic.pci.common.resets], [2, 2]);
  traffic(guest, 2, 4);
});

test("a ring that breaks every minute is reset alone each time", (t) => {
  const guest = atRest(t);
  for (let i = 0; i < 20; i++) {
    breakRing(guest, "rx", 0);
    guest.machine.clock.now += 61e9;
    guest.settle();
    assert.equal(guest.echo(Buffer.of(i)), Buffer.of(i));
  }
  assert.is(guest.errors().length, 20);
  assert.equal([guest.nic.pci.common.queueResets, guest.nic.pci.common.resets], [20, 1]);
});

for (const without of ["ring_reset", "the register"] as const) {
  test(`without ${without} the whole device is reset`, (t) => {
    const features = FEATURES.filter((name) => name !== without);
    const guest = atRest(t, 1, {
      features,
      capabilities: (usual) =>
        usual.map((each) =>
          without === "the register" && each.type === 1 ? { ...each, length: 56 } : each,
        ),
    });
    assert.is(guest.nic.accepts("ring_reset"), false);
    breakRing(guest, "rx", 0);
    guest.errors();
    assert.is(guest.nic.pci.common.resets, 2);
    assert.equal(guest.echo(payload), payload);
  });
}

test("reset <queue>: each of eight queues, a hundred times, with traffic", (t) => {
  const guest = atRest(t, 4);
  const before = resources(statsOf(guest).queues);
  for (let i = 0; i < 100; i++) {
    assert.is(guest.command(`reset ${i % 8}`).result, "ok");
    traffic(guest, 1, 8);
  }
  guest.settle();
  assert.equal(resources(statsOf(guest).queues), before);
  assert.equal([guest.nic.pci.common.queueResets, guest.nic.pci.common.resets], [100, 1]);
  guest.machine.console.type("reset 8");
  guest.settle();
  assert.equal(guest.errors(), ['reset: "8" is not a queue in use']);
});

test("a source goes on after its transmit queue was reset, and sends what it has to", (t) => {
  const commandLine = `app=source ${STATIC_IP} dst=02:00:00:00:00:01 count=5000`;
  const guest = startGuest(t, { commandLine, net: { features: FEATURES } });
  guest.until(() => guest.peer.frames.length >= 1000, "it has sent 1000");
  const { ring, queue } = guest.nic.live("tx");
  ring.writeUsed(0xffff, 0);
  ring.publish();
  guest.nic.pci.interruptQueue(queue);
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  guest.machine.violations.take(/used element|lost wake-up/);
  assert.is(guest.errors().length, 1);
  assert.equal([guest.nic.pci.common.queueResets, guest.nic.pci.common.resets], [1, 1]);
  const stats = guest.machine.console.all("stats").at(-1) as unknown as Stats;
  const [queue0] = stats.queues;
  assert.ok(queue0 !== undefined);
  const { drops, packets } = queue0.tx;
  const lost = (drops as { readonly reset?: number }).reset ?? 0;
  // What the device had sent but could not say was sent is counted as lost, too.
  assert.ok(packets >= 5000 && lost <= 256, `${packets} submitted, ${lost} lost`);
  assert.ok(guest.peer.frames.length >= packets - lost, `${guest.peer.frames.length} arrived`);
});

test.run();
