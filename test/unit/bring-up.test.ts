// The order of bring-up on the record of register accesses, the wait for the reset, the generation
// of the configuration, interrupt vectors. virtio 1.4 §3.1.1, §2.4.2, §2.5.1, §4.1.5.1

import { assert, suite } from "qemu-test-harness";
import { makeGuest, STATIC_IP, startGuest } from "../model/guest";
import { STATUS } from "../model/virtio/common-config";
import { NO_VECTOR } from "../model/virtio/queue";

const test = suite("bring-up");

const { acknowledge, driver, featuresOk, driverOk } = STATUS;
const payload = Buffer.from("up and running");

/** Asserts that the patterns match lines in this order, each after the one before. */
function inOrder(lines: readonly string[], patterns: readonly RegExp[]): void {
  let at = -1;
  for (const pattern of patterns) {
    const next = lines.findIndex((line, i) => i > at && pattern.test(line));
    assert.ok(next >= 0, `${pattern} after line ${at} of:\n${lines.join("\n")}`);
    at = next;
  }
}

test("the steps come in the order of §3.1.1", (t) => {
  const guest = startGuest(t);
  const lines = guest.machine.log.lines(/ (common|notify|device)\./);
  const confirmed = acknowledge | driver | featuresOk;
  inOrder(lines, [
    /^write common.device_status 0$/,
    /^read common.device_status 0$/,
    new RegExp(`^write common.device_status ${acknowledge}$`),
    new RegExp(`^write common.device_status ${acknowledge | driver}$`),
    /^read common.device_feature /,
    /^write common.driver_feature /,
    new RegExp(`^write common.device_status ${confirmed}$`),
    new RegExp(`^read common.device_status ${confirmed}$`),
    /^read device.mac0 /,
    /^write common.queue_size /,
    /^write common.queue_enable 1$/,
    /^write common.queue_enable 1$/,
    new RegExp(`^write common.device_status ${confirmed | driverOk}$`),
    /^write notify.rx 0$/,
  ]);
});

test("the status is written five times, each bit once", (t) => {
  const guest = startGuest(t);
  assert.equal(guest.machine.log.lines(/^write common.device_status/).length, 5);
});

test("queue_enable is the last write to each queue", (t) => {
  const guest = startGuest(t);
  const writes = guest.machine.log.lines(/^write common.queue_/);
  for (const queue of [0, 1]) {
    let selected = -1;
    const own = writes.filter((line) => {
      const select = /queue_select (\d+)/.exec(line)?.[1];
      if (select !== undefined) selected = Number(select);
      return select === undefined && selected === queue;
    });
    assert.is(own.at(-1), "write common.queue_enable 1");
    const addresses = own.filter((line) => /queue_(desc|driver|device)_(low|high)/.test(line));
    assert.is(addresses.length, 6);
  }
});

test("no notification comes before DRIVER_OK", (t) => {
  const guest = startGuest(t);
  const lines = guest.machine.log.lines(/^write (notify|common.device_status)/);
  const ok = lines.indexOf(`write common.device_status ${driverOk | 11}`);
  assert.is(lines.findIndex((line) => line.includes("notify")) > ok, true);
});

test("the receive ring is full of buffers before DRIVER_OK", (t) => {
  const guest = makeGuest(t);
  guest.machine.boot();
  assert.is(guest.nic.rx?.split.availIdx, guest.nic.options.rxSize);
});

for (const reads of [1, 2, 50]) {
  test(`a reset that takes ${reads} reads of the status is awaited`, (t) => {
    const guest = startGuest(t, { net: { resetReads: reads } });
    const lines = guest.machine.log.lines(/device_status/);
    const zero = lines.indexOf("read common.device_status 0");
    const next = lines.findIndex((line, i) => i > 0 && line.startsWith("write"));
    assert.is(zero, reads);
    assert.ok(next > zero, lines.slice(0, 6).join());
    assert.equal(guest.echo(payload), payload);
  });
}

