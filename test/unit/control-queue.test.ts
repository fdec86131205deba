// The control queue as the driver uses it: the number of pairs and the acknowledgement of an
// announcement; and devices that refuse, are late, never answer, or answer rubbish. virtio 1.4
// §5.1.9.5, §5.1.9.5.4, §5.1.9.5.6

import { assert, suite, type TestContext } from "qemu-test-harness";
import { type Guest, makeGuest, startGuest } from "../model/guest";
import { commandName, ERR, OK } from "../model/net/control-commands";
import { MQ_FEATURES } from "../model/net/net-device";
import { STATUS } from "../model/virtio/common-config";
import type { FeatureName } from "../model/virtio/features";
import { options, resources, start, traffic } from "./lanes";

const test = suite("control queue", { timeoutMs: 30_000 });

const ANNOUNCING: readonly FeatureName[] = [...MQ_FEATURES, "guest_announce"];
const payload = Buffer.from("under control");

const names = (guest: Guest) => guest.nic.control.commands.map(commandName);

// ---- VQ_PAIRS_SET ----------------------------------------------------------------------------------

/** A guest of two lanes whose device answers as told; it ends in failure, within seconds. */
function failsToStart(t: TestContext, prepare: (guest: Guest) => void): Guest {
  const guest = makeGuest(t, options({ cpus: 2, pairs: 2 }));
  prepare(guest);
  const begin = guest.machine.clock.now;
  guest.machine.boot();
  assert.equal(guest.errors(), ["the device does not take the number of queue pairs"]);
  assert.ok(guest.nic.pci.common.status & STATUS.failed);
  assert.ok(guest.machine.clock.now - begin < 5e9, "it takes more than 5 s");
  assert.is(guest.exitStatus(), 35);
  return guest;
}

test("VQ_PAIRS_SET refused: an error, FAILED, status 35", (t) => {
  failsToStart(t, (guest) => {
    guest.nic.control.refuses = () => true;
  });
});

for (const ack of [ERR, 2, 0x7f, 0xfe, 0xff]) {
  test(`VQ_PAIRS_SET acknowledged with ${ack} has not worked`, (t) => {
    failsToStart(t, (guest) => {
      guest.nic.control.tamper = () => ({ ack });
    });
  });
}

test("VQ_PAIRS_SET never answered: the wait is bounded", (t) => {
  const guest = failsToStart(t, ({ nic }) => {
    nic.control.tamper = () => "never";
  });
  assert.ok(guest.machine.clock.now > 1e9, "it gives a device a second at least");
});

test("VQ_PAIRS_SET answered too late: the wait is bounded", (t) => {
  failsToStart(t, (guest) => {
    guest.nic.control.delayUs = 10_000_000;
  });
});

for (const usedId of [64, 0xffff, 0xffff_ffff]) {
  test(`VQ_PAIRS_SET answered with used id ${usedId}: an error, no trap`, (t) => {
    failsToStart(t, (guest) => {
      guest.nic.control.tamper = () => ({ ack: OK, usedId });
    });
  });
}

for (const usedBytes of [2, 5000, 0xffff_ffff]) {
  test(`VQ_PAIRS_SET answered with a used length of ${usedBytes}: the ack counts`, (t) => {
    const guest = makeGuest(t, options({ cpus: 2, pairs: 2 }));
    guest.nic.control.tamper = (_, usual) => ({ ...usual, usedBytes });
    guest.start();
    traffic(guest, 2, 4);
  });
}

for (const delayUs of [1, 1_000, 1_000_000]) {
  test(`VQ_PAIRS_SET answered after ${delayUs} us is soon enough`, (t) => {
    const guest = makeGuest(t, options({ cpus: 4, pairs: 4 }));
    guest.nic.control.delayUs = delayUs;
    guest.start();
    traffic(guest, 2, 8);
  });
}

test("VQ_PAIRS_SET refused after a reset ends the run", (t) => {
  const guest = start(t, { cpus: 2, pairs: 2 });
  guest.nic.control.refuses = () => true;
  guest.nic.pci.needReset();
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.match(guest.errors().at(-1) ?? "", /does not take the number/);
  assert.is(guest.exitStatus(), 35);
});

