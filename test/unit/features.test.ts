// Negotiation: what is accepted of what is offered, and what happens when it does not work out.
// virtio 1.4 §2.2.1, §3.1.1, §5.1.4.2, §6.1

import { assert, suite } from "qemu-test-harness";
import { makeGuest, STATIC_IP, startGuest } from "../model/guest";
import { USUAL_FEATURES } from "../model/net/net-device";
import { Random } from "../model/random";
import { STATUS } from "../model/virtio/common-config";
import { bit, FEATURE_BITS, type FeatureName, featureSet } from "../model/virtio/features";

const test = suite("features");

const OPTIONAL = USUAL_FEATURES.filter((name) => name !== "version_1");
const payload = Buffer.from("whatever was agreed upon");

for (const name of OPTIONAL) {
  test(`${name} is accepted if offered`, (t) => {
    const guest = startGuest(t, { net: { features: [name, "version_1"] } });
    assert.equal(guest.nic.pci.common.accepted, bit(name) | bit("version_1"));
    assert.equal(guest.machine.console.find("features")?.accepted, [name, "version_1"]);
  });

  test(`${name} is not accepted if not offered, and the driver works without`, (t) => {
    const features = USUAL_FEATURES.filter((other) => other !== name);
    const guest = startGuest(t, { net: { features } });
    assert.equal(guest.nic.pci.common.accepted, featureSet(features));
  });

  test(`${name} is left out by features=-${name}, with the reason`, (t) => {
    const guest = startGuest(t, { commandLine: `${STATIC_IP} features=-${name}` });
    assert.equal(guest.nic.accepts(name), false);
    const declined = guest.machine.console.find("features")?.declined;
    assert.equal(declined, [{ name, reason: "left out on the command line" }]);
  });
}

test("version_1 alone is enough", (t) => {
  const guest = startGuest(t, { net: { features: ["version_1"] } });
  assert.is(guest.nic.pci.common.accepted, bit("version_1"));
  assert.match(guest.machine.console.find("ready")?.mac ?? "", /^.[26ae]:/);
});

test("features=-a,-b leaves out both", (t) => {
  const commandLine = `${STATIC_IP} features=-mrg_rxbuf,-event_idx`;
  const guest = startGuest(t, { commandLine });
  assert.is(guest.nic.accepts("mrg_rxbuf") || guest.nic.accepts("event_idx"), false);
  assert.equal(guest.echo(payload), payload);
});

/** What the driver has code for beside the usual ones. */
const IMPLEMENTED: FeatureName[] = [
  ...(["csum", "guest_csum", "guest_tso4", "guest_tso6", "guest_ecn"] as const),
  ...(["host_tso4", "host_tso6", "host_ecn", "guest_uso4", "guest_uso6", "host_uso"] as const),
  ...(["guest_hdrlen", "ctrl_vq", "ctrl_rx", "ctrl_vlan", "ctrl_rx_extra"] as const),
  ...(["guest_announce", "mq", "ctrl_mac_addr", "ctrl_guest_offloads", "rss"] as const),
  ...(["access_platform", "ring_packed", "in_order", "order_platform"] as const),
  ...(["notification_data", "notif_config_data"] as const),
  ...(["hash_report", "ring_reset"] as const),
];
/** Bits of the same kind that the model has no names for: statistics, coalescing, speed. */
const IMPLEMENTED_BITS = [50n, 52n, 53n, 63n].reduce((set, n) => set | (1n << n), 0n);

test("every other bit up to 127 is declined, each with a reason, and changes nothing", (t) => {
  const all = ((1n << 128n) - 1n) & ~featureSet(IMPLEMENTED) & ~IMPLEMENTED_BITS;
  const guest = startGuest(t, { net: { moreFeatures: all } });
  assert.is(guest.nic.pci.common.accepted, featureSet(USUAL_FEATURES));
  const declined = guest.machine.console.find("features")?.declined ?? [];
  assert.is(declined.length, 128 - USUAL_FEATURES.length - IMPLEMENTED.length - 4);
  assert.ok(declined.every(({ reason }) => reason.length > 0));
  assert.equal(guest.echo(payload), payload);
});

// What a bit needs, the model checks at FEATURES_OK.
test("of 200 random offers nothing is taken that is not on offer or lacks what it needs", (t) => {
  const random = new Random(3);
  const names = Object.keys(FEATURE_BITS) as FeatureName[];
  for (let i = 0; i < 200; i++) {
    const some = names.filter((name) => name === "version_1" || random.below(2) === 1);
    const guest = startGuest(t, { net: { features: some } });
    const { accepted } = guest.nic.pci.common;
    const usual = featureSet(some.filter((name) => USUAL_FEATURES.includes(name)));
    assert.is(accepted & usual, usual, some.join());
    assert.is(accepted & ~featureSet(some), 0n, some.join());
  }
});

test("without version_1 on offer: an error, FAILED, status 35", (t) => {
  const guest = makeGuest(t, { net: { features: OPTIONAL } });
  guest.machine.boot();
  assert.equal(guest.errors(), ["the device does not offer version_1: it is legacy only"]);
  assert.ok(guest.nic.pci.common.status & STATUS.failed);
  assert.not(guest.nic.pci.common.status & STATUS.driverOk);
  assert.is(guest.exitStatus(), 35);
});