test("a reset that never ends is an error after a bounded time, and status 35", (t) => {
  const guest = makeGuest(t, { net: { resetReads: Infinity } });
  const before = guest.machine.clock.now;
  guest.nic.pci.common.status = STATUS.acknowledge;
  guest.machine.boot();
  assert.equal(guest.errors(), ["the device does not finish its reset"]);
  assert.ok(guest.machine.clock.now - before < 5e9);
  assert.is(guest.exitStatus(), 35);
});

test("configuration that changes while it is read is read again", (t) => {
  const guest = startGuest(t, { net: { generationChanges: 6 } });
  assert.ok(guest.machine.log.lines(/read common.config_generation/).length >= 7);
  assert.ok(guest.machine.log.lines(/read device.mac0/).length >= 3);
  assert.equal(guest.echo(payload), payload);
});

test("a MAC that changes between two of its bytes is not taken half and half", (t) => {
  const guest = makeGuest(t);
  const [first, second] = ["02:00:00:00:00:01", "06:11:11:11:11:12"];
  guest.nic.config.write(first.replaceAll(":", ""), 0, "hex");
  let changed = false;
  guest.nic.pci.tamper = (register, value) => {
    if (register !== "mac2" || changed) return value;
    changed = true;
    guest.nic.config.write(second.replaceAll(":", ""), 0, "hex");
    guest.nic.pci.common.generation++;
    return value;
  };
  guest.start();
  assert.is(guest.machine.console.find("ready")?.mac, second);
});

test("configuration that never comes to rest is an error", (t) => {
  const guest = makeGuest(t, { net: { generationChanges: Infinity } });
  guest.machine.boot();
  assert.equal(guest.errors(), ["the configuration does not come to rest"]);
  assert.ok(guest.nic.pci.common.status & STATUS.failed);
});

for (const entries of [1, 2, 3, 4, 65, 2048]) {
  test(`MSI-X: ${entries} entries are used as far as they go`, (t) => {
    const guest = startGuest(t, { net: { msixEntries: entries } });
    const { common } = guest.nic.pci;
    const vectors = [common.configVector, ...common.queues.map(({ vector }) => vector)];
    assert.equal(vectors, [0, Math.min(1, entries - 1), Math.min(2, entries - 1)]);
    assert.equal(guest.echo(payload), payload);
  });
}

test("MSI-X: a mapping is read back, and one that did not take is an error", (t) => {
  const guest = makeGuest(t);
  guest.nic.pci.tamper = (register, value) =>
    register === "queue_msix_vector" ? NO_VECTOR : value;
  guest.machine.boot();
  assert.equal(guest.errors(), ["the device has no room for its interrupt vectors"]);
  assert.ok(guest.nic.pci.common.status & STATUS.failed);
});

test("MSI-X: in poll mode the queues are bound to no vector", (t) => {
  const guest = startGuest(t, { commandLine: `${STATIC_IP} mode=poll` });
  for (const { vector } of guest.nic.pci.common.queues) assert.is(vector, NO_VECTOR);
});

test("without MSI-X it warns, polls, and works", (t) => {
  const guest = startGuest(t, { net: { msixEntries: 0 } });
  assert.match(guest.machine.console.find("warning")?.message ?? "", /no MSI-X/);
  assert.equal(guest.echo(payload), payload);
});

test("without MSI-X a link that goes down is noticed (§5.1.4.2)", (t) => {
  const guest = startGuest(t, { net: { msixEntries: 0 } });
  guest.nic.setLink(false);
  guest.machine.run(() => guest.machine.console.all("link").length > 1, { us: 2_000_000 });
  assert.equal(
    guest.machine.console.all("link").map(({ up }) => up),
    [true, false],
  );
});

for (const multiplier of [0, 2, 4, 4096]) {
  test(`a notification multiplier of ${multiplier} leads to the right place`, (t) => {
    const guest = startGuest(t, { net: { notifyMultiplier: multiplier } });
    assert.equal(guest.echo(payload), payload);
  });
}

test.run();
