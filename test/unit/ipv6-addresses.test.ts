// How the guest comes to IPv6 addresses beyond the link, and loses them: routers and what they
// advertise (RFC 4861 6.3, RFC 4862 5.5); what the device's filters let in; lanes of other CPUs.

import {
  assert,
  buildRouterAdvertisement,
  eui64Address,
  ND_TYPE,
  ndFrame,
  parseRouterSolicitation,
  solicitedNode,
  suite,
  type TestContext,
} from "qemu-test-harness";
import { type Guest, type GuestOptions, makeGuest, startGuest } from "../model/guest";
import { commandName } from "../model/net/control-commands";
import { MQ_FEATURES } from "../model/net/net-device";
import { PEER } from "../model/net/peer";
import { PEER_GLOBAL, PEER_LINK, Peer6 } from "../model/net/peer6";

const test = suite("IPv6 addresses", { timeoutMs: 30_000 });

const payload = Buffer.from("from far away");
const SECOND = 1_000_000;

function start(t: TestContext, options: GuestOptions = {}): [Guest, Peer6] {
  const guest = startGuest(t, { commandLine: "ip=192.0.2.2/24", ...options });
  const peer = new Peer6(guest);
  peer.until(peer.guestLink);
  return [guest, peer];
}

const wait = (guest: Guest, seconds: number) => {
  guest.machine.run(() => false, { us: seconds * SECOND });
};

/** The address that the usual prefix leads to. */
function withAddress(t: TestContext, options: GuestOptions = {}): [Guest, Peer6] {
  const [guest, peer] = start(t, options);
  guest.nic.receive(peer.routerAdvertisement());
  peer.until(peer.guestGlobal);
  return [guest, peer];
}

const pings = (peer: Peer6) => {
  const route = { destination: peer.guestGlobal, source: PEER_GLOBAL };
  return peer.answers(peer.ping(payload, route)).length;
};

// ---- router solicitation ------------------------------------------------------------------------

test("routers are asked at once from nowhere, then from our address, ever more seldom", (t) => {
  const [guest, peer] = start(t);
  wait(guest, 140);
  const sent = peer.routerSolicitations();
  // At 0, 4, 12, 28, 60 and 124 s, each a tenth sooner or later.
  assert.is(sent.length, 6);
  assert.equal(
    sent.map(({ ipv6 }) => ipv6.source),
    ["::", ...Array(5).fill(peer.guestLink)],
  );
  for (const [i, { ipv6, icmpv6 }] of sent.entries()) {
    assert.is(ipv6.destination, "ff02::2");
    assert.is(ipv6.hopLimit, 255);
    const options = parseRouterSolicitation(icmpv6?.body ?? Buffer.alloc(0));
    assert.equal(
      options.map(({ type }) => type),
      i === 0 ? [] : [1],
    );
  }
});

test("a router that answers is not asked again; one that is none does not count", (t) => {
  const [guest, peer] = start(t);
  peer.answers(peer.routerAdvertisement([], 0));
  wait(guest, 10);
  const before = peer.routerSolicitations().length;
  assert.ok(before >= 2);
  peer.answers(peer.routerAdvertisement([]));
  wait(guest, 300);
  assert.is(peer.routerSolicitations().length, before);
});

// ---- addresses ----------------------------------------------------------------------------------

test("a prefix becomes an address, after a look at who else has it", (t) => {
  const [guest, peer] = withAddress(t);
  const asked = peer.neighbourMessages(ND_TYPE.solicitation).map(({ message }) => message.target);
  assert.equal(asked, [peer.guestLink, peer.guestGlobal]);
  const event = guest.machine.console.all("ipv6").at(-1);
  assert.equal([event?.prefix, event?.scope, event?.origin], [64, "global", "slaac"]);
  assert.is(pings(peer), 1);
  const route = { destination: peer.guestGlobal, source: PEER_GLOBAL };
  const [answer] = peer.answers(peer.echoRequest(payload, route));
  assert.ok(answer?.udp?.payload.equals(payload));
  peer.answers(peer.solicitation(peer.guestGlobal));
  assert.is(peer.neighbourMessages(ND_TYPE.advertisement).length, 1);
});