for (const controlSize of [2, 4, 64, 256, 1024]) {
  test(`a control queue of ${controlSize} entries is enough`, (t) => {
    const guest = start(t, { cpus: 2, pairs: 2, net: { controlSize } });
    for (let i = 0; i < 5; i++) {
      guest.nic.pci.needReset();
      guest.settle();
      guest.errors();
    }
    traffic(guest, 2, 4);
  });
}

test("a control queue of 0 entries ends bring-up with an error", (t) => {
  const guest = makeGuest(t, options({ cpus: 2, pairs: 2, net: { controlSize: 0 } }));
  guest.machine.boot();
  assert.equal(guest.errors(), ["the device's control queue is unusable"]);
});

test("without event_idx the control queue works as well", (t) => {
  const features = MQ_FEATURES.filter((name) => name !== "event_idx");
  const guest = start(t, { cpus: 2, pairs: 2, net: { features } });
  traffic(guest, 2, 4);
});

test("no command is sent that nobody asked for, whatever is on offer", (t) => {
  const more = ["ctrl_rx", "ctrl_rx_extra", "ctrl_vlan", "ctrl_mac_addr", "notf_coal"] as const;
  const features: FeatureName[] = [...MQ_FEATURES, ...more, "vq_notf_coal", "device_stats"];
  const guest = startGuest(t, options({ cpus: 1, pairs: 2, net: { features } }));
  guest.settle();
  assert.equal(names(guest), []);
});

for (const cpus of [1, 2, 4]) {
  test(`rss, ${cpus} of 4 pairs: the device finds nothing wrong with its configuration`, (t) => {
    const features: FeatureName[] = [...MQ_FEATURES, "rss"];
    const guest = start(t, { cpus, pairs: 4, net: { features } });
    assert.equal(names(guest), ["RSS_CONFIG"]);
    assert.is(guest.nic.state.rss?.maxTxPairs, cpus);
    assert.is(new Set(guest.nic.state.rss?.table).size, cpus);
    traffic(guest, 2, 2 * cpus);
  });
}

// ---- announcements ---------------------------------------------------------------------------------

/** Running, with its announcements after boot made. */
function announcing(t: TestContext, cpus = 1): Guest {
  const guest = start(t, { cpus, pairs: cpus, net: { features: ANNOUNCING } });
  guest.machine.run(() => guest.peer.announcements() === 2, { us: 5_000_000 });
  guest.nic.control.commands.length = 0;
  guest.peer.frames.length = 0;
  return guest;
}

const ACK_AFTER = { us: 5_000_000 };

for (const cpus of [1, 4]) {
  test(`an announcement is made by ARP and acknowledged, ${cpus} lanes`, (t) => {
    const guest = announcing(t, cpus);
    guest.nic.announce();
    guest.until(() => guest.peer.announcements() === 2, "it announces itself twice", ACK_AFTER);
    assert.equal(names(guest), ["ANNOUNCE_ACK"]);
    assert.is(guest.nic.state.announcesAcknowledged, 1);
    assert.is(guest.nic.config.readUInt16LE(6), 1);
  });
}

test("ten announcements one after the other are acknowledged one by one", (t) => {
  const guest = announcing(t);
  for (let i = 1; i <= 10; i++) {
    guest.nic.announce();
    guest.until(() => guest.nic.state.announcesAcknowledged === i, `acknowledgement ${i}`);
    guest.machine.run(() => false, { us: 10_000 });
  }
  assert.is(guest.nic.control.commands.length, 10);
});

test("an announcement with no address to announce is acknowledged", (t) => {
  const net = { features: ANNOUNCING };
  const guest = startGuest(t, { commandLine: "app=sink", net });
  guest.nic.announce();
  guest.until(() => guest.nic.state.announcesAcknowledged === 1, "it acknowledges", ACK_AFTER);
  assert.is(guest.peer.announcements(), 0);
});

test("without MSI-X an announcement is seen and acknowledged, too", (t) => {
  const guest = startGuest(t, { net: { features: ANNOUNCING, msixEntries: 0 } });
  guest.nic.announce();
  guest.until(() => guest.nic.state.announcesAcknowledged === 1, "it acknowledges", ACK_AFTER);
});

