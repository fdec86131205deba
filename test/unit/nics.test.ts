// Several NICs on one machine: each is brought up, numbered in the order of the buses, echoes on its
// own, and takes its own commands.

import { assert, type FeaturesEvent, suite } from "qemu-test-harness";
import { type GuestOptions, makeGuest, STATIC_IP, startGuest } from "../model/guest";
import { MQ_FEATURES, USUAL_FEATURES } from "../model/net/net-device";
import { resources } from "./lanes";

const test = suite("several NICs");

const ADDRESSES = Array.from({ length: 6 }, (_, nic) => `ip${nic || ""}=192.0.2.2/24`);
const addresses = (count: number) => ADDRESSES.slice(0, count).join(" ");

/** A machine with so many NICs, each with its address. */
function shape(count: number, options: GuestOptions = {}): GuestOptions {
  const commandLine = addresses(count);
  return { commandLine, more: Array.from({ length: count - 1 }, () => ({})), ...options };
}

for (const count of [2, 3, 6]) {
  test(`${count} NICs: numbered in the order of the buses, and each echoes`, (t) => {
    const guest = startGuest(t, shape(count, { memoryMib: 64 }));
    const { console } = guest.machine;
    const places = console.all("device").map(({ nic, pci }) => ({ nic, pci }));
    assert.equal(
      places,
      Array.from({ length: count }, (_, nic) => ({ nic, pci: `00:${`0${2 + nic}`.slice(-2)}.0` })),
    );
    guest.settle();
    const before = Array.from({ length: count }, (_, nic) => resources(guest.stats(nic).queues));
    for (let round = 0; round < 3; round++) {
      for (let nic = 0; nic < count; nic++) {
        const payload = Buffer.from(`NIC ${nic}, round ${round}`);
        assert.equal(guest.echo(payload, nic), payload);
      }
    }
    guest.settle();
    for (let nic = 0; nic < count; nic++) {
      const stats = guest.stats(nic);
      assert.is(stats.accepted, 3);
      assert.equal(resources(stats.queues), before[nic]);
    }
  });
}

test("seven NICs are too many: an error says so, status 35", (t) => {
  const guest = makeGuest(t, shape(6, { more: Array.from({ length: 6 }, () => ({})) }));
  guest.machine.boot();
  assert.equal(guest.errors(), ["more than 6 virtio-net devices on the PCI buses"]);
  assert.is(guest.exitStatus(), 35);
});

for (const [words, message] of [
  ["ip2=192.0.2.3/24", 'ip2: "192.0.2.3/24" is for a NIC that is not there'],
  ["ip1=192.0.2.3/24 ip3=dhcp", 'ip3: "dhcp" is for a NIC that is not there'],
  ["ip5=dhcp gw5=192.0.2.9", 'ip5: "dhcp" is for a NIC that is not there'],
] as const) {
  test(`${words} with two NICs: an error that names it, status 35`, (t) => {
    const guest = makeGuest(t, shape(2, { commandLine: `${STATIC_IP} ${words}` }));
    guest.machine.boot();
    assert.equal(guest.errors(), [message]);
    assert.is(guest.exitStatus(), 35);
  });
}

test("a NIC without MSI-X and one with a single queue work beside one with four lanes", (t) => {
  const guest = startGuest(t, {
    commandLine: addresses(3),
    cpus: 4,
    memoryMib: 64,
    net: { features: MQ_FEATURES, pairs: 4 },
    more: [{ msixEntries: 0 }, { rxSize: 16, txSize: 8 }],
  });
  const ready = guest.machine.console.all("ready");
  const queues = ready.sort((a, b) => a.nic - b.nic).map((event) => event.queues);
  assert.equal(queues, [4, 1, 1]);
  for (let nic = 0; nic < 3; nic++) {
    for (let round = 0; round < 50; round++) {
      const payload = Buffer.from(`${nic}.${round}`);
      assert.equal(guest.echo(payload, nic), payload);
    }
  }
});

test("two NICs with two lanes each: both CPUs run both", (t) => {
  const net = { features: MQ_FEATURES, pairs: 2 };
  const options = { commandLine: addresses(2), cpus: 2, memoryMib: 64, net, more: [net] };
  const guest = startGuest(t, options);
  for (const nic of [0, 1]) {
    for (const pair of [0, 1]) {
      guest.nicAt(nic).steer = () => pair;
      for (let round = 0; round < 5; round++) guest.echo(Buffer.from(`${nic}${pair}${round}`), nic);
    }
    const packets = guest.stats(nic).queues.map(({ rx }) => rx.packets);
    assert.equal(packets, [5, 5]);
  }
});

