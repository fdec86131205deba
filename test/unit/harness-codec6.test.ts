// The codec's IPv6 half: known vectors, round trips, and what must be refused.

import { isIPv6 } from "node:net";
import {
  assert,
  buildIpv6,
  buildNdOptions,
  buildNeighbour,
  buildRouterAdvertisement,
  buildUdp6,
  echo6Frame,
  eui64Address,
  groupMac,
  ipv6Bytes,
  linkLocalAddress,
  macIn,
  macOption,
  ND_OPTION,
  PROTOCOL_DESTINATION_OPTIONS,
  PROTOCOL_HOP_BY_HOP,
  paddingOptions,
  parseEchoBody,
  parseFrame6,
  parseIpv6,
  parseNdOptions,
  parseNeighbour,
  parsePrefixOption,
  parseRouterAdvertisement,
  parseUdp6,
  prefixOption,
  Random,
  readIpv6,
  solicitedNode,
  suite,
  udp6Frame,
} from "qemu-test-harness";

const test = suite("codec, IPv6");

/** RFC 5952 and RFC 4291: text, and the sixteen bytes. */
const ADDRESSES = [
  ["::", "00000000000000000000000000000000"],
  ["::1", "00000000000000000000000000000001"],
  ["fe80::5054:ff:fe12:3456", "fe80000000000000505400fffe123456"],
  ["2001:db8::1:0:0:1", "20010db8000000000001000000000001"],
  ["2001:db8:0:1:1:1:1:1", "20010db8000000010001000100010001"],
  ["1::", "00010000000000000000000000000000"],
  ["2001:0:0:1::1", "20010000000000010000000000000001"],
  ["1:2:3:4:5:6:7:8", "00010002000300040005000600070008"],
] as const;

for (const [text, hex] of ADDRESSES) {
  test(`${text} is ${hex}`, () => {
    assert.is(ipv6Bytes(text).toString("hex"), hex);
    assert.is(readIpv6(Buffer.from(hex, "hex"), 0), text);
  });
}

test("addresses at random come back as they were, and are addresses", () => {
  const random = new Random(6);
  for (let i = 0; i < 500; i++) {
    const bytes = Buffer.from(random.bytes(16));
    for (let j = 0; j < 16; j++) if (random.below(2) === 0) bytes[j] = 0;
    const text = readIpv6(bytes, 0);
    assert.ok(isIPv6(text), text);
    assert.ok(ipv6Bytes(text).equals(bytes), text);
  }
});

for (const text of ["", "1", ":::", "1::2::3", "12345::", "::1.2.3.4", "fe80::1%v0", "g::"]) {
  test(`'${text}' is refused`, () => {
    assert.throws(() => ipv6Bytes(text), /not an IPv6 address/);
  });
}

test("addresses that follow from others", () => {
  // RFC 4291 appendix A, RFC 2464 4 and 7.
  assert.is(linkLocalAddress("34:56:78:9a:bc:de"), "fe80::3656:78ff:fe9a:bcde");
  assert.is(eui64Address("2001:db8::", "34:56:78:9a:bc:de"), "2001:db8::3656:78ff:fe9a:bcde");
  assert.is(solicitedNode("4037::01:800:200e:8c6c"), "ff02::1:ff0e:8c6c");
  assert.is(groupMac("ff02::1:ff0e:8c6c"), "33:33:ff:0e:8c:6c");
});

/** A solicitation as Linux sends it, recorded. */
const RECORDED =
  "3333ff123456" +
  "525400000001" +
  "86dd" +
  "6000000000203aff" +
  "fe80000000000000505400fffe000001" +
  "ff0200000000000000000001ff123456" +
  "8700" +
  "CSUM" +
  "00000000" +
  "fe80000000000000505400fffe123456" +
  "0101525400000001";

test("a known neighbour solicitation is read; a wrong checksum is refused", () => {
  // Computed by hand: the ones' complement sum of pseudo header and message.
  const words = Buffer.from(RECORDED.slice(44).replace("CSUM", "0000"), "hex");
  let sum = 32 + 58;
  for (let i = 0; i < words.length; i += 2) sum += words.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  const checksum = (~sum & 0xffff).toString(16).padStart(4, "0");
  const frame = Buffer.from(RECORDED.replace("CSUM", checksum), "hex");
  const parsed = parseFrame6(frame);
  assert.is(parsed?.ipv6.hopLimit, 255);
  assert.is(parsed?.icmpv6?.type, 135);
  const message = parseNeighbour(parsed?.icmpv6?.body ?? Buffer.alloc(0));
  assert.is(message.target, "fe80::5054:ff:fe12:3456");
  assert.is(macIn(message.options, ND_OPTION.sourceMac), "52:54:00:00:00:01");
  frame.writeUInt8(1, 60);
  assert.throws(() => parseFrame6(frame), /the checksum is wrong/);
});

