// HASH_REPORT: a net header of 20 bytes in both directions, what the driver makes of the hashes in
// it, and who chooses their types: RSS while it is on, the command of its own otherwise. virtio 1.4
// §5.1.9.4.4, §5.1.9.5.6.4

import { assert, parseUdpFrame, suite, type TestContext } from "qemu-test-harness";
import { type Guest, startGuest } from "../model/guest";
import { commandName } from "../model/net/control-commands";
import { toeplitz } from "../model/net/flows";
import { HASH_FEATURES } from "../model/net/net-options";
import type { FeatureName } from "../model/virtio/features";
import { options, start } from "./lanes";

const test = suite("hash report", { timeoutMs: 30_000 });

const KEY = Buffer.from(
  "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa",
  "hex",
);
const ALL_TYPES = 0x3f;
const payload = Buffer.from("hashed");

interface Hashes {
  readonly hashes?: Readonly<Record<string, number>>;
  readonly last_hash?: string;
  readonly last_hash_report?: string;
}

const hashesOf = (guest: Guest) => guest.stats().queues[0]?.rx as unknown as Hashes;
const names = (guest: Guest) => guest.nic.control.commands.map(commandName);

/** The hash of a frame by its addresses and, `withPorts`, its ports. */
function expected(frame: Buffer, withPorts: boolean, key: Buffer = KEY): string {
  const input = frame.subarray(26, withPorts ? 38 : 34);
  return toeplitz(key, input).toString(16).padStart(8, "0");
}

function one(t: TestContext, features: readonly FeatureName[] = HASH_FEATURES): Guest {
  return start(t, { cpus: 1, pairs: 1, net: { features } });
}

test("the hash of a datagram and its kind, as the device computed them", (t) => {
  const guest = one(t);
  assert.is(guest.nic.state.hash?.hashTypes, ALL_TYPES);
  assert.equal(guest.nic.state.hash?.key, KEY);
  assert.equal(guest.echo(payload), payload);
  const { hashes, last_hash, last_hash_report } = hashesOf(guest);
  assert.equal(hashes, { udpv4: 1 });
  assert.is(last_hash_report, "udpv4");
  assert.is(last_hash, expected(guest.peer.echoRequest(payload), true));
});

test("frames without a hash are counted as such", (t) => {
  const guest = one(t);
  guest.nic.receive(guest.peer.arpRequest());
  guest.nic.receive(guest.peer.ping(1, payload));
  guest.settle();
  assert.equal(hashesOf(guest).hashes, { none: 1, ipv4: 1 });
});

for (const [report, name] of [
  [0, "none"],
  [1, "ipv4"],
  [2, "tcpv4"],
  [3, "udpv4"],
  [4, "ipv6"],
  [5, "tcpv6"],
  [6, "udpv6"],
  [7, "ipv6_ex"],
  [8, "tcpv6_ex"],
  [9, "udpv6_ex"],
  [10, "unknown"],
  [0xff, "unknown"],
  [0xffff, "unknown"],
] as const) {
  test(`hash_report ${report} is ${name}, whatever is in the padding`, (t) => {
    const guest = one(t);
    guest.nic.receiver.tamper = (header) => {
      header.writeUInt32LE(0xcafe_f00d, 12);
      header.writeUInt16LE(report, 16);
      header.writeUInt16LE(0xffff, 18);
    };
    assert.equal(guest.echo(payload), payload);
    const { hashes, last_hash } = hashesOf(guest);
    assert.equal(hashes, { [name]: 1 });
    const isHash = report >= 1 && report <= 9;
    assert.is(last_hash, isHash ? "cafef00d" : undefined);
  });
}

test("without hash_report the header has 12 bytes, and nothing is said of hashes", (t) => {
  const guest = startGuest(t);
  assert.equal(guest.echo(payload), payload);
  assert.is(hashesOf(guest).hashes, undefined);
});

for (const without of [["mrg_rxbuf"], ["ctrl_vq", "mq"]] as const) {
  test(`frames of all sizes, without ${without.join(" and ")}`, (t) => {
    const features = HASH_FEATURES.filter((name) => !without.some((other) => other === name));
    const guest = startGuest(t, { net: { features } });
    assert.is(guest.nic.accepts("hash_report"), without[0] === "mrg_rxbuf");
    for (const bytes of [18, 600, 1471, 1472]) {
      const long = Buffer.alloc(bytes, bytes);
      assert.equal(guest.echo(long), long);
    }
  });
}

for (const spread of [100, 700]) {
  test(`merged of buffers with ${spread} bytes: the first one has the hash`, (t) => {
    const guest = one(t);
    guest.nic.receiver.spread = spread;
    const long = Buffer.alloc(1400, 7);
    assert.equal(guest.echo(long), long);
    assert.equal(hashesOf(guest).hashes, { udpv4: 1 });
    assert.is(hashesOf(guest).last_hash, expected(guest.peer.echoRequest(long), true));
  });
}

test("§5.1.9.3.1: large receives without merging, in buffers of 65,609 bytes", (t) => {
  const large = ["guest_csum", "guest_tso4"] as const;
  const features = [...HASH_FEATURES.filter((name) => name !== "mrg_rxbuf"), ...large];
  const guest = startGuest(t, { memoryMib: 64, net: { features, rxSize: 64, txSize: 64 } });
  assert.ok(guest.nic.receivesLarge);
  assert.equal(guest.echo(payload), payload);
  assert.equal(hashesOf(guest).hashes, { udpv4: 1 });
});

