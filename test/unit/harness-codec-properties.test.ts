// The packet codec by its properties, with values at random: what was built is read back as it was,
// a flipped bit below a checksum is refused, and tcpdump finds every checksum right.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import {
  assert,
  buildArp,
  buildDhcp,
  buildEchoBody,
  buildEthernet,
  buildIcmpEcho,
  buildIcmpv6,
  buildIpv4,
  buildIpv6,
  buildNdOptions,
  buildNeighbour,
  buildRouterAdvertisement,
  buildTcp,
  buildUdp,
  buildUdp6,
  echo6Frame,
  parseArp,
  parseDhcp,
  parseEchoBody,
  parseEthernet,
  parseIcmpEcho,
  parseIcmpv6,
  parseIpv4,
  parseIpv6,
  parseNdOptions,
  parseNeighbour,
  parseRouterAdvertisement,
  parseTcp,
  parseTcpFrame,
  parseUdp,
  parseUdp6,
  readIpv6,
  runCommand,
  suite,
  tcp6Frame,
  tcpFrame,
  udp6Frame,
  udpFrame,
  writePcap,
} from "qemu-test-harness";

const test = suite("harness codec properties", { timeoutMs: 60_000 });

/** Objects like those that the codec makes. */
function record<T>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(fields, { noNullPrototype: true }) as fc.Arbitrary<T>;
}

const byte = fc.integer({ min: 0, max: 0xff });
const word = fc.integer({ min: 0, max: 0xffff });
const long = fc.integer({ min: 0, max: 0xffff_ffff });
const bytes = (maxLength: number) =>
  fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));
const mac = fc
  .tuple(byte, byte, byte, byte, byte, byte)
  .map((parts) => parts.map((part) => part.toString(16).padStart(2, "0")).join(":"));
const ipv4 = fc.tuple(byte, byte, byte, byte).map((parts) => parts.join("."));
/** As the codec writes it. */
const ipv6 = fc
  .uint8Array({ minLength: 16, maxLength: 16 })
  .map((array) => readIpv6(Buffer.from(array), 0));
const addresses = record({ source: ipv4, destination: ipv4 });
const addresses6 = record({ source: ipv6, destination: ipv6 });
const payload = bytes(1472);
const udp = record({ sourcePort: word, destinationPort: word, payload });
const tcp = record({
  sourcePort: word,
  destinationPort: word,
  sequence: long,
  acknowledgement: long,
  flags: byte,
  window: word,
  urgent: word,
  options: fc.integer({ min: 0, max: 10 }).map((words) => Buffer.alloc(4 * words, 1)),
  payload,
});
const ndOptions = fc.array(
  record({
    type: byte,
    data: fc
      .integer({ min: 1, max: 4 })
      .chain((n) => fc.uint8Array({ minLength: 8 * n - 2, maxLength: 8 * n - 2 }))
      .map((array) => Buffer.from(array)),
  }),
  { maxLength: 4 },
);

/** Whatever else is read, what was built is in it. */
function contains(read: object, built: object): void {
  for (const [key, value] of Object.entries(built)) {
    assert.equal((read as Record<string, unknown>)[key], value, key);
  }
}

function roundTrip<T extends object>(
  arbitrary: fc.Arbitrary<T>,
  build: (fields: T) => Buffer,
  parse: (built: Buffer) => object,
): void {
  fc.assert(fc.property(arbitrary, (fields) => contains(parse(build(fields)), fields)));
}

/** The same for what has a checksum over its addresses; and a flipped bit is refused. */
function roundTripBetween<T extends object, A extends object>(
  arbitrary: fc.Arbitrary<T>,
  between: fc.Arbitrary<A>,
  build: (fields: T, ends: A) => Buffer,
  parse: (built: Buffer, ends: A) => object,
): void {
  fc.assert(
    fc.property(arbitrary, between, fc.nat(), fc.nat({ max: 7 }), (fields, ends, at, bit) => {
      const built = build(fields, ends);
      contains(parse(built, ends), fields);
      const index = at % built.length;
      built.writeUInt8(built.readUInt8(index) ^ (1 << bit), index);
      assert.throws(() => parse(built, ends));
    }),
  );
}

test("Ethernet, tagged and not", () => {
  const vlan = record({
    priority: fc.nat({ max: 7 }),
    dropEligible: fc.boolean(),
    id: fc.nat({ max: 4095 }),
  });
  const type = word.filter((value) => value !== 0x8100);
  const plain = { destination: mac, source: mac, type, payload };
  roundTrip(record(plain), buildEthernet, parseEthernet);
  roundTrip(record({ ...plain, vlan }), buildEthernet, parseEthernet);
});

test("ARP", () => {
  const fields = {
    operation: word,
    senderMac: mac,
    senderIp: ipv4,
    targetMac: mac,
    targetIp: ipv4,
  };
  roundTrip(record(fields), buildArp, parseArp);
});

test("IPv4: and a flipped bit of the header is refused", () => {
  const fields = record({
    source: ipv4,
    destination: ipv4,
    protocol: byte,
    ttl: byte,
    id: word,
    dontFragment: fc.boolean(),
    payload,
  });
  roundTrip(fields, buildIpv4, parseIpv4);
  fc.assert(
    fc.property(fields, fc.nat({ max: 19 }), fc.nat({ max: 7 }), (built, at, bit) => {
      const packet = buildIpv4(built);
      packet.writeUInt8(packet.readUInt8(at) ^ (1 << bit), at);
      assert.throws(() => parseIpv4(packet));
    }),
  );
});

