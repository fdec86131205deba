// NICs that are taken out and put in while the machine runs: by asking first (ACPI, root ports) and
// by surprise. Others go on meanwhile, nothing leaks, and what comes back has its settings.

import { assert, suite, type TestContext } from "qemu-test-harness";
import { type Guest, type GuestOptions, startGuest } from "../model/guest";
import { MQ_FEATURES, type NetOptions, USUAL_FEATURES } from "../model/net/net-device";
import { HOTPLUG_PORTS, HotplugPorts } from "../model/pci/hotplug-ports";
import { resources } from "./lanes";

const test = suite("hot-plug", { timeoutMs: 60_000 });

const TWO = "ip=192.0.2.2/24 ip1=192.0.2.2/24";
/** What a NIC that is put in later has: nobody has given its BARs addresses. */
const BARE = { hasFirmware: false };
const LOOK_US = 1_100_000;

function start(t: TestContext, options: GuestOptions = {}): Guest {
  const guest = startGuest(t, { commandLine: TWO, more: [{}], ...options });
  guest.settle();
  return guest;
}

function removedCount(guest: Guest): number {
  return guest.machine.console.all("removed").length;
}

/** Lets the guest's next look pass. */
function pass(guest: Guest, us = LOOK_US): void {
  guest.machine.run(() => false, { us });
}

function takeOut(guest: Guest, nic: number): void {
  const before = removedCount(guest);
  guest.nicAt(nic).unplug();
  guest.until(() => removedCount(guest) > before, "it is seen that the NIC is gone");
}

function putIn(guest: Guest, nic: number, options: Partial<NetOptions> = {}): void {
  const { console } = guest.machine;
  const before = console.all("ready").length;
  guest.plugIn(nic, { ...BARE, ...options });
  guest.until(() => console.all("ready").length > before, "the NIC is back");
  guest.settle();
}

for (const gone of [0, 1]) {
  test(`NIC ${gone} vanishes: an event, the other one goes on, and it comes back`, (t) => {
    const guest = start(t);
    const before = [0, 1].map((nic) => resources(guest.stats(nic).queues));
    for (const nic of [0, 1]) guest.echo(Buffer.from("before"), nic);
    takeOut(guest, gone);
    const { console } = guest.machine;
    const [removed] = console.all("removed");
    assert.equal(
      { nic: removed?.nic, pci: removed?.pci, orderly: removed?.orderly },
      { nic: gone, pci: `00:0${2 + gone}.0`, orderly: false },
    );
    assert.equal(console.all("link").at(-1)?.up, false);
    const away = guest.stats(gone) as unknown as { removed?: boolean };
    assert.is(away.removed, true);
    for (let round = 0; round < 20; round++) {
      guest.echo(Buffer.from(`meanwhile ${round}`), 1 - gone);
      pass(guest, 100_000);
    }
    putIn(guest, gone);
    for (const nic of [0, 1]) guest.echo(Buffer.from("after"), nic);
    guest.settle();
    for (const nic of [0, 1]) {
      assert.equal(resources(guest.stats(nic).queues), before[nic]);
    }
  });
}

test("the packets that the device had are free while it is gone", (t) => {
  const guest = start(t);
  guest.nicAt(0).paused.tx = true;
  for (let i = 0; i < 50; i++) {
    guest.nicAt(0).receive(guest.peerAt(0).echoRequest(Buffer.from(`${i}`)));
  }
  guest.settle();
  takeOut(guest, 0);
  const [queue] = guest.stats(0).queues as unknown as { pool_free: number; pool_size: number }[];
  assert.is(queue?.pool_free, queue?.pool_size);
});

test("out and in again twenty times, with traffic: nothing leaks, and no more is mapped", (t) => {
  const guest = start(t);
  let pages = 0;
  const before = resources(guest.stats(0).queues);
  for (let round = 0; round < 20; round++) {
    takeOut(guest, 0);
    guest.echo(Buffer.from(`other ${round}`), 1);
    putIn(guest, 0);
    for (let i = 0; i < 10; i++) guest.echo(Buffer.from(`${round}.${i}`), 0);
    guest.settle();
    assert.equal(resources(guest.stats(0).queues), before);
    if (round === 0) pages = guest.machine.bus.mappedPages;
  }
  assert.is(guest.machine.bus.mappedPages, pages);
});

