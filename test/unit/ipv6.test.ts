// IPv6 in the guest: duplicate address detection, neighbours, echo; and what it drops, by reason.
// RFC 4861, RFC 4862, RFC 4443, RFC 8200

import {
  ALL_NODES,
  assert,
  buildIcmpv6,
  buildNeighbour,
  type ExtensionHeader,
  ICMPV6_ECHO_REPLY,
  icmpv6Frame,
  ipv6Frame,
  macOption,
  ND_FLAG,
  ND_OPTION,
  ND_TYPE,
  ndFrame,
  PROTOCOL_DESTINATION_OPTIONS,
  PROTOCOL_FRAGMENT,
  PROTOCOL_HOP_BY_HOP,
  PROTOCOL_ICMPV6,
  PROTOCOL_ROUTING,
  PROTOCOL_UDP,
  paddingOptions,
  parseEchoBody,
  solicitedNode,
  suite,
  type TestContext,
  udp6Frame,
} from "qemu-test-harness";
import { type Guest, type GuestOptions, startGuest } from "../model/guest";
import { PEER } from "../model/net/peer";
import { PEER_GLOBAL, PEER_LINK, Peer6 } from "../model/net/peer6";

const test = suite("IPv6", { timeoutMs: 30_000 });

const IPV4 = "ip=192.0.2.2/24";
const payload = Buffer.from("sixteen bytes wide");
const GROUP_OF_GUEST = "ff02::1:ff12:3456";

/** A guest that has its link-local address. */
function start(t: TestContext, options: GuestOptions = {}): [Guest, Peer6] {
  const guest = startGuest(t, { commandLine: IPV4, ...options });
  const peer = new Peer6(guest);
  peer.until(peer.guestLink);
  return [guest, peer];
}

const drops = (guest: Guest) => guest.stats().queues[0]?.rx.drops;

// ---- duplicate address detection ----------------------------------------------------------------

test("the link-local address is asked for once, from nowhere, and is ours a second later", (t) => {
  const [guest, peer] = start(t);
  const asked = peer.neighbourMessages(ND_TYPE.solicitation);
  assert.is(asked.length, 1);
  const [first] = asked;
  assert.is(first?.message.target, "fe80::5054:ff:fe12:3456");
  assert.equal(first?.message.options, []);
  assert.is(first?.ipv6.source, "::");
  assert.is(first?.ipv6.destination, GROUP_OF_GUEST);
  assert.is(first?.ipv6.hopLimit, 255);
  assert.is(first?.ethernet.destination, "33:33:ff:12:34:56");
  const event = guest.machine.console.find("ipv6");
  assert.is(event?.ip6, peer.guestLink);
  assert.is(event?.prefix, 64);
  assert.is(event?.scope, "link");
  assert.ok((event?.us ?? 0) >= 1_000_000 && (event?.us ?? 0) < 1_200_000, `${event?.us}`);
});

test("ready does not wait for it", (t) => {
  const guest = startGuest(t, { commandLine: IPV4 });
  assert.ok((guest.machine.console.find("ready")?.us ?? 0) < 50_000);
  assert.is(guest.machine.console.find("ipv6"), undefined);
});

test("ip6=off: not a word, and IPv6 is an unknown ethertype", (t) => {
  const guest = startGuest(t, { commandLine: `${IPV4} ip6=off` });
  const peer = new Peer6(guest);
  guest.machine.run(() => false, { us: 10_000_000 });
  assert.equal(peer.sent(), []);
  assert.equal(peer.answers(peer.ping(payload)), []);
  assert.equal(drops(guest), { ethertype: 1 });
});

