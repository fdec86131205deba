// The device's side of the control queue by itself: what each command does to its state, and which
// ones a driver must not send. The commands do not come from the driver here. virtio 1.4 §5.1.9.5

import { assert, suite, type TestContext } from "qemu-test-harness";
import { type Guest, startGuest } from "../model/guest";
import { carryOut, ERR, OK } from "../model/net/control-commands";
import { toeplitz } from "../model/net/flows";
import { type FeatureName, featureSet } from "../model/virtio/features";
import { options } from "./lanes";

const test = suite("control model");

const ALL: readonly FeatureName[] = [
  ...(["ctrl_vq", "mq", "ctrl_rx", "ctrl_rx_extra", "ctrl_vlan", "ctrl_mac_addr"] as const),
  ...(["guest_announce", "rss", "hash_report", "notf_coal", "vq_notf_coal"] as const),
  ...(["device_stats", "hash_tunnel", "rss_context", "ctrl_guest_offloads", "guest_csum"] as const),
];

/** A device with two running pairs, as if the driver had accepted everything. */
function device(t: TestContext, without: FeatureName | undefined = undefined): Guest["nic"] {
  const guest = startGuest(t, options({ cpus: 2, pairs: 2 }));
  guest.settle();
  guest.nic.pci.common.accepted |= featureSet(ALL.filter((name) => name !== without));
  return guest.nic;
}

const say = (nic: Guest["nic"], group: number, command: number, data: Buffer, answerBytes = 0) =>
  carryOut(nic, { class: group, command, data, answerBytes });

const half = (value: number) => Buffer.of(value & 255, value >> 8);
const words = (...values: number[]) => Buffer.from(Uint32Array.from(values).buffer);

/** Two entries, both pairs, with a key of 40 bytes. */
const RSS = Buffer.concat([words(4), half(1), half(0), half(0), half(1), half(2), Buffer.of(40)]);
const KEY = Buffer.alloc(40, 0x5a);

test("the six receive modes are switched on and off", (t) => {
  const nic = device(t);
  const modes = ["promiscuous", "allMulticast", "allUnicast", "noMulticast", "noUnicast"] as const;
  [...modes, "noBroadcast" as const].forEach((mode, command) => {
    assert.is(say(nic, 0, command, Buffer.of(1)).ack, OK);
    assert.is(nic.state[mode], true);
    say(nic, 0, command, Buffer.of(0));
    assert.is(nic.state[mode], false);
  });
});

test("addresses: the tables, and the interface's own", (t) => {
  const nic = device(t);
  const one = Buffer.from("525400000009", "hex");
  say(nic, 1, 0, Buffer.concat([words(1), one, words(2), one, one]));
  assert.equal(nic.state.unicast, ["52:54:00:00:00:09"]);
  assert.is(nic.state.multicast.length, 2);
  say(nic, 1, 1, one);
  assert.is(nic.state.mac, "52:54:00:00:00:09");
  assert.throws(() => say(nic, 1, 0, Buffer.concat([words(2), one, words(0)])), /MAC_TABLE_SET/);
});

test("filters: what the modes, tables and VLANs let pass", (t) => {
  const { state } = device(t);
  const to = (mac: string, type = "0800") => Buffer.from(`${mac}525400000001${type}0064`, "hex");
  const own = "52:54:00:12:34:56";
  assert.is(state.passes(to("525400123456"), own, true), true);
  assert.is(state.passes(to("525400999999"), own, true), false);
  assert.is(state.passes(to("01005e000001"), own, true), false);
  assert.is(state.passes(to("ffffffffffff"), own, true), true);
  assert.is(state.passes(to("525400123456", "8100"), own, true), false);
  state.vlans.add(100);
  assert.is(state.passes(to("525400123456", "8100"), own, true), true);
  state.allMulticast = true;
  assert.is(state.passes(to("01005e000001"), own, true), true);
  state.promiscuous = true;
  assert.is(state.passes(to("525400999999"), own, true), true);
});

test("VLANs are added and deleted; deleting one that is not there is refused", (t) => {
  const nic = device(t);
  assert.is(say(nic, 2, 0, half(100)).ack, OK);
  assert.equal([...nic.state.vlans], [100]);
  assert.is(say(nic, 2, 1, half(100)).ack, OK);
  assert.is(say(nic, 2, 1, half(100)).ack, ERR);
  assert.throws(() => say(nic, 2, 0, half(4096)), /VLAN id 4096/);
});

for (const pairs of [0, 3, 0x8000]) {
  test(`VQ_PAIRS_SET of ${pairs} with two pairs is what a driver must not say`, (t) => {
    assert.throws(() => say(device(t), 4, 0, half(pairs)), /§5.1.9.5.6.1/);
  });
}