for (const cpus of [2, 4]) {
  test(`with lanes on ${cpus} CPUs: all of them stop, and all of them come back`, (t) => {
    const net = { features: MQ_FEATURES, pairs: cpus };
    const guest = start(t, { cpus, memoryMib: 32 * cpus, net, more: [net] });
    const before = resources(guest.stats(0).queues);
    for (let round = 0; round < 5; round++) {
      takeOut(guest, 0);
      guest.nicAt(1).steer = () => round % cpus;
      guest.echo(Buffer.from("other"), 1);
      putIn(guest, 0, net);
      for (let pair = 0; pair < cpus; pair++) {
        guest.nicAt(0).steer = () => pair;
        guest.echo(Buffer.from(`${pair}`), 0);
      }
      guest.nicAt(0).steer = undefined;
      guest.settle();
      assert.equal(resources(guest.stats(0).queues), before);
    }
  });
}

test("what it was told before it is told again", (t) => {
  const features = [...USUAL_FEATURES, "ctrl_vq", "ctrl_rx", "ctrl_vlan"] as const;
  const guest = start(t, { net: { features } });
  const { console } = guest.machine;
  for (const line of ["rx promiscuous on", "vlan add 42"]) console.type(line);
  guest.until(() => console.all("control").length === 2, "both are done");
  takeOut(guest, 0);
  putIn(guest, 0, { features });
  assert.is(guest.nicAt(0).state.promiscuous, true);
  assert.equal([...guest.nicAt(0).state.vlans], [42]);
});

test("one with fewer features comes back, and is told nothing that it has no feature for", (t) => {
  const features = [...USUAL_FEATURES, "ctrl_vq", "ctrl_rx", "ctrl_vlan"] as const;
  const guest = start(t, { net: { features } });
  const { console } = guest.machine;
  console.type("vlan add 42");
  guest.until(() => console.all("control").length === 1, "it is done");
  takeOut(guest, 0);
  putIn(guest, 0, { features: [...USUAL_FEATURES, "ctrl_vq", "ctrl_rx"] });
  assert.match(console.all("warning")[0]?.message ?? "", /fewer features than before/);
  guest.echo(Buffer.from("after"), 0);
});

for (const [what, options, message] of [
  ["one with fewer queue pairs", { pairs: 1 }, /fewer queue pairs/],
  ["one with smaller queues", { rxSize: 64 }, /queues have become smaller/],
  ["a legacy one", { features: ["mac"] }, /legacy only/],
  ["another kind of device", { deviceId: 0x1042 }, /not a virtio-net device/],
  ["one that does not finish its reset", { resetReads: 1e9 }, /does not finish its reset/],
] as const) {
  test(`${what} in its place: an error, once, and the other NIC goes on`, (t) => {
    const net = { features: MQ_FEATURES, pairs: 2 };
    const guest = start(t, { cpus: 2, memoryMib: 64, net });
    takeOut(guest, 0);
    guest.plugIn(0, { ...net, ...BARE, ...options });
    pass(guest, 5_000_000);
    const errors = guest.errors();
    assert.is(errors.length, 1, errors.join());
    assert.match(errors[0] ?? "", message);
    guest.echo(Buffer.from("other"), 1);
    takeOutUnused(guest);
    putIn(guest, 0, net);
    guest.echo(Buffer.from("the right one"), 0);
  });
}

/** What was refused leaves without an event. */
function takeOutUnused(guest: Guest): void {
  guest.nicAt(0).unplug();
  pass(guest, 2_200_000);
}

