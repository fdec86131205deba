// The packet codec: known vectors, round trips, and refusals of everything that is cut or has a
// wrong checksum.

import {
  ARP_REPLY,
  assert,
  BOOT_REPLY,
  buildArp,
  buildDhcp,
  buildEthernet,
  buildIcmpEcho,
  buildIpv4,
  buildUdp,
  DHCP_MESSAGE,
  DHCP_OPTION,
  ICMP_ECHO_REQUEST,
  internetChecksum,
  ipv4Bytes,
  PROTOCOL_UDP,
  padded,
  parseArp,
  parseDhcp,
  parseEthernet,
  parseIcmpEcho,
  parseIpv4,
  parseUdp,
  parseUdpFrame,
  type Route,
  suite,
  TYPE_ARP,
  TYPE_IPV4,
  udpFrame,
} from "qemu-test-harness";

const A = "52:54:00:12:34:56";
const B = "02:00:00:00:00:01";
const ROUTE: Route = {
  sourceMac: A,
  destinationMac: B,
  source: "192.0.2.2",
  destination: "192.0.2.1",
};

const test = suite("harness codec");

test("checksum: the example of RFC 1071 and its odd-length variants", () => {
  const bytes = Buffer.from("0001f203f4f5f6f7", "hex");
  assert.is(internetChecksum(bytes), 0x220d);
  assert.is(internetChecksum(Buffer.from([0x12])), ~0x1200 & 0xffff);
  assert.is(internetChecksum(Buffer.alloc(0)), 0xffff);
  assert.is(internetChecksum(Buffer.alloc(65_535, 0xff)), ~0xff00 & 0xffff);
});

test("IPv4: a known header has the known checksum", () => {
  // The header that textbooks and Wikipedia use: checksum b861.
  const known = Buffer.from("45000073000040004011b861c0a80001c0a800c7", "hex");
  const built = buildIpv4({
    source: "192.168.0.1",
    destination: "192.168.0.199",
    protocol: PROTOCOL_UDP,
    payload: Buffer.alloc(0x73 - 20),
  });
  assert.equal(built.subarray(0, 20), known);
});

test("Ethernet: round trip with and without a VLAN tag", () => {
  const payload = Buffer.from("payload");
  const plain = parseEthernet(
    buildEthernet({ destination: A, source: B, type: TYPE_ARP, payload }),
  );
  assert.equal(plain, { destination: A, source: B, type: TYPE_ARP, payload });
  const vlan = { priority: 5, dropEligible: true, id: 0xabc };
  const tagged = buildEthernet({ destination: A, source: B, type: TYPE_IPV4, vlan, payload });
  assert.is(tagged.length, 18 + payload.length);
  assert.equal(parseEthernet(tagged), {
    destination: A,
    source: B,
    type: TYPE_IPV4,
    vlan,
    payload,
  });
  assert.is(padded(tagged).length, 60);
  assert.throws(() => parseEthernet(tagged.subarray(0, 13)), /no room/);
  assert.throws(() => parseEthernet(tagged.subarray(0, 17)), /VLAN tag is cut/);
});

test("ARP: a known reply and a round trip", () => {
  const fields = {
    operation: ARP_REPLY,
    senderMac: A,
    senderIp: "192.0.2.2",
    targetMac: B,
    targetIp: "192.0.2.1",
  };
  const packet = buildArp(fields);
  const known = "0001080006040002525400123456c0000202020000000001c0000201";
  assert.is(packet.toString("hex"), known);
  assert.equal(parseArp(packet), fields);
  assert.throws(() => parseArp(packet.subarray(0, 27)), /27 bytes/);
  packet.writeUInt8(7, 4);
  assert.throws(() => parseArp(packet), /not IPv4 over Ethernet/);
});

test("ICMP echo: round trip, and a changed bit is noticed", () => {
  const fields = { type: ICMP_ECHO_REQUEST, code: 0, id: 7, sequence: 9 };
  for (const length of [0, 1, 2, 55, 1472]) {
    const payload = Buffer.alloc(length, 0x5a);
    const packet = buildIcmpEcho({ ...fields, payload });
    assert.equal(parseIcmpEcho(packet), { ...fields, payload });
    packet.writeUInt8(packet.readUInt8(7) ^ 1, 7);
    assert.throws(() => parseIcmpEcho(packet), /checksum/);
  }
});

