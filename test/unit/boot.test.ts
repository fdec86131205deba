// The image's module on the simulated machine: boot, DHCP, ARP, ping, UDP echo, console, exit.

import {
  ARP_REPLY,
  assert,
  DHCP_MESSAGE,
  DHCP_OPTION,
  ICMP_ECHO_REPLY,
  parseArp,
  parseDhcp,
  parseEthernet,
  parseIcmpEcho,
  parseIpv4,
  parseUdpFrame,
  suite,
  TYPE_ARP,
} from "qemu-test-harness";
import { makeGuest, STATIC_IP, startGuest } from "../model/guest";
import { Machine } from "../model/machine/machine";
import { NetDevice } from "../model/net/net-device";
import { GUEST_IP, PEER } from "../model/net/peer";

const test = suite("boot");

/** The frames' ethertypes. */
const types = (frames: readonly Buffer[]) => frames.map((frame) => parseEthernet(frame).type);

test("it gets its address by DHCP and says that it is ready", (t) => {
  const guest = startGuest(t, { commandLine: "" });
  assert.equal(guest.peer.dhcpSeen, [DHCP_MESSAGE.discover, DHCP_MESSAGE.request]);
  const { console } = guest.machine;
  const names = console.events.map(({ event }) => event);
  assert.equal(names, ["boot", "device", "features", "link", "ready"]);
  const ready = console.find("ready");
  assert.is(ready?.mac, guest.nic.options.mac);
  assert.is(ready?.ip, GUEST_IP);
  assert.is(ready?.prefix, 24);
  assert.is(ready?.mtu, 1500);
  assert.is(ready?.queues, 1);
  assert.is(ready?.ring, "split");
  assert.is(ready?.mode, "adaptive");
  assert.is(ready?.app, "echo");
});

test("the device event names what is offered, in the specification's words", (t) => {
  const guest = startGuest(t);
  const device = guest.machine.console.find("device");
  assert.is(device?.pci, "00:02.0");
  assert.is(device?.vendor, "1af4");
  assert.is(device?.device, "1041");
  assert.equal([...(device?.offered ?? [])].sort(), [...guest.nic.options.features].sort());
});

test("it announces its address twice by ARP", (t) => {
  const guest = startGuest(t);
  guest.settle();
  guest.until(() => guest.peer.frames.length >= 2, "the second announcement", { us: 3_000_000 });
  assert.equal(types(guest.peer.frames), [TYPE_ARP, TYPE_ARP]);
  for (const frame of guest.peer.frames) {
    const arp = parseArp(parseEthernet(frame).payload);
    assert.is(arp.senderIp, GUEST_IP);
    assert.is(arp.targetIp, GUEST_IP);
  }
});

test("it answers ARP for its address", (t) => {
  const guest = startGuest(t);
  guest.settle();
  const before = guest.peer.frames.length;
  guest.nic.receive(guest.peer.arpRequest());
  guest.until(() => guest.peer.frames.length > before, "the ARP answer");
  const arp = parseArp(parseEthernet(guest.peer.frames[before] ?? Buffer.alloc(0)).payload);
  assert.is(arp.operation, ARP_REPLY);
  assert.is(arp.senderMac, guest.nic.options.mac);
  assert.is(arp.senderIp, GUEST_IP);
  assert.is(arp.targetMac, PEER.mac);
});

test("it answers a ping with the same data", (t) => {
  const guest = startGuest(t);
  guest.settle();
  const before = guest.peer.frames.length;
  const payload = Buffer.from("round and back");
  guest.nic.receive(guest.peer.ping(42, payload));
  guest.until(() => guest.peer.frames.length > before, "the echo reply");
  const frame = guest.peer.frames[before] ?? Buffer.alloc(0);
  const ipv4 = parseIpv4(parseEthernet(frame).payload);
  const echo = parseIcmpEcho(ipv4.payload);
  assert.is(echo.type, ICMP_ECHO_REPLY);
  assert.is(echo.sequence, 42);
  assert.is(ipv4.destination, PEER.ip);
  assert.equal(echo.payload, payload);
});