test("gone in the middle of a command: it has failed, and so have those that wait", (t) => {
  const features = [...USUAL_FEATURES, "ctrl_vq", "ctrl_vlan"] as const;
  const guest = start(t, { net: { features }, more: [{ features }] });
  const { console } = guest.machine;
  guest.nicAt(0).control.delayUs = 1_900_000;
  for (const vlan of [5, 6, 7]) console.type(`vlan add ${vlan}`);
  console.type("nic 1 vlan add 8");
  guest.settle();
  takeOut(guest, 0);
  guest.until(() => console.all("control").length === 4, "all have come to an end");
  assert.equal(
    console.all("control").map(({ nic, command, result }) => `${nic} ${command} ${result}`),
    ["0 vlan add 5 failed", "0 vlan add 6 failed", "0 vlan add 7 failed", "1 vlan add 8 ok"],
  );
  putIn(guest, 0, { features });
  console.type("vlan add 9");
  guest.until(() => console.all("control").length === 5, "a later one is done");
  assert.equal([...guest.nicAt(0).state.vlans], [9]);
});

test("a command for a NIC that is gone is an error", (t) => {
  const guest = start(t);
  takeOut(guest, 0);
  guest.machine.console.type("announce");
  guest.settle();
  assert.equal(guest.errors(), ["nic 0: it is not plugged in"]);
});

test("gone when a command resets it: no panic, no error, and it comes back", (t) => {
  const guest = start(t);
  guest.nicAt(0).unplug();
  guest.machine.console.type("reset");
  guest.until(() => removedCount(guest) === 1, "it is seen that the NIC is gone");
  guest.machine.run(() => false, { us: 100_000 });
  putIn(guest, 0);
  guest.echo(Buffer.from("after"), 0);
});

/** Takes the NIC out after so many machine calls; the answer does it at once if it is still in. */
function unplugAfter(guest: Guest, calls: number): () => void {
  let left = calls;
  const unplug = () => {
    if (guest.machine.onAccess === undefined) return;
    guest.machine.onAccess = undefined;
    guest.nicAt(0).unplug();
  };
  guest.machine.onAccess = () => {
    if (--left <= 0) unplug();
  };
  return unplug;
}

for (const first of [1, 14, 27]) {
  test(`gone at any moment of a bring-up, from access ${first} on: no panic, no hang`, (t) => {
    const features = [...USUAL_FEATURES, "ctrl_vq", "ctrl_vlan"] as const;
    const guest = start(t, { net: { features } });
    takeOut(guest, 0);
    for (let round = 0; round < 15; round++) {
      const { console } = guest.machine;
      const isUp = () =>
        console
          .all("link")
          .filter(({ nic }) => nic === 0)
          .at(-1)?.up === true;
      guest.plugIn(0, { features, ...BARE });
      const unplug = unplugAfter(guest, first + 39 * round);
      pass(guest, 8_000_000);
      unplug();
      guest.until(() => !isUp(), "it is seen that the NIC is gone", { us: 10_000_000 });
      // What was read while it went may be told as what was wrong with it.
      guest.errors();
      guest.echo(Buffer.from("other"), 1);
      pass(guest);
      putIn(guest, 0, { features });
      guest.echo(Buffer.from("after"), 0);
      takeOut(guest, 0);
    }
  });
}

test("gone at any moment while packets pass: no panic, no leak", (t) => {
  const guest = start(t);
  const before = resources(guest.stats(0).queues);
  for (let round = 0; round < 60; round++) {
    for (let i = 0; i < 40; i++) {
      guest.nicAt(0).receive(guest.peerAt(0).echoRequest(Buffer.from(`${i}`)));
    }
    unplugAfter(guest, 7 + 17 * round);
    guest.until(() => removedCount(guest) === round + 1, "it is seen that the NIC is gone");
    guest.echo(Buffer.from("other"), 1);
    putIn(guest, 0);
    guest.settle();
    assert.equal(resources(guest.stats(0).queues), before);
  }
});

// ---- asked first ----------------------------------------------------------------------------------