for (const without of ["status", "ctrl_vq"] as const) {
  test(`guest_announce is not accepted without ${without}`, (t) => {
    const features = (["guest_announce", "ctrl_vq", "status", "version_1"] as const).filter(
      (name) => name !== without,
    );
    const guest = startGuest(t, { net: { features } });
    assert.is(guest.nic.accepts("guest_announce"), false);
  });
}

test("ANNOUNCE_ACK refused: traffic goes on, the next request is acknowledged", (t) => {
  const guest = announcing(t);
  guest.nic.control.refuses = () => true;
  guest.nic.announce();
  guest.machine.run(() => false, { us: 100_000 });
  const { length } = guest.nic.control.commands;
  assert.ok(length >= 1 && length <= 10, `${length} commands: it must not insist for ever`);
  assert.equal(guest.echo(payload), payload);
  guest.nic.control.refuses = undefined;
  guest.nic.announce();
  guest.until(() => guest.nic.state.announcesAcknowledged === 1, "it acknowledges", ACK_AFTER);
  assert.is(guest.stats().recoveries, 0);
});

test("ANNOUNCE_ACK answered late: traffic goes on meanwhile", (t) => {
  const guest = announcing(t, 2);
  guest.nic.control.delayUs = 1_000_000;
  guest.nic.announce();
  for (let i = 0; i < 10; i++) {
    traffic(guest, 1, 4);
    guest.machine.run(() => false, { us: 50_000 });
  }
  assert.is(guest.nic.state.announcesAcknowledged, 0);
  guest.until(() => guest.nic.state.announcesAcknowledged === 1, "the answer comes", ACK_AFTER);
  assert.is(guest.stats().recoveries, 0);
});

for (const [what, reply] of [
  ["never answered", "never"],
  ["answered with a used id beyond the ring", { ack: OK, usedId: 0x8000 }],
] as const) {
  test(`ANNOUNCE_ACK ${what}: one reset, and all goes on`, (t) => {
    const guest = announcing(t, 2);
    const before = resources(guest.stats().queues);
    guest.nic.control.tamper = (command, usual) =>
      commandName(command) === "ANNOUNCE_ACK" ? reply : usual;
    guest.nic.announce();
    guest.until(() => guest.nic.pci.common.resets === 2, "it resets the device", ACK_AFTER);
    guest.nic.control.tamper = undefined;
    assert.equal(guest.errors(), ["the device does not answer a command"]);
    guest.settle();
    traffic(guest, 2, 4);
    guest.settle();
    assert.equal(resources(guest.stats().queues), before);
    assert.is(guest.stats().recoveries, 1);
  });
}

test("a reset while ANNOUNCE_ACK is under way does not confuse the next one", (t) => {
  const guest = announcing(t);
  guest.nic.control.delayUs = 1_000_000;
  guest.nic.announce();
  guest.machine.run(() => guest.nic.control.commands.length === 1, { us: 100_000 });
  guest.nic.pci.needReset();
  guest.settle();
  guest.errors();
  guest.nic.control.delayUs = 0;
  guest.nic.announce();
  guest.until(() => guest.nic.state.announcesAcknowledged === 1, "it acknowledges", ACK_AFTER);
  assert.is(guest.stats().recoveries, 1);
});

// ---- configuration interrupts ----------------------------------------------------------------------

test("a storm of configuration interrupts that change nothing changes nothing", (t) => {
  const guest = announcing(t, 2);
  const lines = guest.machine.console.lines.length;
  for (let i = 0; i < 2000; i++) {
    guest.nic.pci.interruptConfig();
    if (i % 3 === 0) guest.machine.step();
  }
  guest.settle();
  assert.is(guest.machine.console.lines.length, lines);
  assert.equal(names(guest), []);
  traffic(guest, 2, 4);
});

test("a storm in which link and announcement come and go ends in the last state", (t) => {
  const guest = announcing(t, 2);
  for (let i = 0; i < 500; i++) {
    guest.nic.setLink(i % 2 === 1);
    if (i % 7 === 0) guest.nic.announce();
    guest.nic.receive(guest.peer.echoRequest(Buffer.of(i & 255)));
    guest.machine.step();
  }
  guest.settle();
  const up = guest.machine.console.all("link").at(-1)?.up;
  assert.is(up, true);
  assert.ok(guest.nic.state.announcesAcknowledged > 0);
  traffic(guest, 2, 4);
});

test.run();
