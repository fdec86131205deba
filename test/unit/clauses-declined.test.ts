// Clauses about what a driver may ask for and this one leaves alone, and about those that bind only
// who asks: whatever is on offer, it is not asked for. Named after the clauses.

import { assert, internetChecksum, suite } from "qemu-test-harness";
import { ModelError } from "../model/errors";
import { type Guest, makeGuest, startGuest } from "../model/guest";
import { USUAL_FEATURES } from "../model/net/net-device";
import { GSO, type NetHeader } from "../model/net/net-header";
import { pseudoSum } from "../model/net/tx-check";
import type { Chain } from "../model/virtio/chain";
import type { FeatureName } from "../model/virtio/features";

const test = suite("clauses declined");

const GUEST_UFO = 10n;
const HOST_UFO = 14n;
const SR_IOV = 37n;
const OUT_NET_HEADER = 69n;
/** Extended configuration space begins here, where the SR-IOV capability is. */
const EXTENDED = 0x100;
const TCP_ACK = 0x10;
const TCP_CWR = 0x80;

const SENDING: readonly FeatureName[] = ["csum", "host_tso4", "host_tso6", "host_uso"];
const RECEIVING: readonly FeatureName[] = ["guest_csum", "guest_tso4", "guest_tso6", "guest_uso4"];
const ECN: readonly FeatureName[] = ["host_ecn", "guest_ecn"];
const LARGE: readonly FeatureName[] = [...USUAL_FEATURES, ...SENDING, ...RECEIVING];

// ---- segmentation ------------------------------------------------------------------------------

/** A TCP segment over IPv4 with these flags, to be cut, its checksum left to whoever cuts it. */
function tcpFrame(bytes: number, flags: number): Buffer {
  const frame = Buffer.alloc(bytes, 0x61);
  frame.write("525400aaaa01525400bbbb020800", 0, "hex");
  frame.write("45000000000040004006000000000000c0000201", 14, "hex");
  frame.writeUInt16BE(bytes - 14, 16);
  frame.writeUInt16BE(internetChecksum(frame.subarray(14, 34)), 24);
  frame.write("1000200000000001000000025000ffff00000000", 34, "hex");
  frame.writeUInt8(flags, 47);
  frame.writeUInt16BE(pseudoSum(frame, 6, bytes - 34), 50);
  return frame;
}

/** Forwards one frame, and answers what stands before it on its way out. */
function forward(guest: Guest, flags: number, gsoType: number): NetHeader[] {
  const seen: NetHeader[] = [];
  guest.nicAt(1).sender.onHandedOver = (header) => seen.push(header);
  const header = { flags: 1, gsoType, gsoSize: 1448, hdrLen: 54, csumStart: 34, csumOffset: 16 };
  guest.nicAt(0).receive(tcpFrame(20_000, flags), header);
  guest.settle();
  return seen;
}

for (const [what, flags, gsoType] of [
  ["with CWR goes out with the ECN bit", TCP_ACK | TCP_CWR, GSO.tcpv4 | GSO.ecn],
  ["without CWR goes out without the ECN bit", TCP_ACK, GSO.tcpv4],
] as const) {
  test(`§5.1.9.2.1: TCP to be cut ${what}`, (t) => {
    const net = { features: [...LARGE, ...ECN] };
    const guest = startGuest(t, { commandLine: "app=forward", memoryMib: 64, net, more: [net] });
    const headers = forward(guest, flags, gsoType);
    assert.equal(
      headers.map((header) => header.gsoType),
      [gsoType],
    );
  });
}

test("§5.1.9.2.1: without host_ecn on the way out no TCP with CWR is taken in to be cut", (t) => {
  const guest = startGuest(t, {
    commandLine: "app=forward",
    memoryMib: 64,
    net: { features: [...LARGE, ...ECN] },
    more: [{ features: LARGE }],
  });
  assert.is(guest.nicAt(0).accepts("guest_ecn"), false);
  // A device that sends one all the same: it is not taken in.
  assert.equal(forward(guest, TCP_ACK | TCP_CWR, GSO.tcpv4 | GSO.ecn), []);
  assert.equal(guest.stats(0).queues[0]?.rx.drops, { offload: 1 });
});

for (const withUso of [true, false]) {
  test(`§5.1.9.2.1: with host_ufo on offer, ${withUso ? "and" : "but not"} host_uso, nothing is fragmented`, (t) => {
    const features = LARGE.filter((name) => withUso || name !== "host_uso");
    const moreFeatures = (1n << HOST_UFO) | (1n << GUEST_UFO);
    const commandLine = "app=source gso=udp4 size=9000 count=5 dst=02:00:00:00:00:99";
    const guest = makeGuest(t, {
      commandLine: `${commandLine} dstip=192.0.2.9 ip=192.0.2.2/24 ip6=off`,
      net: { features, moreFeatures },
    });
    const types: number[] = [];
    guest.nic.sender.onHandedOver = ({ gsoType }) => {
      if (gsoType !== GSO.none) types.push(gsoType);
    };
    guest.machine.boot();
    guest.until(() => guest.machine.ended !== undefined, "it ends");
    assert.is(guest.nic.pci.common.accepted & moreFeatures, 0n);
    assert.equal(types, withUso ? Array(5).fill(GSO.udpL4) : []);
    const refusal = "gso: the device does not offer this segmentation";
    assert.equal(guest.errors(), withUso ? [] : [refusal]);
  });
}