test("ACPI, bus 0: the NIC is reset before its slot is let go", (t) => {
  const guest = start(t, { hostBridge: "pc" });
  const hotplug = new HotplugPorts(HOTPLUG_PORTS.pc);
  guest.machine.pci.hotplug = hotplug;
  const resets = guest.nicAt(1).pci.common.resets;
  const ejected: string[] = [];
  hotplug.onEject = (bus, slot) => {
    ejected.push(`${bus}.${slot}: ${guest.nicAt(1).pci.common.resets - resets} resets`);
    guest.nicAt(1).unplug();
  };
  hotplug.ask(0, 3);
  guest.until(() => removedCount(guest) === 1, "the NIC is removed");
  guest.until(() => ejected.length > 0, "the slot is let go");
  assert.equal(ejected, ["0.3: 1 resets"]);
  assert.is(guest.machine.console.all("removed")[0]?.orderly, true);
  guest.echo(Buffer.from("other"), 0);
  putIn(guest, 1);
  guest.echo(Buffer.from("after"), 1);
});

test("asked for with lanes on two CPUs and frames on their way: it leaves in order", (t) => {
  const net = { features: MQ_FEATURES, pairs: 2, resetReads: 50 };
  const guest = start(t, { cpus: 2, memoryMib: 64, net, hostBridge: "pc" });
  const hotplug = new HotplugPorts(HOTPLUG_PORTS.pc);
  guest.machine.pci.hotplug = hotplug;
  hotplug.onEject = () => guest.nicAt(0).unplug();
  guest.nicAt(0).steer = () => 1;
  // The guest's look is where it finds that it is asked: from there on frames are to come in.
  hotplug.onSeen = () => {
    const frame = guest.peerAt(0).echoRequest(Buffer.from("while it goes"));
    for (let i = 0; i < 500; i++) guest.nicAt(0).receive(frame);
  };
  hotplug.ask(0, 2);
  guest.until(() => !guest.machine.pci.has(2 << 3), "the slot is let go");
  assert.is(guest.machine.console.all("removed")[0]?.orderly, true);
  guest.echo(Buffer.from("other"), 1);
});

test("ACPI: a slot with something else in it is let go, and no NIC minds", (t) => {
  const guest = start(t, { hostBridge: "pc" });
  const hotplug = new HotplugPorts(HOTPLUG_PORTS.pc);
  guest.machine.pci.hotplug = hotplug;
  const ejected: string[] = [];
  hotplug.onEject = (bus, slot) => ejected.push(`${bus}.${slot}`);
  hotplug.ask(0, 9);
  hotplug.ask(3, 2);
  guest.until(() => ejected.length === 2, "both are let go");
  assert.equal(ejected, ["0.9", "3.2"]);
  for (const nic of [0, 1]) guest.echo(Buffer.from("still there"), nic);
  assert.is(removedCount(guest), 0);
});

// ---- app=forward ----------------------------------------------------------------------------------

test("forward: what comes in while the other NIC is gone is dropped, and later goes through", (t) => {
  const guest = start(t, { commandLine: "app=forward" });
  const before = [0, 1].map((nic) => resources(guest.stats(nic).queues));
  const frame = Buffer.alloc(60, 0x11);
  const frames = Array.from({ length: 30 }, () => frame);
  for (let round = 0; round < 6; round++) {
    const gone = round % 2;
    // Some of what it was to send is still in its ring.
    guest.nicAt(gone).paused.tx = true;
    for (const each of frames) guest.nicAt(1 - gone).receive(each);
    guest.settle();
    takeOut(guest, gone);
    for (const each of frames) guest.nicAt(1 - gone).receive(each);
    guest.settle();
    putIn(guest, gone);
    for (const from of [0, 1]) {
      const out = guest.peerAt(1 - from).frames;
      const count = out.length;
      for (const each of frames) guest.nicAt(from).receive(each);
      guest.settle();
      assert.is(out.length - count, frames.length);
    }
  }
  for (const nic of [0, 1]) {
    const stats = guest.stats(nic);
    assert.equal(resources(stats.queues), before[nic]);
    assert.equal(stats.queues[0]?.rx.drops, { forward_down: 90 });
  }
});

test.run();
