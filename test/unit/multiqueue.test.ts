// A lane on every vCPU: pairs of queues on several CPUs, the number of them, their traffic, frames
// that reach the wrong CPU, and recovery with all of them at work. virtio 1.4 §5.1.2, §5.1.9.5.6
//
// That a queue is set up before VQ_PAIRS_SET names it, that the number is in range, and that nothing
// is sent on transmitq2 and beyond before the answer is checked by the device in every test.

import { assert, onesSum, suite, type TestContext } from "qemu-test-harness";
import { type Guest, makeGuest, STATIC_IP, startGuest } from "../model/guest";
import { commandName } from "../model/net/control-commands";
import { MQ_FEATURES } from "../model/net/net-device";
import { FLAG } from "../model/net/net-header";
import { PEER_PORT } from "../model/net/peer";
import { options, resources, start, traffic } from "./lanes";

const test = suite("multiqueue", { timeoutMs: 30_000 });

const SHAPES = [
  ...[1, 2, 3, 4, 8].map((pairs) => ({ pairs, cpus: pairs })),
  ...[1, 2, 4].map((pairs) => ({ pairs, cpus: pairs + 1 })),
  ...[2, 4, 8].map((pairs) => ({ pairs, cpus: pairs / 2 })),
  { pairs: 8, cpus: 3 },
  { pairs: 3, cpus: 8 },
  { pairs: 32, cpus: 1 },
];

for (const { pairs, cpus } of SHAPES) {
  const lanes = Math.min(pairs, cpus);
  test(`${pairs} pairs and ${cpus} vCPUs: ${lanes} lanes, each with traffic both ways`, (t) => {
    const guest = start(t, { cpus, pairs });
    assert.is(guest.machine.console.find("ready")?.queues, lanes);
    assert.is(guest.nic.active, lanes);
    const before = guest.stats();
    traffic(guest, 20, 3 * lanes);
    guest.settle();
    const after = guest.stats();
    assert.is(after.queues.length, lanes);
    after.queues.forEach((queue, index) => {
      const first = before.queues[index];
      assert.is(queue.cpu, index);
      assert.is(queue.rx.packets - (first?.rx.packets ?? 0), 60);
      assert.is(queue.tx.packets - (first?.tx.packets ?? 0), 60);
    });
    assert.is(after.accepted - before.accepted, 60 * lanes);
    assert.equal(resources(after.queues), resources(before.queues));
  });

  test(`${pairs} pairs and ${cpus} vCPUs: what the lanes count is what the device counts`, (t) => {
    const guest = start(t, { cpus, pairs });
    traffic(guest, 5, 2 * lanes);
    guest.settle();
    const { queues } = guest.stats();
    const device = guest.nic.pairs.map(({ rx, tx }) => [
      rx.packets,
      rx.bytes,
      tx.packets,
      tx.bytes,
    ]);
    const driver = queues.map(({ rx, tx }) => [rx.packets, rx.bytes, tx.packets, tx.bytes]);
    assert.equal(driver, device);
    const kicks = guest.nic.pairs.map(({ rx, tx }) => [rx.queue.kicks, tx.queue.kicks]);
    assert.equal(
      queues.map(({ rx, tx }) => [rx.kicks, tx.kicks]),
      kicks,
    );
  });
}

for (const [queues, lanes] of [
  [1, 1],
  [2, 2],
  [3, 3],
  [4, 4],
  [9, 4],
  ["max", 4],
] as const) {
  test(`queues=${queues} of 4 pairs and 4 vCPUs: ${lanes} lanes`, (t) => {
    const commandLine = `${STATIC_IP} queues=${queues}`;
    const guest = start(t, { cpus: 4, pairs: 4, commandLine });
    assert.is(guest.machine.console.find("ready")?.queues, lanes);
    assert.is(guest.nic.active, lanes);
    traffic(guest, 3, 2 * lanes);
  });
}

// ---- the number of pairs ---------------------------------------------------------------------------

test("§5.1.9.5.6.1: VQ_PAIRS_SET comes once, after DRIVER_OK, with the number of lanes", (t) => {
  const guest = start(t, { cpus: 3, pairs: 4 });
  const { commands } = guest.nic.control;
  assert.equal(commands.map(commandName), ["VQ_PAIRS_SET"]);
  assert.equal(commands[0]?.data, Buffer.of(3, 0));
  const order = guest.machine.log
    .lines(/write (notify\.ctrl|common\.(device_status|queue_enable)) /)
    .map((line) => line.split(" ")[1]);
  assert.is(order.at(-1), "notify.ctrl");
  assert.is(order.at(-2), "common.device_status");
});

test("§5.1.5: one lane needs no VQ_PAIRS_SET", (t) => {
  const guest = start(t, { cpus: 1, pairs: 4 });
  assert.equal(guest.nic.control.commands, []);
});