test("RSS: table, key and hash types lead frames", (t) => {
  const nic = device(t);
  assert.is(say(nic, 4, 1, Buffer.concat([RSS, KEY])).ack, OK);
  assert.equal(nic.state.rss?.table, [0, 1]);
  assert.is(nic.state.rss?.maxTxPairs, 2);
  const three = Buffer.from(RSS);
  three.writeUInt16LE(2, 4);
  assert.throws(() => say(nic, 4, 1, Buffer.concat([three, KEY])), /no power of two/);
  const beyond = Buffer.from(RSS);
  beyond.writeUInt16LE(2, 10);
  assert.throws(() => say(nic, 4, 1, Buffer.concat([beyond, KEY])), /receive queue 2/);
});

test("RSS: the Toeplitz hash of the specification's well-known vector", () => {
  const key = Buffer.from(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa",
    "hex",
  );
  // 66.9.149.187:2794 to 161.142.100.80:1766
  const input = Buffer.from("420995bba18e64500aea06e6", "hex");
  assert.is(toeplitz(key, input), 0x51ccc178);
  assert.is(toeplitz(key, input.subarray(0, 8)), 0x323e8fc2);
});

test("coalescing: by direction, and by queue", (t) => {
  const nic = device(t);
  say(nic, 6, 0, words(1, 2));
  say(nic, 6, 1, words(3, 4));
  say(nic, 6, 2, Buffer.concat([half(1), half(0), words(5, 6)]));
  assert.equal(nic.state.coalescingOf(0), { maxPackets: 3, maxUsecs: 4 });
  assert.equal(nic.state.coalescingOf(1), { maxPackets: 5, maxUsecs: 6 });
  assert.equal(nic.state.coalescingOf(3), { maxPackets: 1, maxUsecs: 2 });
  const answer = say(nic, 6, 3, Buffer.concat([half(3), half(0)]), 8);
  assert.equal(answer.data, words(1, 2));
  assert.throws(() => say(nic, 6, 2, Buffer.concat([half(4), half(0), words(5, 6)])), /queue 4/);
});

test("statistics: what there is, and the counters of a queue of each kind", (t) => {
  const nic = device(t);
  assert.is(say(nic, 8, 0, Buffer.alloc(0), 8).data?.readBigUInt64LE(0), 0x1_0001_0001n);
  const request = (index: number, types: bigint) => {
    const data = Buffer.alloc(16);
    data.writeUInt16LE(index, 0);
    data.writeBigUInt64LE(types, 8);
    return data;
  };
  const answer = say(nic, 8, 1, Buffer.concat([request(0, 1n), request(1, 1n << 16n)]), 200);
  assert.is(answer.data?.length, 2 * 56);
  assert.is(answer.data?.readBigUInt64LE(56 + 16), BigInt(nic.live("tx").packets));
  assert.throws(() => say(nic, 8, 1, request(0, 1n << 16n), 200), /statistics 0x10000 of queue 0/);
  assert.throws(() => say(nic, 8, 1, request(0, 1n), 20), /room for 20 bytes/);
});

test("offloads: no more than what was negotiated", (t) => {
  const nic = device(t);
  assert.is(say(nic, 5, 0, Buffer.of(2, 0, 0, 0, 0, 0, 0, 0)).ack, OK);
  assert.is(nic.state.guestOffloads, 2n);
  assert.throws(() => say(nic, 5, 0, Buffer.of(0x80, 0, 0, 0, 0, 0, 0, 0)), /GUEST_OFFLOADS_SET/);
});

test("RSS contexts: added, changed and deleted, and no VQ_PAIRS_SET beside them", (t) => {
  const nic = device(t);
  const context = (id: number) => Buffer.concat([half(id), Buffer.alloc(6), RSS, KEY]);
  assert.is(say(nic, 9, 1, context(1)).ack, OK);
  assert.throws(() => say(nic, 4, 0, half(1)), /RSS contexts/);
  assert.throws(() => say(nic, 9, 1, context(0)), /RSS context 0/);
  assert.is(say(nic, 9, 3, half(1)).ack, OK);
  assert.is(say(nic, 9, 3, half(1)).ack, ERR);
});

for (const [feature, group, command, data] of [
  ["ctrl_rx", 0, 0, Buffer.of(1)],
  ["ctrl_rx_extra", 0, 2, Buffer.of(1)],
  ["ctrl_vlan", 2, 0, half(1)],
  ["ctrl_mac_addr", 1, 1, Buffer.alloc(6)],
  ["rss", 4, 1, Buffer.concat([RSS, KEY])],
  ["notf_coal", 6, 0, words(1, 1)],
  ["device_stats", 8, 0, Buffer.alloc(0)],
] as const) {
  test(`without ${feature} command ${group}.${command} is what a driver must not send`, (t) => {
    assert.throws(() => say(device(t, feature), group, command, data, 8), /was not negotiated/);
  });
}

test("a command that the specification does not have, and one of the wrong length", (t) => {
  const nic = device(t);
  assert.throws(() => say(nic, 10, 0, Buffer.alloc(0)), /not in the specification/);
  assert.throws(() => say(nic, 2, 0, Buffer.alloc(3)), /VLAN_ADD with 3 bytes/);
});

test.run();