const ADDRESSED = { source: "2001:db8::1", destination: "2001:db8::2" } as const;
const ROUTE = { ...ADDRESSED, sourceMac: "02:00:00:00:00:01", destinationMac: "02:00:00:00:00:02" };

test("UDP: a known checksum", () => {
  // 2001:db8::1 port 1 to 2001:db8::2 port 2, data "ab": 5b72 + 3 + 3 + a + a + 11 + 6162 = bcff.
  const datagram = buildUdp6(
    { sourcePort: 1, destinationPort: 2, payload: Buffer.from("ab") },
    ADDRESSED,
  );
  const sum = 2 * (0x2001 + 0x0db8) + 3 + 10 + 17 + 1 + 2 + 10 + 0x6162;
  assert.is(datagram.readUInt16BE(6), ~((sum & 0xffff) + (sum >> 16)) & 0xffff);
});

test("frames come back as they were built, with and without extension headers", () => {
  const random = new Random(7);
  const chains = [
    [],
    [paddingOptions(PROTOCOL_HOP_BY_HOP)],
    [paddingOptions(PROTOCOL_HOP_BY_HOP), paddingOptions(PROTOCOL_DESTINATION_OPTIONS, 24)],
  ];
  for (const extensions of chains) {
    for (const bytes of [0, 1, 2, 99, 1400]) {
      const payload = Buffer.from(random.bytes(bytes));
      const route = { ...ROUTE, extensions };
      const udp = parseFrame6(udp6Frame(route, { sourcePort: 5, destinationPort: 7, payload }));
      assert.ok(udp?.udp?.payload.equals(payload));
      assert.equal(
        udp?.ipv6.extensions.map(({ protocol }) => protocol),
        extensions.map(({ protocol }) => protocol),
      );
      const echo = parseFrame6(echo6Frame(route, 128, { id: 3, sequence: 4, payload }));
      const { id, sequence, payload: back } = parseEchoBody(echo?.icmpv6?.body ?? Buffer.alloc(0));
      assert.equal([id, sequence], [3, 4]);
      assert.ok(back.equals(payload));
    }
  }
});

test("neighbour discovery comes back as it was built", () => {
  const prefix = {
    prefix: "2001:db8:7::",
    prefixLength: 64,
    onLink: true,
    autonomous: false,
    valid: 0xffffffff,
    preferred: 77,
  };
  const options = [macOption(ND_OPTION.sourceMac, "02:00:00:00:00:09"), prefixOption(prefix)];
  const back = parseRouterAdvertisement(
    buildRouterAdvertisement({ hopLimit: 9, lifetime: 1234, options }),
  );
  assert.equal([back.hopLimit, back.lifetime], [9, 1234]);
  const [, second] = back.options;
  assert.equal(second && parsePrefixOption(second), prefix);
  const neighbour = { flags: 0x60, target: "fe80::9", options: [] };
  assert.equal(parseNeighbour(buildNeighbour(neighbour)), neighbour);
  assert.is(parseNdOptions(buildNdOptions(options)).length, 2);
});

test("what is cut or has no length is refused", () => {
  const packet = buildIpv6({ ...ADDRESSED, protocol: 17, payload: Buffer.alloc(8) });
  assert.throws(() => parseIpv6(packet.subarray(0, 39)), /cut/);
  assert.throws(() => parseIpv6(packet.subarray(0, 47)), /announced/);
  assert.throws(() => parseNdOptions(Buffer.alloc(8)), /bad option/);
  assert.throws(() => parseNdOptions(Buffer.from([1, 2, 0, 0, 0, 0, 0, 0])), /bad option/);
  assert.throws(
    () => parseUdp6(Buffer.from([0, 1, 0, 2, 0, 8, 0, 0]), ADDRESSED),
    /without a checksum/,
  );
});

test.run();