test("§5.1.9.5.6.1: while the answer is late, transmitq2 and beyond stay empty", (t) => {
  const guest = makeGuest(t, options({ cpus: 4, pairs: 4 }));
  guest.nic.control.delayUs = 500_000;
  let looked = 0;
  guest.machine.onAccess = () => {
    if (guest.nic.pairs.length === 0 || guest.nic.active > 1) return;
    looked++;
    for (const { tx } of guest.nic.pairs.slice(1)) assert.is(tx.split.availIdx, 0);
  };
  guest.start();
  assert.ok(looked > 1000);
  guest.machine.onAccess = undefined;
  traffic(guest, 3, 8);
});

test("§5.1.2: without mq the control queue is the third queue, and there is one lane", (t) => {
  const features = MQ_FEATURES.filter((name) => name !== "mq");
  const guest = start(t, { cpus: 4, pairs: 4, net: { features } });
  assert.is(guest.nic.controlLive?.queue.index, 2);
  assert.is(guest.machine.console.find("ready")?.queues, 1);
  traffic(guest, 3, 4);
});

test("§5.1.2: features=-mq moves the control queue as well", (t) => {
  const commandLine = `${STATIC_IP} features=-mq`;
  const guest = start(t, { cpus: 2, pairs: 2, commandLine });
  assert.is(guest.nic.controlLive?.queue.index, 2);
  traffic(guest, 3, 4);
});

test("features=-ctrl_vq takes mq with it: one lane, no control queue", (t) => {
  const commandLine = `${STATIC_IP} features=-ctrl_vq`;
  const guest = start(t, { cpus: 2, pairs: 2, commandLine });
  assert.is(guest.nic.accepts("mq"), false);
  assert.is(guest.nic.controlLive, undefined);
  assert.is(guest.machine.console.find("ready")?.queues, 1);
});

test("max_virtqueue_pairs of 0 counts as 1", (t) => {
  const guest = makeGuest(t, options({ cpus: 2, pairs: 1 }));
  guest.nic.pci.tamper = (name, value) => (name === "max_virtqueue_pairs" ? 0 : value);
  guest.start();
  assert.is(guest.machine.console.find("ready")?.queues, 1);
  traffic(guest, 2, 2);
});

test("max_virtqueue_pairs beyond the queues that there are ends bring-up with an error", (t) => {
  const guest = makeGuest(t, options({ cpus: 2, pairs: 2 }));
  guest.nic.pci.tamper = (name, value) => (name === "max_virtqueue_pairs" ? 5 : value);
  guest.machine.boot();
  assert.equal(guest.errors(), ["the device's control queue is unusable"]);
  assert.is(guest.exitStatus(), 35);
});

for (const msixEntries of [1, 2, 3, 4, 5, 6]) {
  const lanes = Math.max(1, Math.min(4, Math.floor((msixEntries - 1) / 2)));
  test(`MSI-X with ${msixEntries} entries: ${lanes} lanes of 4, each woken by its own`, (t) => {
    const guest = start(t, { cpus: 4, pairs: 4, net: { msixEntries } });
    assert.is(guest.machine.console.find("ready")?.queues, lanes);
    traffic(guest, 3, 2 * lanes);
  });
}

for (const mode of ["poll", "irq"]) {
  test(`mode=${mode}: all lanes carry traffic`, (t) => {
    const guest = startGuest(
      t,
      options({ cpus: 4, pairs: 4, commandLine: `${STATIC_IP} mode=${mode}` }),
    );
    traffic(guest, 3, 8);
  });
}

// ---- apps ------------------------------------------------------------------------------------------

for (const cpus of [2, 3, 8]) {
  test(`source: 1,000 frames are divided among ${cpus} lanes, and the end is everybody's`, (t) => {
    const commandLine = `${STATIC_IP} app=source size=100 count=1000`;
    const guest = startGuest(t, options({ cpus, pairs: cpus, commandLine }));
    const lanes = new Map<number, number>();
    guest.nic.sender.onTransmit = (frame, pair) => {
      if (frame.length === 100) lanes.set(pair, (lanes.get(pair) ?? 0) + 1);
    };
    guest.until(() => guest.machine.ended !== undefined, "it ends");
    const counts = [...lanes.values()];
    assert.is(guest.exitStatus(), 33);
    assert.is(lanes.size, cpus);
    assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, counts.join());
    const stats = guest.machine.console.find("stats");
    const sum = stats?.queues.reduce((total, { tx }) => total + tx.packets, 0) ?? 0;
    assert.ok(sum >= 1000 && sum <= 1002, `${sum}`);
  });
}