for (const [what, make] of [
  ["asks for the same address", (peer: Peer6) => peer.dadSolicitation(peer.guestLink)],
  ["says that it has it", (peer: Peer6) => peer.advertisement(peer.guestLink)],
] as const) {
  test(`while it is tentative another host ${what}: IPv6 is off, with an event`, (t) => {
    const guest = startGuest(t, { commandLine: IPV4 });
    const peer = new Peer6(guest);
    const asked = () => peer.neighbourMessages(ND_TYPE.solicitation).length > 0;
    guest.until(asked, "it asks for its address");
    guest.nic.receive(make(peer));
    peer.until(peer.guestLink, "duplicate");
    guest.machine.run(() => false, { us: 20_000_000 });
    assert.equal(peer.events(), [[peer.guestLink, "duplicate"]]);
    assert.equal(peer.answers(peer.ping(payload)), []);
    const [warning] = guest.machine.console.all("warning");
    assert.match(warning?.message ?? "", /link-local address: IPv6 is off/);
    assert.equal(guest.echo(payload), payload, "IPv4 goes on");
  });
}

test("its own question, sent back by a switch, is no conflict", (t) => {
  const guest = startGuest(t, { commandLine: IPV4 });
  const peer = new Peer6(guest);
  const asked = () => peer.neighbourMessages(ND_TYPE.solicitation).length > 0;
  guest.until(asked, "it asks for its address");
  guest.nic.receive(peer.dadSolicitation(peer.guestLink, { sourceMac: guest.nic.options.mac }));
  peer.until(peer.guestLink);
});

test("a tentative address answers nothing", (t) => {
  const guest = startGuest(t, { commandLine: IPV4 });
  const peer = new Peer6(guest);
  for (const frame of [peer.ping(payload), peer.solicitation(peer.guestLink)]) {
    guest.nic.receive(frame);
  }
  guest.settle();
  assert.equal(peer.neighbourMessages(ND_TYPE.advertisement), []);
  assert.equal(drops(guest), { ip_address: 1, nd: 1 });
});

test("ip6=address/len: both addresses are looked at, and both are ours", (t) => {
  const commandLine = `${IPV4} ip6=2001:db8:1:2::5/64 gw6=fe80::1`;
  const [guest, peer] = start(t, { commandLine });
  peer.until("2001:db8:1:2::5");
  assert.is(peer.neighbourMessages(ND_TYPE.solicitation).length, 2);
  const to = { destination: "2001:db8:1:2::5", source: PEER_GLOBAL };
  assert.is(peer.answers(peer.ping(payload, to)).length, 1);
  assert.is(peer.answers(peer.ping(payload)).length, 1);
  assert.equal(peer.routerSolicitations(), [], "routers are not asked");
  peer.answers(peer.routerAdvertisement());
  assert.equal(drops(guest), { nd: 1 });
});

// ---- neighbours ---------------------------------------------------------------------------------

for (const hasOption of [true, false]) {
  const how = hasOption ? "with" : "without";
  test(`a solicitation ${how} the asker's MAC is answered to the asker`, (t) => {
    const [, peer] = start(t);
    const options = hasOption ? [macOption(ND_OPTION.sourceMac, PEER.mac)] : [];
    const body = buildNeighbour({ flags: 0, target: peer.guestLink, options });
    for (const route of [peer.route(), peer.groupRoute(GROUP_OF_GUEST)]) {
      const before = peer.sent().length;
      peer.answers(ndFrame(route, ND_TYPE.solicitation, body));
      const [answer] = peer.neighbourMessages(ND_TYPE.advertisement).slice(-1);
      assert.is(peer.sent().length, before + 1);
      assert.is(answer?.message.flags, ND_FLAG.solicited | ND_FLAG.override);
      assert.is(answer?.message.target, peer.guestLink);
      const mac = macOption(ND_OPTION.targetMac, "52:54:00:12:34:56");
      assert.equal(
        answer?.message.options.map(({ type }) => type),
        [mac.type],
      );
      assert.ok(Buffer.from(mac.data).equals(answer?.message.options[0]?.data ?? Buffer.alloc(0)));
      assert.is(answer?.ethernet.destination, PEER.mac);
      assert.is(answer?.ipv6.destination, PEER_LINK);
      assert.is(answer?.ipv6.source, peer.guestLink);
      assert.is(answer?.ipv6.hopLimit, 255);
    }
  });
}