test("IPv6, with destination options in front or without", () => {
  const options = record({
    protocol: fc.constant(60),
    rest: fc.integer({ min: 1, max: 4 }).map((n) => {
      const rest = Buffer.alloc(8 * n - 1, 0x55);
      rest.writeUInt8(n - 1, 0);
      return rest;
    }),
  });
  const fields = {
    source: ipv6,
    destination: ipv6,
    protocol: fc.constantFrom(6, 17, 58, 59),
    hopLimit: byte,
    extensions: fc.array(options, { maxLength: 3 }),
    payload,
  };
  roundTrip(record(fields), buildIpv6, parseIpv6);
});

test("ICMP echo", () => {
  const fields = { type: fc.constantFrom(0, 8), code: byte, id: word, sequence: word, payload };
  roundTripBetween(record(fields), addresses, buildIcmpEcho, parseIcmpEcho);
});

test("ICMPv6: any message, and echo", () => {
  const message = record({ type: byte, code: byte, body: payload });
  roundTripBetween(message, addresses6, buildIcmpv6, parseIcmpv6);
  const echo = record({ id: word, sequence: word, payload });
  roundTrip(echo, buildEchoBody, parseEchoBody);
});

test("neighbour discovery: options, neighbours, router advertisements", () => {
  fc.assert(
    fc.property(ndOptions, (options) => {
      assert.equal(parseNdOptions(buildNdOptions(options)), options);
    }),
  );
  const neighbour = record({ flags: byte, target: ipv6, options: ndOptions });
  roundTrip(neighbour, buildNeighbour, parseNeighbour);
  const router = record({ hopLimit: byte, lifetime: word, options: ndOptions });
  roundTrip(router, buildRouterAdvertisement, parseRouterAdvertisement);
});

test("UDP over IPv4 and IPv6", () => {
  // A flip may make the checksum's field zero, which over IPv4 says that there is none.
  fc.assert(
    fc.property(udp, addresses, (fields, ends) => {
      const built = buildUdp(fields, ends);
      assert.not.equal(built.readUInt16BE(6), 0);
      contains(parseUdp(built, ends), fields);
    }),
  );
  roundTripBetween(udp, addresses6, buildUdp6, parseUdp6);
});

test("TCP over IPv4 and IPv6", () => {
  roundTripBetween(tcp, addresses, buildTcp, parseTcp);
  roundTripBetween(tcp, addresses6, buildTcp, parseTcp);
  for (const options of [Buffer.alloc(3), Buffer.alloc(44)]) {
    const fields = { sourcePort: 1, destinationPort: 2, sequence: 3, acknowledgement: 4 };
    const rest = { flags: 0, window: 5, urgent: 0, options, payload: Buffer.alloc(0) };
    const ends = { source: "192.0.2.1", destination: "192.0.2.2" };
    assert.throws(() => buildTcp({ ...fields, ...rest }, ends), /bytes of options/);
  }
});

test("DHCP", () => {
  const code = fc.integer({ min: 1, max: 254 });
  const options = fc.uniqueArray(fc.tuple(code, bytes(60)), { selector: ([key]) => key });
  const fields = {
    operation: byte,
    transaction: long,
    broadcast: fc.boolean(),
    clientIp: ipv4,
    yourIp: ipv4,
    serverIp: ipv4,
    clientMac: mac,
    options: options.map((entries) => new Map(entries)),
  };
  roundTrip(record(fields), buildDhcp, parseDhcp);
});

test("whole frames with TCP are read, and others are not taken for it", () => {
  const ends = { sourceMac: "02:00:00:00:00:01", destinationMac: "02:00:00:00:00:02" };
  fc.assert(
    fc.property(tcp, addresses, addresses6, (fields, four, six) => {
      contains(parseTcpFrame(tcpFrame({ ...ends, ...four }, fields))?.tcp ?? {}, fields);
      contains(parseTcpFrame(tcp6Frame({ ...ends, ...six }, fields))?.tcp ?? {}, fields);
      assert.is(parseTcpFrame(udpFrame({ ...ends, ...four }, fields)), undefined);
    }),
  );
});

test("tcpdump, which has its own idea of them, finds all checksums right", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "harness-codec-"));
  t.cleanup(() => rmSync(directory, { recursive: true }));
  const path = join(directory, "frames.pcap");
  const ends = { sourceMac: "02:00:00:00:00:01", destinationMac: "02:00:00:00:00:02" };
  const four = { ...ends, source: "192.0.2.1", destination: "192.0.2.2" };
  const six = { ...ends, source: "2001:db8::1", destination: "2001:db8::2" };
  const echo = record({ id: word, sequence: word, payload });
  const samples = <T>(arbitrary: fc.Arbitrary<T>) => fc.sample(arbitrary, { numRuns: 20, seed: 5 });
  const frames = [
    ...samples(tcp).flatMap((fields) => [tcpFrame(four, fields), tcp6Frame(six, fields)]),
    ...samples(udp).flatMap((fields) => [udpFrame(four, fields), udp6Frame(six, fields)]),
    ...samples(echo).map((fields) => echo6Frame(six, 128, fields)),
  ];
  writeFileSync(path, writePcap(frames.map((frame) => ({ timeNs: 1_000_000_000n, frame }))));
  const { status, stdout } = await runCommand(["tcpdump", "-r", path, "-nn", "-vvv", "-t"]);
  if (status === 127) t.skip("tcpdump is not installed");
  assert.not.match(stdout, /incorrect|bad cksum|bad udp cksum|wrong icmp/);
  // TCP says "(correct)", UDP and ICMPv6 "ok".
  const right = stdout.match(/cksum 0x[0-9a-f]{4} \(correct\)|\[(udp|icmp6) sum ok\]/g) ?? [];
  assert.ok(right.length >= 80, `${right.length} checksums of ${frames.length} were looked at`);
});

test.run();