test("sink: frames on every queue are counted, and their sum is right", (t) => {
  const guest = start(t, { cpus: 4, pairs: 4, commandLine: "app=sink" });
  guest.nic.steer = (frame) => frame.readUInt16BE(34) % 4;
  for (let i = 0; i < 4000; i++) {
    guest.nic.receive(guest.peer.echoRequest(Buffer.alloc(18), 9, PEER_PORT + (i % 100)));
  }
  guest.settle();
  const counts = guest.stats().queues.map(({ rx }) => rx.packets);
  assert.equal(counts, [1000, 1000, 1000, 1000]);
});

test("automatic steering: a flow stays on the queue that last sent it", (t) => {
  const guest = start(t, { cpus: 4, pairs: 4 });
  const before = guest.stats().queues.map(({ rx }) => rx.packets);
  guest.nic.steer = () => 2;
  guest.echo(Buffer.from("by force"));
  guest.nic.steer = undefined;
  for (let i = 0; i < 10; i++) guest.echo(Buffer.from("by itself"));
  const after = guest.stats().queues.map(({ rx }) => rx.packets);
  assert.equal(
    after.map((count, index) => count - (before[index] ?? 0)),
    [0, 0, 11, 0],
  );
});

test("ping and ARP are answered on every queue", (t) => {
  const guest = start(t, { cpus: 4, pairs: 4 });
  for (let pair = 0; pair < 4; pair++) {
    guest.nic.steer = () => pair;
    const before = guest.peer.frames.length;
    guest.nic.receive(guest.peer.ping(pair, Buffer.from("where am I")));
    guest.nic.receive(guest.peer.arpRequest());
    guest.until(() => guest.peer.frames.length === before + 2, `queue ${pair} answers`);
  }
});

// ---- the wrong CPU ---------------------------------------------------------------------------------

for (const pair of [1, 2, 3]) {
  test(`DHCP: offers that reach queue ${pair + 1} are passed on to CPU 0`, (t) => {
    const guest = makeGuest(t, options({ cpus: 4, pairs: 4, commandLine: "ip=dhcp" }));
    guest.nic.steer = () => pair;
    guest.start();
    assert.is(guest.machine.console.find("ready")?.ip, "192.0.2.2");
    // Every lane knows the address.
    guest.settle();
    traffic(guest, 2, 8);
  });

  test(`ARP: an answer that reaches queue ${pair + 1} starts the sources of all lanes`, (t) => {
    const commandLine = `${STATIC_IP} app=source size=100 count=400 dstip=192.0.2.1`;
    const guest = makeGuest(t, options({ cpus: 4, pairs: 4, commandLine }));
    guest.nic.steer = () => pair;
    guest.start();
    guest.until(() => guest.peer.arpAsked("192.0.2.1"), "it asks for the next hop");
    guest.nic.receive(guest.peer.arpReply());
    guest.until(() => guest.machine.ended !== undefined, "it ends");
    assert.is(guest.peer.frames.filter(({ length }) => length === 100).length, 400);
    assert.is(guest.exitStatus(), 33);
  });
}

test("DHCP: an offer whose checksum is still partial gets through from another queue", (t) => {
  const net = { features: [...MQ_FEATURES, "guest_csum" as const] };
  const guest = makeGuest(t, options({ cpus: 2, pairs: 2, commandLine: "ip=dhcp ip6=off", net }));
  guest.nic.steer = () => 1;
  const { receive } = guest.nic;
  guest.nic.receive = (frame, header) => {
    const copy = Buffer.from(frame);
    // As a DHCP server on this machine leaves it: the pseudo header's sum alone.
    const pseudo = Buffer.concat([copy.subarray(26, 34), Buffer.of(0, 17), copy.subarray(38, 40)]);
    copy.writeUInt16BE(onesSum(pseudo), 40);
    const partial = { flags: FLAG.needsCsum, csumStart: 34, csumOffset: 6 };
    receive.call(guest.nic, copy, { ...header, ...partial });
  };
  guest.start();
  assert.is(guest.machine.console.find("ready")?.ip, "192.0.2.2");
});

test("DHCP: offers on all queues at once, and the run is as with one queue", (t) => {
  const guest = makeGuest(t, options({ cpus: 4, pairs: 4, commandLine: "ip=dhcp" }));
  let next = 0;
  guest.nic.steer = () => next++ % 4;
  guest.start();
  assert.equal(guest.peer.dhcpSeen, [1, 3]);
});

test("a frame too long for the mail is not passed on, and not lost twice", (t) => {
  const guest = start(t, { cpus: 2, pairs: 2, commandLine: "ip=dhcp" });
  const before = guest.stats().queues.map(({ pool_free }) => pool_free);
  guest.nic.steer = () => 1;
  for (let i = 0; i < 50; i++) guest.nic.receive(guest.peer.echoRequest(Buffer.alloc(1400), 68));
  guest.settle();
  assert.equal(
    guest.stats().queues.map(({ pool_free }) => pool_free),
    before,
  );
});