test("commands go to the NIC that they name, and to NIC 0 without a name", (t) => {
  const features = [...USUAL_FEATURES, "ctrl_vq", "ctrl_rx", "ctrl_vlan"] as const;
  const guest = startGuest(t, shape(2, { net: { features }, more: [{ features }] }));
  const { console } = guest.machine;
  const done = (count: number) =>
    guest.until(() => console.all("control").length >= count, `${count} commands are done`);
  console.type("nic 1 rx allmulti on");
  console.type("vlan add 5");
  console.type("nic 1 vlan add 6");
  console.type("nic 0 vlan add 7");
  done(4);
  assert.equal(
    console
      .all("control")
      .map(({ nic, command, result }) => `${nic} ${command} ${result}`)
      .sort(),
    ["0 vlan add 5 ok", "0 vlan add 7 ok", "1 rx allmulti on ok", "1 vlan add 6 ok"],
  );
  assert.is(guest.nicAt(1).state.allMulticast, true);
  assert.is(guest.nicAt(0).state.allMulticast, false);
  assert.equal([...guest.nicAt(0).state.vlans], [5, 7]);
  assert.equal([...guest.nicAt(1).state.vlans], [6]);
});

test("a NIC that answers late holds up the other's commands, not its packets", (t) => {
  const features = [...USUAL_FEATURES, "ctrl_vq", "ctrl_vlan"] as const;
  const guest = startGuest(t, shape(2, { net: { features }, more: [{ features }] }));
  const { console } = guest.machine;
  guest.nicAt(0).control.delayUs = 500_000;
  console.type("vlan add 5");
  console.type("nic 1 vlan add 6");
  guest.echo(Buffer.from("meanwhile"), 1);
  assert.is(console.all("control").length, 0);
  guest.until(() => console.all("control").length === 2, "both are done");
  assert.equal(
    console.all("control").map(({ nic }) => nic),
    [0, 1],
  );
});

test("stats prints an event a NIC, nic 1 stats only that one", (t) => {
  const guest = startGuest(t, shape(2));
  const { console } = guest.machine;
  const nics = () => console.all("stats").map(({ nic }) => nic);
  console.type("stats");
  guest.until(() => nics().length === 2, "stats of both");
  console.type("nic 1 stats");
  guest.until(() => nics().length === 3, "stats of one");
  guest.settle();
  assert.equal(nics(), [0, 1, 1]);
});

test("help is that of the NIC named", (t) => {
  const features = [...USUAL_FEATURES, "ctrl_vq", "ctrl_vlan"] as const;
  const guest = startGuest(t, shape(2, { more: [{ features }] }));
  const { console } = guest.machine;
  for (const [index, line] of ["help", "nic 1 help"].entries()) {
    console.type(line);
    guest.until(() => console.all("help").length > index, line);
  }
  const vlan = console
    .all("help")
    .map(({ nic, commands }) => [nic, (commands as string[]).includes("vlan add|del <0-4094>")]);
  assert.equal(vlan, [
    [0, false],
    [1, true],
  ]);
});

for (const [line, message] of [
  ["nic 2 stats", "nic 2: the last one is NIC 1"],
  ["nic 5 vlan add 3", "nic 5: the last one is NIC 1"],
] as const) {
  test(`${line} with two NICs is an error`, (t) => {
    const guest = startGuest(t, shape(2));
    guest.machine.console.type(line);
    guest.settle();
    assert.equal(guest.errors(), [message]);
  });
}

for (const line of ["nic", "nic 6 stats", "nic x stats", "nic 1", "nic 01x stats", "nic 1 dance"]) {
  test(`"${line}" is no command`, (t) => {
    const guest = startGuest(t, shape(2));
    const { console } = guest.machine;
    console.type(line);
    guest.settle();
    const [warning] = console.all("warning");
    assert.match(warning?.message ?? "", /is no command/);
  });
}

test("one NIC's reset leaves the other one alone", (t) => {
  const guest = startGuest(t, shape(2));
  const { console } = guest.machine;
  const resets = guest.nicAt(1).pci.common.resets;
  guest.echo(Buffer.from("before"), 0);
  console.type("reset");
  guest.until(() => console.all("control").length === 1, "the reset is done");
  for (const nic of [0, 1]) guest.echo(Buffer.from("after"), nic);
  assert.is(guest.nicAt(1).pci.common.resets, resets);
  assert.is(guest.stats(0).recoveries, 1);
  assert.is(guest.stats(1).recoveries, 0);
});

test("each NIC has features of its own", (t) => {
  const guest = startGuest(t, shape(2, { more: [{ features: ["version_1", "mac"] }] }));
  const events = guest.machine.console.all("features") as FeaturesEvent[];
  assert.equal(events[1]?.accepted, ["mac", "version_1"]);
  assert.ok(events[0]?.accepted.includes("event_idx"));
  for (const nic of [0, 1]) guest.echo(Buffer.from("both"), nic);
});

test.run();