test("version_1 left out on the command line: an error that says so", (t) => {
  const guest = makeGuest(t, { commandLine: `${STATIC_IP} features=-version_1` });
  guest.machine.boot();
  assert.match(guest.errors()[0] ?? "", /version_1 was left out/);
  assert.ok(guest.nic.pci.common.status & STATUS.failed);
  assert.is(guest.exitStatus(), 35);
});

test("FEATURES_OK refused: an error, FAILED, and bring-up does not go on", (t) => {
  const guest = makeGuest(t, { net: { refusesFeatures: true } });
  guest.machine.boot();
  assert.equal(guest.errors(), ["the device refuses the features"]);
  assert.ok(guest.nic.pci.common.status & STATUS.failed);
  assert.is(guest.machine.log.lines(/write common.queue/).length, 0);
  assert.is(guest.exitStatus(), 35);
});

for (const mtu of [0, 1, 67]) {
  test(`an MTU of ${mtu} on offer is not accepted`, (t) => {
    const guest = startGuest(t, { net: { mtu } });
    assert.is(guest.nic.accepts("mtu"), false);
    assert.is(guest.machine.console.find("ready")?.mtu, 1500);
    assert.equal(guest.echo(payload), payload);
  });
}

test("an MTU that is 1500 at first sight and 0 at the second is not taken", (t) => {
  const guest = makeGuest(t);
  let reads = 0;
  guest.nic.pci.tamper = (name, value) => (name === "mtu" && reads++ > 0 ? 0 : value);
  guest.start();
  assert.ok((guest.machine.console.find("ready")?.mtu ?? 0) >= 68);
});

test("without mac on offer the address is made up, unicast and locally administered", (t) => {
  const features = USUAL_FEATURES.filter((name) => name !== "mac");
  const macs = [1, 2, 3].map((seed) => {
    const guest = startGuest(t, { seed, net: { features } });
    return guest.machine.console.find("ready")?.mac ?? "";
  });
  for (const mac of macs) assert.is(Number.parseInt(mac.slice(0, 2), 16) & 3, 2, mac);
  assert.is(new Set(macs).size, 3, "the addresses differ");
});

test("without status on offer the link counts as up", (t) => {
  const features = USUAL_FEATURES.filter((name) => name !== "status");
  const guest = startGuest(t, { net: { features, linkUp: false } });
  assert.is(guest.machine.console.find("link")?.up, true);
  assert.equal(guest.echo(payload), payload);
});

test("with status a link that is down is told, and nothing is sent", (t) => {
  const guest = startGuest(t, { net: { linkUp: false } });
  guest.settle();
  assert.is(guest.machine.console.find("link")?.up, false);
  assert.is(guest.peer.frames.length, 0);
});

for (const [name, field] of [
  ["status", "status"],
  ["mtu", "mtu"],
] as const) {
  test(`configuration: ${field} is not read unless ${name} is offered (§2.5.1)`, (t) => {
    const features = USUAL_FEATURES.filter((other) => other !== name);
    const guest = startGuest(t, { net: { features } });
    assert.equal(guest.machine.log.lines(new RegExp(`read device.${field} `)), []);
  });
}

for (const configBytes of [1, 6, 8, 10, 12, 64]) {
  test(`configuration: a structure of ${configBytes} bytes is enough for what it holds`, (t) => {
    const ends = { mac: 6, status: 8, mtu: 12 };
    const held = (["mac", "status", "mtu"] as const).filter((name) => ends[name] <= configBytes);
    const guest = startGuest(t, { net: { configBytes, features: [...held, "version_1"] } });
    assert.is(guest.machine.console.find("ready")?.mtu, 1500);
  });
}

test("bits that need ctrl_vq are not accepted without it (§5.1.3.1, §5.1.4.2)", (t) => {
  const needy = [2n, 18n, 19n, 20n, 21n, 22n, 23n, 50n, 52n, 53n, 57n, 60n];
  const moreFeatures = needy.reduce((set, n) => set | (1n << n), 0n);
  const guest = startGuest(t, { net: { moreFeatures } });
  assert.is(guest.nic.pci.common.accepted, featureSet(USUAL_FEATURES));
});

test("standby is declined, with a reason of its own", (t) => {
  const guest = startGuest(t, { net: { moreFeatures: 1n << 62n } });
  const declined = guest.machine.console.find("features")?.declined;
  assert.equal(declined, [
    { name: "standby", reason: "there is no driver for the primary device" },
  ]);
});

for (const [low, high, duplexByte, speed, duplex] of [
  [1000, 0, 1, 1000, "full"],
  [0, 0, 0, 0, "half"],
  [0xffff, 0x7fff, 1, 0x7fffffff, "full"],
  [0, 0x8000, 2, "unknown", "unknown"],
  [0xffff, 0xffff, 0xff, "unknown", "unknown"],
] as const) {
  test(`speed ${high * 65536 + low}, duplex ${duplexByte}: ${speed}, ${duplex} (§5.1.4.2)`, (t) => {
    const guest = makeGuest(t, { net: { moreFeatures: 1n << 63n } });
    guest.nic.config.writeUInt16LE(low, 12);
    guest.nic.config.writeUInt16LE(high, 14);
    guest.nic.config.writeUInt8(duplexByte, 16);
    guest.machine.boot();
    const link = guest.machine.console.find("link") as Record<string, unknown> | undefined;
    assert.equal([link?.speed, link?.duplex], [speed, duplex]);
  });
}

test.run();