test("the link goes down and up: every lane is told", (t) => {
  const guest = start(t, { cpus: 4, pairs: 4 });
  guest.nic.setLink(false);
  guest.settle();
  guest.nic.setLink(true);
  guest.settle();
  traffic(guest, 2, 8);
});

// ---- recovery --------------------------------------------------------------------------------------

/** Traffic, `breakIt`, the message that follows, traffic again; and nothing has leaked. */
function recovers(t: TestContext, breakIt: (guest: Guest) => void, message: RegExp): void {
  const guest = start(t, { cpus: 4, pairs: 4 });
  traffic(guest, 5, 12);
  guest.settle();
  const before = resources(guest.stats().queues);
  breakIt(guest);
  guest.settle();
  const errors = guest.errors();
  assert.is(errors.length, 1, errors.join());
  assert.match(errors[0] ?? "", message);
  guest.machine.violations.take(/used element|lost wake-up/);
  assert.is(guest.nic.pci.common.resets, 2);
  assert.is(guest.nic.active, 4);
  traffic(guest, 5, 12);
  guest.settle();
  const stats = guest.stats();
  assert.is(stats.recoveries, 1);
  assert.equal(resources(stats.queues), before);
}

test("DEVICE_NEEDS_RESET: all lanes stop, the device is reset, all lanes go on", (t) => {
  recovers(t, (guest) => guest.nic.pci.needReset(), /needs a reset/);
});

test("DEVICE_NEEDS_RESET with packets in all rings leaks nothing", (t) => {
  const breakIt = (guest: Guest) => {
    guest.nic.paused.tx = true;
    // More than the transmit rings hold: every lane has some in hand as well.
    for (let i = 0; i < 2000; i++) {
      guest.nic.receive(guest.peer.echoRequest(Buffer.of(i & 255), undefined, PEER_PORT + i));
    }
    // Not as long as it takes the watchdog to notice.
    guest.machine.run(() => false, { steps: 500, us: 1_000_000 });
    guest.nic.paused.tx = false;
    guest.nic.pci.needReset();
  };
  recovers(t, breakIt, /needs a reset/);
});

test("sources on all lanes go on after a reset, and give all packets back", (t) => {
  const commandLine = `${STATIC_IP} app=source size=100 count=9000`;
  const guest = startGuest(t, options({ cpus: 3, pairs: 3, commandLine }));
  guest.until(() => guest.nic.pairs.every(({ tx }) => tx.packets > 500), "all lanes send");
  guest.nic.pci.needReset();
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.equal(guest.errors(), ["the device needs a reset"]);
  assert.is(guest.exitStatus(), 33);
  const stats = guest.machine.console.all("stats").at(-1) as unknown as ReturnType<Guest["stats"]>;
  const lanes = stats.queues.map(({ tx, pool_free }) => [tx.free, pool_free]);
  assert.equal(lanes, [
    [256, 384],
    [256, 384],
    [256, 384],
  ]);
});

for (const pair of [0, 1, 3]) {
  for (const [what, damage, message] of [
    ["a used id beyond the ring", 0xffff, /receive queue: a used id is beyond the ring/],
    ["a used index that jumps", undefined, /receive queue: the used index jumped/],
  ] as const) {
    test(`${what} in receive queue ${pair + 1} leads to one reset of the device`, (t) => {
      const breakIt = (guest: Guest) => {
        const { queue, ring, split } = guest.nic.live("rx", pair);
        if (damage === undefined) split.setUsedIdx(ring.usedIdx + 0x4000);
        else {
          ring.writeUsed(damage, 60);
          ring.publish();
        }
        guest.nic.pci.interruptQueue(queue);
      };
      recovers(t, breakIt, message);
    });
  }
}

test("faults in the rings of three CPUs at once lead to a working device", (t) => {
  const guest = start(t, { cpus: 4, pairs: 4 });
  const before = resources(guest.stats().queues);
  for (const { rx } of guest.nic.pairs.slice(1)) {
    rx.ring.writeUsed(0xffff, 60);
    rx.ring.publish();
    guest.nic.pci.interruptQueue(rx.queue);
  }
  guest.settle();
  assert.ok(guest.errors().length > 0);
  guest.machine.violations.take(/used element|lost wake-up/);
  traffic(guest, 5, 12);
  guest.settle();
  assert.equal(resources(guest.stats().queues), before);
});

test("fifty resets in a row: traffic after each, nothing leaks", (t) => {
  const guest = start(t, { cpus: 3, pairs: 3 });
  const before = resources(guest.stats().queues);
  for (let i = 0; i < 50; i++) {
    guest.nic.pci.needReset();
    guest.settle();
    traffic(guest, 1, 6);
  }
  guest.settle();
  assert.is(guest.errors().length, 50);
  assert.equal(resources(guest.stats().queues), before);
});

test.run();