test("the hop limit of the router is ours", (t) => {
  const [guest, peer] = start(t);
  const body = buildRouterAdvertisement({ hopLimit: 17, lifetime: 1800, options: [] });
  const frame = ndFrame(peer.groupRoute("ff02::1"), ND_TYPE.routerAdvertisement, body);
  guest.nic.receive(frame);
  guest.settle();
  assert.is(peer.answers(peer.ping(payload))[0]?.ipv6.hopLimit, 17);
});

test("somebody else has the address: it is not used, and not formed again", (t) => {
  const [guest, peer] = start(t);
  guest.nic.receive(peer.routerAdvertisement());
  guest.settle();
  guest.nic.receive(peer.dadSolicitation(peer.guestGlobal));
  peer.until(peer.guestGlobal, "duplicate");
  guest.nic.receive(peer.routerAdvertisement());
  wait(guest, 5);
  assert.is(pings(peer), 0);
  assert.is(peer.answers(peer.ping(payload)).length, 1, "the link-local one goes on");
  assert.is(peer.events().filter(([ip6]) => ip6 === peer.guestGlobal).length, 1);
});

test("lifetimes: deprecated, still answered for, then gone", (t) => {
  const [guest, peer] = start(t);
  guest.nic.receive(peer.routerAdvertisement([{ preferred: 10, valid: 20 }]));
  peer.until(peer.guestGlobal);
  peer.until(peer.guestGlobal, "deprecated");
  assert.is(pings(peer), 1);
  peer.until(peer.guestGlobal, "expired");
  assert.is(pings(peer), 0);
  const times = guest.machine.console
    .all("ipv6")
    .slice(-3)
    .map(({ us }) => us);
  const [preferred = 0, deprecated = 0, expired = 0] = times;
  assert.ok(Math.abs(deprecated - preferred - 9 * SECOND) < SECOND / 2, times.join());
  assert.ok(Math.abs(expired - deprecated - 10 * SECOND) < SECOND / 2, times.join());
});

test("an advertisement in time keeps the address, and makes it preferred again", (t) => {
  const [guest, peer] = start(t);
  const advertise = () =>
    guest.nic.receive(peer.routerAdvertisement([{ preferred: 10, valid: 20 }]));
  advertise();
  peer.until(peer.guestGlobal, "deprecated");
  advertise();
  guest.settle();
  assert.equal(peer.events().at(-1), [peer.guestGlobal, "preferred"]);
  for (let i = 0; i < 10; i++) {
    wait(guest, 5);
    advertise();
  }
  assert.equal(peer.events().at(-1), [peer.guestGlobal, "preferred"]);
  assert.is(pings(peer), 1);
});

test("RFC 4862 5.5.3 e: a forged lifetime of 0 takes no address away within two hours", (t) => {
  const [guest, peer] = withAddress(t);
  guest.nic.receive(peer.routerAdvertisement([{ preferred: 0, valid: 0 }]));
  guest.settle();
  assert.equal(peer.events().at(-1), [peer.guestGlobal, "deprecated"]);
  wait(guest, 7190);
  assert.is(pings(peer), 1);
  wait(guest, 20);
  assert.is(pings(peer), 0);
});

test("lifetimes without end do not end", (t) => {
  const [guest, peer] = start(t);
  const endless = { preferred: 0xffffffff, valid: 0xffffffff };
  guest.nic.receive(peer.routerAdvertisement([endless]));
  peer.until(peer.guestGlobal);
  wait(guest, 100_000);
  assert.is(pings(peer), 1);
  assert.equal(peer.events().at(-1), [peer.guestGlobal, "preferred"]);
});

for (const [what, prefix] of [
  ["not for addresses", { autonomous: false }],
  ["of the link", { prefix: "fe80::" }],
  ["of 48 bits", { prefixLength: 48 }],
  ["preferred for longer than valid", { preferred: 100, valid: 50 }],
  ["valid for no time", { preferred: 0, valid: 0 }],
  ["of groups", { prefix: "ff05::" }],
] as const) {
  test(`a prefix ${what} makes no address`, (t) => {
    const [guest, peer] = start(t);
    peer.answers(peer.routerAdvertisement([prefix]));
    wait(guest, 5);
    assert.equal(peer.events(), [[peer.guestLink, "preferred"]]);
    assert.equal(guest.stats().queues[0]?.rx.drops, {});
  });
}