test("who looks for duplicates of our address is told by an advertisement to everybody", (t) => {
  const [, peer] = start(t);
  peer.answers(peer.dadSolicitation(peer.guestLink));
  const [answer] = peer.neighbourMessages(ND_TYPE.advertisement);
  assert.is(answer?.message.flags, ND_FLAG.override);
  assert.is(answer?.ipv6.destination, ALL_NODES);
  assert.is(answer?.ethernet.destination, "33:33:00:00:00:01");
});

test("another host with our address is a warning, once", (t) => {
  const [guest, peer] = start(t);
  for (let i = 0; i < 3; i++) guest.nic.receive(peer.advertisement(peer.guestLink));
  guest.settle();
  const messages = guest.machine.console.all("warning").map(({ message }) => message);
  assert.equal(messages, ["another host uses our IPv6 address"]);
  assert.is(peer.answers(peer.ping(payload)).length, 1);
});

test("the console's announce: two advertisements to everybody beside the gratuitous ARP", (t) => {
  const [guest, peer] = start(t);
  const before = guest.peer.frames.length;
  guest.machine.console.type("announce");
  const advertised = () => peer.neighbourMessages(ND_TYPE.advertisement, before);
  guest.until(() => advertised().length === 2, "it announces twice");
  for (const { ipv6, message } of advertised()) {
    assert.is(ipv6.destination, ALL_NODES);
    assert.is(message.flags, ND_FLAG.override);
    assert.is(message.target, peer.guestLink);
  }
  assert.ok(guest.peer.announcements() >= 2);
});

test("the link comes back: the address is announced, and routers are asked again", (t) => {
  const [guest, peer] = start(t);
  const before = peer.routerSolicitations().length;
  guest.nic.setLink(false);
  guest.settle();
  guest.nic.setLink(true);
  const advertised = () => peer.neighbourMessages(ND_TYPE.advertisement).length > 0;
  guest.until(advertised, "it announces");
  assert.ok(peer.routerSolicitations().length > before);
});

// ---- echo ---------------------------------------------------------------------------------------

for (const bytes of [0, 1, 8, 777, 1452]) {
  test(`ping with ${bytes} bytes`, (t) => {
    const [, peer] = start(t);
    const data = Buffer.from(Array.from({ length: bytes }, (_, i) => (3 * i) & 255));
    const [answer] = peer.answers(peer.ping(data));
    assert.is(answer?.icmpv6?.type, ICMPV6_ECHO_REPLY);
    assert.ok(parseEchoBody(answer?.icmpv6?.body ?? Buffer.alloc(0)).payload.equals(data));
    assert.is(answer?.ipv6.source, peer.guestLink);
    assert.is(answer?.ipv6.destination, PEER_LINK);
  });
}

test("a ping to all nodes is answered from our own address", (t) => {
  const [guest, peer] = start(t);
  const route = { destination: ALL_NODES, destinationMac: "33:33:00:00:00:01" };
  const [answer] = peer.answers(peer.ping(payload, route));
  assert.is(answer?.ipv6.source, peer.guestLink);
  assert.is(answer?.ethernet.source, guest.nic.options.mac);
});

for (const bytes of [0, 1, 18, 1452]) {
  test(`UDP echo of ${bytes} bytes`, (t) => {
    const [, peer] = start(t);
    const data = Buffer.alloc(bytes, 0x5a);
    const [answer] = peer.answers(peer.echoRequest(data));
    assert.is(answer?.udp?.sourcePort, 7);
    assert.ok(answer?.udp?.payload.equals(data));
  });
}

test("UDP discard is counted and not answered", (t) => {
  const [guest, peer] = start(t);
  const fields = { sourcePort: 4000, destinationPort: 9, payload };
  assert.equal(peer.answers(udp6Frame(peer.route(), fields)), []);
  assert.is((guest.stats() as unknown as { discarded: number }).discarded, 1);
});