test("UDP in IPv4 in Ethernet: round trip for payloads of 0 to 64 bytes, and up to the MTU", () => {
  for (const length of [...Array(65).keys(), 1471, 1472]) {
    const payload = Buffer.from(Array.from({ length }, (_, i) => (i * 7 + length) & 0xff));
    const frame = udpFrame(ROUTE, { sourcePort: 40_000, destinationPort: 7, payload });
    const parsed = parseUdpFrame(padded(frame));
    assert.equal(parsed?.udp.payload, payload);
    assert.is(parsed?.udp.hasChecksum, true);
    assert.is(parsed?.ipv4.source, ROUTE.source);
  }
});

test("UDP: a changed payload, a wrong length and a missing checksum", () => {
  const addresses = { source: "192.0.2.2", destination: "192.0.2.1" };
  const fields = { sourcePort: 1, destinationPort: 2, payload: Buffer.from("abc") };
  const good = buildUdp(fields, addresses);
  const changed = Buffer.from(good);
  changed.writeUInt8(0, 8);
  assert.throws(() => parseUdp(changed, addresses), /checksum/);
  const long = Buffer.from(good);
  long.writeUInt16BE(good.length + 1, 4);
  assert.throws(() => parseUdp(long, addresses), /length/);
  const bare = Buffer.from(good);
  bare.writeUInt16BE(0, 6);
  assert.is(parseUdp(bare, addresses).hasChecksum, false);
});

test("UDP: a checksum that comes out as zero is sent as ffff", () => {
  const addresses = { source: "0.0.0.0", destination: "0.0.0.0" };
  // 17 (protocol) + 10 (length, twice) + the two payload bytes sum up to ffff.
  const payload = Buffer.alloc(2);
  payload.writeUInt16BE(0xffff - 17 - 10 - 10);
  const datagram = buildUdp({ sourcePort: 0, destinationPort: 0, payload }, addresses);
  assert.is(datagram.readUInt16BE(6), 0xffff);
  assert.equal(parseUdp(datagram, addresses).payload, payload);
});

test("IPv4: cut, inconsistent and damaged headers are refused", () => {
  const fields = { source: "10.0.0.1", destination: "10.0.0.2", protocol: 17 };
  const good = buildIpv4({ ...fields, payload: Buffer.alloc(8) });
  assert.is(parseIpv4(good).payload.length, 8);
  assert.throws(() => parseIpv4(good.subarray(0, 19)), /cut/);
  assert.throws(() => parseIpv4(good.subarray(0, 27)), /27 bytes/);
  const damaged = Buffer.from(good);
  damaged.writeUInt8(1, 8);
  assert.throws(() => parseIpv4(damaged), /checksum/);
  const version = Buffer.from(good);
  version.writeUInt8(0x65, 0);
  assert.throws(() => parseIpv4(version), /version/);
});

test("DHCP: round trip with options, and cut options are refused", () => {
  const options = new Map<number, Uint8Array>([
    [DHCP_OPTION.messageType, Buffer.from([DHCP_MESSAGE.offer])],
    [DHCP_OPTION.subnetMask, ipv4Bytes("255.255.255.0")],
  ]);
  const fields = {
    operation: BOOT_REPLY,
    transaction: 0xdeadbeef,
    broadcast: true,
    clientIp: "0.0.0.0",
    yourIp: "192.0.2.9",
    serverIp: "192.0.2.1",
    clientMac: A,
    options,
  };
  const message = buildDhcp(fields);
  assert.equal(parseDhcp(message), fields);
  assert.throws(() => parseDhcp(message.subarray(0, 242)), /option 53 is cut/);
  assert.throws(() => parseDhcp(message.subarray(0, 239)), /fixed part is cut/);
});

test("addresses that are none are refused", () => {
  const arp = {
    operation: 1,
    senderMac: A,
    senderIp: "1.2.3.4",
    targetMac: B,
    targetIp: "1.2.3.4",
  };
  assert.throws(() => buildArp({ ...arp, senderIp: "1.2.3" }), /not an IPv4 address/);
  assert.throws(() => buildArp({ ...arp, senderIp: "1.2.3.256" }), /not an IPv4 address/);
  assert.throws(() => buildArp({ ...arp, senderMac: "52:54:00" }), /not a MAC/);
});

test.run();