test("two prefixes make two addresses, twenty as well, and nothing breaks", (t) => {
  const [guest, peer] = start(t);
  const prefixes = Array.from({ length: 20 }, (_, i) => ({ prefix: `2001:db8:0:${i + 1}::` }));
  guest.nic.receive(peer.routerAdvertisement(prefixes));
  wait(guest, 5);
  const mac = guest.nic.options.mac;
  const expected = prefixes.slice(0, 2).map(({ prefix }) => eui64Address(prefix, mac));
  assert.equal(
    peer
      .events()
      .slice(1)
      .map(([ip6]) => ip6),
    expected,
  );
});

// ---- filters ------------------------------------------------------------------------------------

const FILTERING = { features: [...MQ_FEATURES, "ctrl_rx" as const], filters: true };

test("a device that filters is told our groups, and told them again after a reset", (t) => {
  const [guest, peer] = withAddress(t, { net: FILTERING });
  assert.equal(guest.nic.control.commands.map(commandName), ["MAC_TABLE_SET"]);
  const groups = ["33:33:00:00:00:01", "33:33:ff:12:34:56"];
  assert.equal(guest.nic.state.multicast, groups);
  guest.nic.pci.needReset();
  guest.settle();
  assert.equal(guest.errors(), ["the device needs a reset"]);
  assert.equal(guest.nic.state.multicast, groups);
  peer.answers(peer.solicitation(peer.guestGlobal));
  assert.is(peer.neighbourMessages(ND_TYPE.advertisement).length, 1);
});

test("mac table: our groups stay in it", (t) => {
  const [guest, peer] = start(t, { net: FILTERING });
  guest.machine.console.type("mac table 02:00:00:00:00:07 01:00:5e:00:00:05");
  guest.settle();
  assert.equal(guest.nic.state.unicast, ["02:00:00:00:00:07"]);
  const groups = ["01:00:5e:00:00:05", "33:33:00:00:00:01", "33:33:ff:12:34:56"];
  assert.equal(guest.nic.state.multicast, groups);
  peer.answers(peer.solicitation(peer.guestLink));
  assert.is(peer.neighbourMessages(ND_TYPE.advertisement).length, 1);
});

test("a static address has its own group", (t) => {
  const commandLine = "ip=192.0.2.2/24 ip6=2001:db8::42/64";
  const [guest] = start(t, { net: FILTERING, commandLine });
  assert.equal(guest.nic.state.multicast, [
    "33:33:00:00:00:01",
    "33:33:ff:12:34:56",
    "33:33:ff:00:00:42",
  ]);
});

test("ip6=off: the device is told no group", (t) => {
  const guest = startGuest(t, { net: FILTERING, commandLine: "ip=192.0.2.2/24 ip6=off" });
  assert.equal(guest.nic.control.commands, []);
});

test("mac set: the addresses stay, and the network hears of the new MAC", (t) => {
  const features = [...MQ_FEATURES, "ctrl_rx" as const, "ctrl_mac_addr" as const];
  const [guest, peer] = withAddress(t, { net: { features, filters: true } });
  guest.machine.console.type("mac set 02:00:00:00:00:07");
  const advertised = () => peer.neighbourMessages(ND_TYPE.advertisement);
  guest.until(() => advertised().length >= 2, "it announces");
  assert.equal(
    advertised()
      .slice(0, 2)
      .map(({ message }) => message.target),
    [peer.guestLink, peer.guestGlobal],
  );
  assert.is(advertised()[0]?.ethernet.source, "02:00:00:00:00:07");
  const route = { destinationMac: "02:00:00:00:00:07" };
  assert.is(peer.answers(peer.ping(payload, route)).length, 1);
});

// ---- other CPUs ---------------------------------------------------------------------------------

const LANES = { cpus: 4, net: { pairs: 4, features: MQ_FEATURES } };