// ---- commands ----------------------------------------------------------------------------------

/** What the device must have agreed to for each command. */
const COMMANDS: readonly (readonly [string, FeatureName])[] = [
  ["rx promiscuous on", "ctrl_rx"],
  ["rx nobcast on", "ctrl_rx_extra"],
  ["mac table - -", "ctrl_rx"],
  ["mac set 52:54:00:12:34:57", "ctrl_rx"],
  ["vlan add 5", "ctrl_vlan"],
  ["coal rx 10 20", "notf_coal"],
  ["coal tx 10 20", "notf_coal"],
  ["coal vq 0 10 20", "vq_notf_coal"],
  ["coal vq 0", "vq_notf_coal"],
  ["offloads -guest_csum", "ctrl_guest_offloads"],
  ["devstats", "device_stats"],
  ["rss on", "rss"],
  ["queues 1", "mq"],
];

const CONTROL: readonly FeatureName[] = [
  ...["ctrl_vq", "ctrl_rx", "ctrl_rx_extra", "ctrl_vlan", "ctrl_mac_addr", "ctrl_guest_offloads"],
  ...["notf_coal", "vq_notf_coal", "device_stats", "mq", "rss"],
] as FeatureName[];

for (const [line, needed] of COMMANDS) {
  test(`§5.1.9.5: '${line}' without ${needed} is an error, and nothing is sent`, (t) => {
    // With RSS the number of pairs can be told in another way.
    const gone = needed === "mq" ? ["mq", "rss"] : [needed];
    const features = [...LARGE, ...CONTROL].filter((name) => !gone.includes(name));
    const guest = startGuest(t, { net: { features } });
    guest.settle();
    const before = guest.nic.control.commands.length;
    guest.machine.console.type(line);
    guest.settle();
    const verb = line.split(" ")[0];
    assert.equal(guest.errors(), [`${verb}: the device has not agreed to ${needed}`]);
    assert.is(guest.nic.control.commands.length, before);
  });
}

test("§5.1.9.5: an answer whose ack the device did not write is no OK", (t) => {
  const guest = startGuest(t, { net: { features: [...LARGE, ...CONTROL] } });
  guest.settle();
  const control = guest.nic.controlLive;
  if (control === undefined) throw new ModelError("there is no control queue");
  const { ring } = control;
  const taken: Chain[] = [];
  const take = ring.take.bind(ring);
  ring.take = () => {
    const chain = take();
    taken.push(chain);
    return chain;
  };
  guest.nic.control.responder = () => "never";
  guest.machine.console.type("vlan add 5");
  guest.until(() => taken.length > 0, "the device has the command");
  // It is given back with a length, but nothing was written into it.
  for (const chain of taken) ring.give(chain, 1);
  guest.nic.publish(control);
  guest.until(() => guest.machine.console.find("control") !== undefined, "it is told");
  assert.is(guest.machine.console.find("control")?.result, "refused");
});

// ---- longer headers ----------------------------------------------------------------------------

test("§5.1.9.2, §5.1.9.4.2: with OUT_NET_HEADER on offer headers have 12 bytes both ways", (t) => {
  const net = { features: LARGE, moreFeatures: 1n << OUT_NET_HEADER };
  const guest = startGuest(t, { net });
  assert.is(guest.nic.pci.common.accepted >> 64n, 0n);
  // What would be outer_nh_offset is the frame's beginning: whatever it says, the frame is whole.
  for (const bytes of [0, 1, 14, 34, 0xff]) {
    const payload = Buffer.alloc(100, bytes);
    assert.equal(guest.echo(payload), payload);
    const last = guest.peer.frames.at(-1);
    assert.equal(last?.subarray(0, 6), guest.peer.echoRequest(payload).subarray(6, 12));
  }
});

// ---- virtual functions -------------------------------------------------------------------------

test("§6.1: with SR_IOV on offer no virtual function is enabled, before FEATURES_OK or after", (t) => {
  const guest = makeGuest(t, { net: { moreFeatures: 1n << SR_IOV } });
  const { space } = guest.nic.pci;
  const touched: number[] = [];
  const [read, write] = [space.read.bind(space), space.write.bind(space)];
  space.read = (offset, width) => {
    touched.push(offset);
    return read(offset, width);
  };
  space.write = (offset, width, value) => {
    touched.push(offset);
    write(offset, width, value);
  };
  guest.start();
  guest.nic.pci.needReset();
  guest.settle();
  assert.equal(guest.errors(), ["the device needs a reset"]);
  assert.equal(guest.echo(Buffer.of(1)), Buffer.of(1));
  assert.is(guest.nic.pci.common.accepted & (1n << SR_IOV), 0n);
  assert.ok(touched.length > 0);
  assert.equal(
    touched.filter((offset) => offset >= EXTENDED),
    [],
  );
});

test.run();