test("it echoes a UDP datagram", (t) => {
  const guest = startGuest(t);
  guest.settle();
  const payload = Buffer.from("there and back again");
  assert.equal(guest.echo(payload), payload);
});

test("stats on the console count packets and bytes of frames without the virtio header", (t) => {
  const guest = startGuest(t);
  guest.settle();
  const before = guest.stats();
  guest.echo(Buffer.alloc(100));
  const after = guest.stats();
  for (const direction of ["rx", "tx"] as const) {
    const first = before.queues[0]?.[direction];
    const last = after.queues[0]?.[direction];
    assert.is((last?.packets ?? 0) - (first?.packets ?? 0), 1, direction);
    assert.is((last?.bytes ?? 0) - (first?.bytes ?? 0), 142, direction);
  }
  assert.is(after.accepted - before.accepted, 1);
});

test("exit on the console ends it well: stats, then exit as the last line", (t) => {
  const guest = startGuest(t);
  guest.machine.console.type("exit");
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  const names = guest.machine.console.events.map(({ event }) => event);
  assert.equal(names.slice(-2), ["stats", "exit"]);
  assert.is(guest.machine.console.find("exit")?.status, "success");
  assert.is(guest.exitStatus(), 33);
});

test("a source with a count sends so many frames and ends well", (t) => {
  const commandLine = `${STATIC_IP} app=source count=1000 size=200`;
  const guest = startGuest(t, { commandLine });
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  const sent = guest.peer.frames.filter((frame) => frame.length === 200);
  assert.is(sent.length, 1000);
  assert.is(guest.exitStatus(), 33);
});

test("a link that goes down and up again is told, and the address announced anew", (t) => {
  const guest = startGuest(t);
  guest.settle();
  const before = guest.peer.frames.length;
  guest.nic.setLink(false);
  guest.settle();
  guest.nic.setLink(true);
  guest.settle();
  const links = guest.machine.console.all("link").map(({ up }) => up);
  assert.equal(links, [true, false, true]);
  assert.ok(types(guest.peer.frames.slice(before)).includes(TYPE_ARP));
});

test("the other vCPUs boot on arenas of their own", (t) => {
  const guest = startGuest(t, { cpus: 4, memoryMib: 64 });
  const boots = guest.machine.console.all("boot");
  assert.equal(
    boots.map(({ cpu }) => cpu),
    [0, 1, 2, 3],
  );
  assert.equal(guest.echo(Buffer.from("still here")), Buffer.from("still here"));
});

test("two runs with the same seed are the same run", (t) => {
  const lines = [1, 2].map(() => {
    const guest = startGuest(t, { commandLine: "", seed: 5 });
    guest.echo(Buffer.from("same"));
    guest.stats();
    return guest.machine.console.lines;
  });
  assert.equal(lines[0], lines[1]);
});

test("without an answer to DHCP it asks again, ever more seldom", () => {
  const machine = new Machine({ commandLine: "ip6=off" });
  const nic = new NetDevice(machine);
  machine.boot();
  machine.run(() => nic.transmitted.length === 4, { us: 20_000_000 });
  const types = nic.transmitted.map((frame) => {
    const packet = parseUdpFrame(frame);
    const options = parseDhcp(packet?.udp.payload ?? Buffer.alloc(0)).options;
    return options.get(DHCP_OPTION.messageType)?.[0];
  });
  assert.equal(types, Array(4).fill(DHCP_MESSAGE.discover));
  assert.is(machine.console.find("ready"), undefined);
  assert.equal(machine.violations.list, []);
});

test("without a device it says so and ends in failure", (t) => {
  const guest = makeGuest(t, { net: { deviceId: 0x1042 } });
  guest.machine.boot();
  assert.equal(guest.errors(), ["no virtio-net device on the PCI buses"]);
  assert.is(guest.exitStatus(), 35);
});

test.run();