for (const pair of [1, 2, 3]) {
  test(`all that reaches queue ${pair + 1}: advertisements, solicitations, pings, UDP`, (t) => {
    const guest = makeGuest(t, { commandLine: "ip=192.0.2.2/24", ...LANES });
    guest.nic.steer = () => pair;
    guest.start();
    const peer = new Peer6(guest);
    peer.until(peer.guestLink);
    guest.nic.receive(peer.routerAdvertisement());
    peer.until(peer.guestGlobal);
    guest.settle();
    assert.is(pings(peer), 1);
    assert.is(peer.answers(peer.echoRequest(payload)).length, 1);
    peer.answers(peer.solicitation(peer.guestGlobal));
    peer.answers(peer.dadSolicitation(peer.guestGlobal));
    const answers = peer.neighbourMessages(ND_TYPE.advertisement);
    assert.equal(
      answers.map(({ ipv6 }) => ipv6.destination),
      [PEER_LINK, "ff02::1"],
    );
    assert.equal(
      guest.stats().queues.map(({ rx }) => rx.drops),
      [{}, {}, {}, {}],
    );
  });

  test(`a conflict that reaches queue ${pair + 1} is seen, and no lane uses the address`, (t) => {
    const guest = makeGuest(t, { commandLine: "ip=192.0.2.2/24", ...LANES });
    guest.nic.steer = () => pair;
    guest.start();
    const peer = new Peer6(guest);
    const asked = () => peer.neighbourMessages(ND_TYPE.solicitation).length > 0;
    guest.until(asked, "it asks for its address");
    guest.nic.receive(peer.dadSolicitation(peer.guestLink));
    peer.until(peer.guestLink, "duplicate");
    guest.settle();
    assert.equal(peer.answers(peer.ping(payload)), []);
  });

  test(`sources on all lanes start when the next hop answers on queue ${pair + 1}`, (t) => {
    const commandLine =
      "app=source ip6=2001:db8:1:2::5/64 dstip=2001:db8:1:2::1 size=100 count=400";
    const guest = makeGuest(t, { commandLine, ...LANES });
    guest.nic.steer = () => pair;
    guest.start();
    const peer = new Peer6(guest);
    const asked = () =>
      peer.neighbourMessages(ND_TYPE.solicitation).some(({ message }) => {
        return message.target === PEER_GLOBAL && message.options.length === 1;
      });
    guest.until(asked, "it asks for the next hop");
    const answer = peer.advertisement(PEER_GLOBAL, { source: PEER_GLOBAL });
    guest.nic.receive(answer);
    guest.until(() => guest.machine.ended !== undefined, "it ends");
    const sent = peer.sent().filter(({ udp }) => udp?.destinationPort === 9);
    assert.is(sent.length, 400);
    for (const { ethernet, ipv6 } of sent) {
      assert.is(ethernet.destination, PEER.mac);
      assert.equal([ipv6.source, ipv6.destination], ["2001:db8:1:2::5", PEER_GLOBAL]);
    }
  });
}

test("a source beyond the link goes by the router that advertised itself", (t) => {
  const commandLine = "app=source dstip=2001:db8:99::1 size=100 count=5";
  const guest = startGuest(t, { commandLine });
  const peer = new Peer6(guest);
  peer.until(peer.guestLink);
  guest.nic.receive(peer.routerAdvertisement());
  const asked = () =>
    peer.neighbourMessages(ND_TYPE.solicitation).some(({ ipv6, message }) => {
      return message.target === PEER_LINK && ipv6.destination === solicitedNode(PEER_LINK);
    });
  guest.until(asked, "it asks for the router's MAC");
  guest.nic.receive(peer.advertisement(PEER_LINK));
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  const sent = peer.sent().filter(({ udp }) => udp !== undefined);
  assert.is(sent.length, 5);
  assert.is(sent[0]?.ipv6.source, peer.guestGlobal);
  assert.is(sent[0]?.ipv6.destination, "2001:db8:99::1");
});

test("without a router a source beyond the link ends with an error", (t) => {
  const commandLine = "app=source ip6=2001:db8:1:2::5/64 dstip=2001:db8:99::1";
  const guest = startGuest(t, { commandLine });
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.equal(guest.errors(), ["dstip: not in the network of ip6=, and there is no router"]);
});

test.run();
