// What the image is told wrongly, it names in an `error` event and refuses with status 35; nothing
// is silently ignored.
//
// Shares the machine: its guests end at once.

import { assert, suite, user } from "qemu-test-harness";
import { STATIC_ADDRESS } from "./support";

const test = suite("bad input", { timeoutMs: 30_000 });

/** The guest's command line, and all of the message that its `error` event must have. */
const WRONG: readonly (readonly [string, string])[] = [
  ["colour=blue", '"colour" is not a key that vireo knows'],
  ["word", '"word" is not key=value'],
  ["ip=300.0.2.2/24", 'ip: "300.0.2.2/24" is not dhcp or a.b.c.d/len'],
  ["ip=192.0.2.2", 'ip: "192.0.2.2" is not dhcp or a.b.c.d/len'],
  ["ip=192.0.2.2/33", 'ip: "192.0.2.2/33" is not dhcp or a.b.c.d/len'],
  ["ip=", 'ip: "" is empty'],
  [`${STATIC_ADDRESS} ip=dhcp`, '"ip=dhcp" repeats a key'],
  [`${STATIC_ADDRESS} gw=nowhere`, 'gw: "nowhere" is not a host\'s a.b.c.d'],
  [
    `${STATIC_ADDRESS} gw=198.51.100.1`,
    'gw: "198.51.100.1" is not another host in the network of ip=',
  ],
  ["app=banana", 'app: "banana" is not echo, sink, source, forward or idle'],
  ["queues=0", 'queues: "0" is not max or from 1 to 32768'],
  ["queues=many", 'queues: "many" is not max or from 1 to 32768'],
  ["ring=round", 'ring: "round" is not auto, split or packed'],
  ["mode=fast", 'mode: "fast" is not adaptive, poll or irq'],
  ["log=loud", 'log: "loud" is not info, debug or quiet'],
  ["features=-no_such_feature", 'features: "-no_such_feature" is not a feature of this driver'],
  ["features=mac", 'features: "mac" is not -name or -name,-name,... of at most 64 names'],
  ["app=source size=10", 'size: "10" is not from 60 to 9014 bytes, or to 65549 with gso='],
  ["app=source count=-1", 'count: "-1" is not a number of frames'],
  ["app=source burst=65", 'burst: "65" is not from 1 to 64'],
  ["app=source dst=12:34", 'dst: "12:34" is not xx:xx:xx:xx:xx:xx'],
  ["app=source dstip=nobody", 'dstip: "nobody" is neither a.b.c.d nor an IPv6 address'],
  ["ip6=", 'ip6: "" is empty'],
  ["ip6=yes", 'ip6: "yes" is not auto, off or an IPv6 address/len beyond the link'],
  ["ip6=fe80::1/64", 'ip6: "fe80::1/64" is not auto, off or an IPv6 address/len beyond the link'],
  ["ip6=ff02::1/64", 'ip6: "ff02::1/64" is not auto, off or an IPv6 address/len beyond the link'],
  ["ip6=2001::1/129", 'ip6: "2001::1/129" is not auto, off or an IPv6 address/len beyond the link'],
  ["ip6=1::2::3/64", 'ip6: "1::2::3/64" is not auto, off or an IPv6 address/len beyond the link'],
  ["gw6=fe80::1", 'gw6: "fe80::1" needs an address in ip6='],
  ["ip6=2001:db8::2/64 gw6=::", 'gw6: "::" is not a host\'s IPv6 address'],
  [
    "ip6=2001:db8::2/64 gw6=2001:db9::1",
    'gw6: "2001:db9::1" is not another host in the network of ip6=',
  ],
  ["app=source gso=tcp6 dstip=192.0.2.1", 'dstip: "192.0.2.1" is not of the kind that gso= says'],
  ["app=source size=61 dstip=ff02::1", 'size: "61" is less than the headers of IPv6 take'],
  [
    "app=source ip6=off dstip=2001:db8::1",
    'dstip: "2001:db8::1" cannot be asked for its MAC with ip6=off: give dst=',
  ],
  ["app=source dstport=65536", 'dstport: "65536" is not from 1 to 65535'],
  ["app=source duration=1.5", 'duration: "1.5" is not a number of seconds'],
  ["stats=often", 'stats: "often" is not a number of seconds'],
];

for (const [append, message] of WRONG) {
  test(`'${append}' is an error that names it`, async (t) => {
    const vm = await t.vm({ append, nics: [{ backend: user() }] });
    const { error, status } = await vm.failure();
    assert.is(error.event, "error");
    assert.is(error.message, message);
    assert.is(status, 35);
  });
}

test("no network card", async (t) => {
  const vm = await t.vm({ append: "app=idle" });
  const { error } = await vm.failure();
  assert.is(error.event, "error");
  assert.is(error.message, "no virtio-net device on the PCI buses");
});

test("a card that offers only the legacy interface", async (t) => {
  const legacy = { "disable-modern": true, "disable-legacy": false };
  const nics = [{ backend: user(), options: legacy }];
  const vm = await t.vm({ append: STATIC_ADDRESS, nics });
  const { error } = await vm.failure();
  assert.is(error.event, "error");
  assert.is(error.message, "no common configuration structure: not a modern virtio device");
});

test("too little memory for the vCPUs", async (t) => {
  const nics = [{ backend: user() }];
  const vm = await t.vm({ append: STATIC_ADDRESS, memoryMib: 16, cpus: 16, nics });
  const { error } = await vm.failure();
  assert.is(error.message, "too little memory for this number of CPUs");
  assert.is(error.cpus, 16);
  const { needed_kib: needed, usable_kib: usable } = error;
  assert.ok(Number(needed) > Number(usable), `needed ${needed} KiB, usable ${usable} KiB`);
});

test.run();