const optionsHeader = (protocol: number, option: readonly number[]): ExtensionHeader => {
  const rest = Buffer.alloc(7);
  rest.set([0, ...option, ...(option.length < 6 ? [1, 6 - option.length - 2] : [])].slice(0, 7));
  return { protocol, rest };
};

for (const [what, extensions] of [
  ["hop-by-hop options", [paddingOptions(PROTOCOL_HOP_BY_HOP)]],
  ["long destination options", [paddingOptions(PROTOCOL_DESTINATION_OPTIONS, 256)]],
  [
    "a route that ends here",
    [{ protocol: PROTOCOL_ROUTING, rest: Buffer.from([0, 4, 0, 0, 0, 0, 0]) }],
  ],
  ["a fragment header around the whole", [{ protocol: PROTOCOL_FRAGMENT, rest: Buffer.alloc(7) }]],
  [
    "seven headers",
    [PROTOCOL_HOP_BY_HOP, ...Array<number>(6).fill(PROTOCOL_DESTINATION_OPTIONS)].map((p) =>
      paddingOptions(p),
    ),
  ],
  ["an unknown option to pass over", [optionsHeader(PROTOCOL_HOP_BY_HOP, [0x1e, 0])]],
] as const) {
  test(`${what}: passed over, and not in the answer`, (t) => {
    const [guest, peer] = start(t);
    for (const frame of [
      peer.echoRequest(payload, { extensions }),
      peer.ping(payload, { extensions }),
    ]) {
      const [answer] = peer.answers(frame);
      assert.equal(answer?.ipv6.extensions, []);
      const data =
        answer?.udp?.payload ?? parseEchoBody(answer?.icmpv6?.body ?? Buffer.alloc(4)).payload;
      assert.ok(data.equals(payload));
    }
    assert.equal(drops(guest), {});
  });
}

// ---- what is dropped ----------------------------------------------------------------------------

const raw = (frame: Buffer, change: (frame: Buffer) => void) => {
  change(frame);
  return frame;
};
const solicited = (peer: Peer6, options: Buffer, rest = {}) => {
  const body = Buffer.concat([
    buildNeighbour({ flags: 0, target: peer.guestLink, options: [] }),
    options,
  ]);
  return ndFrame(peer.groupRoute(GROUP_OF_GUEST, rest), ND_TYPE.solicitation, body);
};