for (const used of [12, 19]) {
  test(`a used length of ${used}, less than the header, is dropped and counted`, (t) => {
    const guest = one(t);
    const { ring, queue } = guest.nic.live("rx");
    ring.give(ring.take(), used);
    ring.publish();
    guest.nic.pci.interruptQueue(queue);
    guest.settle();
    assert.equal(guest.stats().queues[0]?.rx.drops, { used_length: 1 });
    assert.equal(guest.echo(payload), payload);
  });
}

test("hash types and hash key: at once without rss, and again after a reset", (t) => {
  const guest = one(t);
  assert.is(guest.command("hash types ipv4").result, "ok");
  const key = "0102030405060708090a0b0c0d0e0f101112131415161718";
  assert.is(guest.command(`hash key ${key}`).result, "ok");
  const frame = guest.peer.echoRequest(payload);
  for (const round of ["at once", "after a reset"]) {
    guest.echo(payload);
    const { last_hash, last_hash_report } = hashesOf(guest);
    assert.is(last_hash_report, "ipv4", round);
    assert.is(last_hash, expected(frame, false, Buffer.from(key, "hex")), round);
    assert.is(guest.command("reset").result, "ok");
  }
  assert.is(guest.command("hash types -").result, "ok");
  guest.echo(payload);
  assert.is(hashesOf(guest).hashes?.none, 1);
});

for (const [line, complaint] of [
  ["hash types udpv7", 'hash: "udpv7" is no hash type of this device'],
  ["hash types ip_ex", 'hash: "ip_ex" is no hash type of this device'],
  ["hash key 0", 'hash: "0" is no key in hex as long as the device takes'],
  ["hash on", 'hash: "on" is not key or types'],
  ["hash types ipv4 more", 'hash: "more" is one too many'],
] as const) {
  test(`${line}: an error, and nothing is sent`, (t) => {
    const guest = one(t);
    const before = names(guest).length;
    guest.machine.console.type(line);
    guest.settle();
    assert.equal(guest.errors(), [complaint]);
    assert.is(names(guest).length, before);
  });
}

test("hash needs hash_report", (t) => {
  const guest = start(t, { cpus: 1, pairs: 1 });
  guest.machine.console.type("hash types ipv4");
  guest.settle();
  assert.equal(guest.errors(), ["hash: the device has not agreed to hash_report"]);
});

test("with rss on, its types are reported; off, those of hash; automatic steering, too", (t) => {
  const features: FeatureName[] = [...HASH_FEATURES, "rss"];
  const guest = startGuest(t, options({ cpus: 2, pairs: 2, net: { features } }));
  guest.settle();
  assert.equal(names(guest), ["RSS_CONFIG"], "no HASH_CONFIG, which would turn rss off");
  assert.is(guest.command("rss types ipv4").result, "ok");
  assert.is(guest.command("hash types udpv4").result, "ok");
  assert.equal(names(guest), ["RSS_CONFIG", "RSS_CONFIG"], "the types of hash wait");
  guest.nic.steer = () => 0;
  guest.echo(payload);
  assert.is(hashesOf(guest).last_hash_report, "ipv4");
  assert.is(guest.command("rss off").result, "ok");
  assert.equal(names(guest).slice(2), ["VQ_PAIRS_SET", "HASH_CONFIG"]);
  guest.echo(payload);
  assert.is(hashesOf(guest).last_hash_report, "udpv4");
  assert.is(guest.command("queues 1").result, "ok");
  assert.equal(names(guest).slice(4), ["VQ_PAIRS_SET", "HASH_CONFIG"]);
  guest.echo(payload);
  assert.equal(hashesOf(guest).hashes, { ipv4: 1, udpv4: 2 });
  assert.is(guest.command("rss on").result, "ok");
  guest.echo(payload);
  assert.is(hashesOf(guest).last_hash_report, "ipv4");
});

test("a device that refuses HASH_CONFIG: a warning, and traffic", (t) => {
  const guest = startGuest(t, { net: { features: HASH_FEATURES } });
  guest.nic.control.refuses = (sent) => commandName(sent) === "HASH_CONFIG";
  assert.is(guest.command("hash types ipv4").result, "refused");
  assert.is(guest.command("reset").result, "ok");
  const warnings = guest.machine.console.all("warning").map(({ message }) => message);
  assert.equal(warnings, ["the device does not take the types of hashes"]);
  assert.equal(guest.echo(payload), payload);
});

test("HASH_CONFIG that is never answered: one reset, and all goes on", (t) => {
  const guest = startGuest(t, { net: { features: HASH_FEATURES } });
  guest.settle();
  guest.nic.control.tamper = (sent, usual) =>
    commandName(sent) === "HASH_CONFIG" && guest.nic.pci.common.resets === 1 ? "never" : usual;
  assert.is(guest.command("hash types ipv4").result, "failed");
  guest.until(() => guest.nic.pci.common.resets === 2, "it resets the device", { us: 10e6 });
  assert.equal(guest.errors(), ["the device does not answer a command"]);
  guest.settle();
  assert.is(guest.nic.state.hash?.hashTypes, ALL_TYPES, "what was told before");
  const answer = parseUdpFrame(guest.peer.echoRequest(payload));
  assert.ok(answer !== undefined);
  assert.equal(guest.echo(payload), payload);
});

test.run();