const WRONG: readonly (readonly [string, string, (peer: Peer6) => Buffer])[] = [
  ["a header that is cut", "ip_length", (p) => p.ping(payload).subarray(0, 50)],
  [
    "a length beyond the frame",
    "ip_length",
    (p) => raw(p.ping(payload), (f) => f.writeUInt16BE(500, 18)),
  ],
  ["a length of 0", "ip_length", (p) => raw(p.ping(payload), (f) => f.writeUInt16BE(0, 18))],
  ["version 4", "ip_version", (p) => raw(p.ping(payload), (f) => f.writeUInt8(0x45, 14))],
  ["another address", "ip_address", (p) => p.ping(payload, { destination: "fe80::99" })],
  ["another group", "ip_address", (p) => p.solicitation("fe80::99")],
  ["from a group", "ip_address", (p) => p.ping(payload, { source: "ff02::5" })],
  ["from the loopback address", "ip_address", (p) => p.ping(payload, { source: "::1" })],
  ["UDP from nowhere", "ip_address", (p) => p.echoRequest(payload, { source: "::" })],
  ["a ping from nowhere", "ip_address", (p) => p.ping(payload, { source: "::" })],
  [
    "UDP echo to all nodes",
    "ip_address",
    (p) => p.echoRequest(payload, { destination: ALL_NODES }),
  ],
  [
    "a unicast to a group's MAC",
    "ip_address",
    (p) => p.ping(payload, { destinationMac: "33:33:00:00:00:01" }),
  ],
  ["from our own address", "ip_address", (p) => p.ping(payload, { source: p.guestLink })],
  ["an unknown protocol", "ip_protocol", (p) => ipv6Frame(p.route(), 132, payload)],
  ["no next header", "ip_protocol", (p) => ipv6Frame(p.route(), 59, payload)],
  [
    "a first fragment",
    "ip_fragment",
    (p) =>
      p.ping(payload, {
        extensions: [{ protocol: PROTOCOL_FRAGMENT, rest: Buffer.from([0, 0, 1, 0, 0, 0, 1]) }],
      }),
  ],
  [
    "a later fragment",
    "ip_fragment",
    (p) =>
      p.ping(payload, {
        extensions: [{ protocol: PROTOCOL_FRAGMENT, rest: Buffer.from([0, 0x10, 0, 0, 0, 0, 1]) }],
      }),
  ],
  [
    "an extension header beyond the packet",
    "ip_length",
    (p) =>
      p.ping(payload, {
        extensions: [
          { protocol: PROTOCOL_DESTINATION_OPTIONS, rest: Buffer.from([200, 1, 4, 0, 0, 0, 0]) },
        ],
      }),
  ],
  [
    "nine extension headers",
    "ip_extension",
    (p) =>
      p.ping(payload, { extensions: Array(9).fill(paddingOptions(PROTOCOL_DESTINATION_OPTIONS)) }),
  ],
  [
    "hop-by-hop options that do not come first",
    "ip_extension",
    (p) =>
      p.ping(payload, {
        extensions: [PROTOCOL_DESTINATION_OPTIONS, PROTOCOL_HOP_BY_HOP].map((h) =>
          paddingOptions(h),
        ),
      }),
  ],
  [
    "a route that goes on",
    "ip_extension",
    (p) =>
      p.ping(payload, {
        extensions: [{ protocol: PROTOCOL_ROUTING, rest: Buffer.from([0, 0, 1, 0, 0, 0, 0]) }],
      }),
  ],
  [
    "an option that nobody may pass over",
    "ip_extension",
    (p) =>
      p.ping(payload, { extensions: [optionsHeader(PROTOCOL_HOP_BY_HOP, [0xc2, 4, 0, 1, 0, 0])] }),
  ],
  [
    "an option beyond its header",
    "ip_extension",
    (p) =>
      p.ping(payload, { extensions: [optionsHeader(PROTOCOL_HOP_BY_HOP, [1, 60, 0, 0, 0, 0])] }),
  ],
  [
    "a wrong ICMPv6 checksum",
    "icmp_checksum",
    (p) => raw(p.ping(payload), (f) => f.writeUInt8(f.readUInt8(62) ^ 1, 62)),
  ],
  [
    "ICMPv6 of 4 bytes",
    "icmp_length",
    (p) => ipv6Frame(p.route(), PROTOCOL_ICMPV6, Buffer.alloc(4)),
  ],
  [
    "an unknown ICMPv6 type",
    "icmp_type",
    (p) => icmpv6Frame(p.route(), { type: 200, code: 0, body: payload }),
  ],
  [
    "a wrong UDP checksum",
    "udp_checksum",
    (p) => raw(p.echoRequest(payload), (f) => f.writeUInt8(f.readUInt8(62) ^ 1, 62)),
  ],
  [
    "UDP without a checksum",
    "udp_checksum",
    (p) => raw(p.echoRequest(payload), (f) => f.writeUInt16BE(0, 60)),
  ],
  [
    "a UDP length beyond the packet",
    "udp_length",
    (p) => raw(p.echoRequest(payload), (f) => f.writeUInt16BE(1000, 58)),
  ],
  ["UDP of 4 bytes", "udp_length", (p) => ipv6Frame(p.route(), PROTOCOL_UDP, Buffer.alloc(4))],
  [
    "a port that nobody serves",
    "udp_port",
    (p) => udp6Frame(p.route(), { sourcePort: 1, destinationPort: 80, payload }),
  ],
  [
    "an echo service that asks",
    "udp_port",
    (p) => udp6Frame(p.route(), { sourcePort: 7, destinationPort: 7, payload }),
  ],
  [
    "a solicitation from beyond the link",
    "nd_hop_limit",
    (p) => p.solicitation(p.guestLink, { hopLimit: 254 }),
  ],
  [
    "a router from beyond the link",
    "nd_hop_limit",
    (p) => p.routerAdvertisement([{}], 1800, { hopLimit: 64 }),
  ],
  [
    "a router without a link-local address",
    "nd",
    (p) => p.routerAdvertisement([{}], 1800, { source: PEER_GLOBAL }),
  ],
  ["an option of length 0", "nd", (p) => solicited(p, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]))],
  [
    "an option beyond the message",
    "nd",
    (p) => solicited(p, Buffer.from([1, 2, 0, 0, 0, 0, 0, 1])),
  ],
  ["half an option", "nd", (p) => solicited(p, Buffer.from([1]))],
  [
    "a MAC option with a group's address",
    "nd",
    (p) => solicited(p, Buffer.from([1, 1, 1, 0, 0, 0, 0, 1])),
  ],
  [
    "a MAC option of 16 bytes",
    "nd",
    (p) => solicited(p, Buffer.from([1, 2, ...Buffer.alloc(14, 2)])),
  ],
  ["a DAD question that names a MAC", "nd", (p) => p.solicitation(p.guestLink, { source: "::" })],
  [
    "a DAD question to one host",
    "nd",
    (p) =>
      p.dadSolicitation(p.guestLink, {
        destination: p.guestLink,
        destinationMac: "52:54:00:12:34:56",
      }),
  ],
  [
    "a solicitation for a group",
    "nd",
    (p) =>
      ndFrame(
        p.route(),
        ND_TYPE.solicitation,
        buildNeighbour({ flags: 0, target: "ff02::1", options: [] }),
      ),
  ],
  [
    "a solicitation with a code",
    "nd",
    (p) => {
      const body = buildNeighbour({ flags: 0, target: p.guestLink, options: [] });
      return icmpv6Frame(p.route({ hopLimit: 255 }), { type: ND_TYPE.solicitation, code: 1, body });
    },
  ],
  [
    "a solicitation of 20 bytes",
    "nd",
    (p) => ndFrame(p.route(), ND_TYPE.solicitation, Buffer.alloc(16)),
  ],
  ["an advertisement that nobody waits for", "nd", (p) => p.advertisement("fe80::77")],
  [
    "a router solicitation",
    "nd",
    (p) => ndFrame(p.groupRoute(ALL_NODES), ND_TYPE.routerSolicitation, Buffer.alloc(4)),
  ],
  ["a redirect", "nd", (p) => ndFrame(p.route(), 137, Buffer.alloc(36))],
];

for (const [what, reason, make] of WRONG) {
  test(`${what} is counted as ${reason} and not answered`, (t) => {
    const [guest, peer] = start(t);
    const free = guest.stats().queues[0]?.pool_free;
    assert.equal(peer.answers(make(peer)), []);
    assert.equal(drops(guest), { [reason]: 1 });
    assert.is(guest.stats().queues[0]?.pool_free, free);
    assert.is(peer.answers(peer.ping(payload)).length, 1);
  });
}

test("a message with a right checksum for the wrong addresses is dropped", (t) => {
  const [guest, peer] = start(t);
  const elsewhere = { source: PEER_LINK, destination: solicitedNode("fe80::1") };
  const message = buildIcmpv6({ type: 128, code: 0, body: payload }, elsewhere);
  peer.answers(ipv6Frame(peer.route(), PROTOCOL_ICMPV6, message));
  assert.equal(drops(guest), { icmp_checksum: 1 });
});

test.run();
