// The control plane: every console command against QEMU's own device, with what QEMU says that it
// was told (query-rx-filter, its trace) as the witness; then the same again after a reset.
// Coalescing and device statistics are not in QEMU: they are tested on the model in Node.
//
// Shares the machine: nothing in it is timed.

import {
  assert,
  type DeviceOptions,
  type GuestEvent,
  suite,
  sumQueues,
  type TestContext,
  tap,
  type Vm,
} from "qemu-test-harness";
import { complaint, done } from "./control-support";
import { ping } from "./ping";
import { bootEcho, GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("control", { timeoutMs: 90_000 });

interface RxFilter {
  readonly promiscuous: boolean;
  readonly multicast: "none" | "normal" | "all";
  readonly unicast: "none" | "normal" | "all";
  readonly "broadcast-allowed": boolean;
  readonly "main-mac": string;
  readonly "vlan-table": readonly number[];
  readonly "unicast-table": readonly string[];
  readonly "multicast-table": readonly string[];
}

async function filterOf(vm: Vm): Promise<RxFilter> {
  const [filter] = (await vm.qmp.execute("query-rx-filter")) as RxFilter[];
  if (filter === undefined) throw new Error("QEMU reports no receive filter");
  return filter;
}

async function boot(t: TestContext, device: DeviceOptions = {}) {
  return bootEcho(t, { device: { id: "nic", ...device } });
}

// ---- what comes in -----------------------------------------------------------------------------

for (const [mode, field, on, off] of [
  ["promiscuous", "promiscuous", true, false],
  ["allmulti", "multicast", "all", "normal"],
  ["alluni", "unicast", "all", "normal"],
  ["nomulti", "multicast", "none", "normal"],
  ["nouni", "unicast", "none", "normal"],
  // QEMU reports this one the wrong way round.
  ["nobcast", "broadcast-allowed", true, false],
] as const) {
  test(`rx ${mode}: on, then off (§5.1.9.5.1)`, async (t) => {
    const { vm } = await boot(t);
    await done(vm, "rx promiscuous off", `rx ${mode} on`);
    assert.is((await filterOf(vm))[field], on);
    await done(vm, `rx ${mode} off`);
    assert.is((await filterOf(vm))[field], off);
    await vm.stop();
  });
}

test("mac set: the device has it, and it is the one that the guest speaks with", async (t) => {
  const { vm, peer } = await boot(t);
  await peer.ping(GUEST_IP);
  await done(vm, "rx promiscuous off", "mac set 02:00:00:00:00:01");
  assert.is((await filterOf(vm))["main-mac"], "02:00:00:00:00:01");
  assert.is(await peer.arp(GUEST_IP), "02:00:00:00:00:01");
  const { ethernet } = await peer.ping(GUEST_IP);
  assert.is(ethernet.source, "02:00:00:00:00:01");
  await vm.stop();
});

test("mac table: both lists, then none (§5.1.9.5.2)", async (t) => {
  const { vm } = await boot(t);
  const unicast = ["02:00:00:00:00:02", "02:00:00:00:00:03"];
  const multicast = ["01:00:5e:00:00:01"];
  await done(vm, `mac table ${unicast} ${multicast}`);
  const filter = await filterOf(vm);
  assert.equal(filter["unicast-table"].toSorted(), unicast);
  assert.equal(filter["multicast-table"], multicast);
  await done(vm, "mac table - -");
  const empty = await filterOf(vm);
  assert.equal([...empty["unicast-table"], ...empty["multicast-table"]], []);
  await vm.stop();
});

test("mac table: 40 addresses in one line", async (t) => {
  const { vm } = await boot(t);
  const macs = Array.from({ length: 40 }, (_, i) => `02:00:00:00:01:${(16 + i).toString(16)}`);
  await done(vm, `mac table ${macs} -`);
  assert.equal((await filterOf(vm))["unicast-table"].toSorted(), macs);
  await vm.stop();
});

test("vlan: add and delete (§5.1.9.5.3)", async (t) => {
  const { vm } = await boot(t);
  // Some QEMUs begin with all of them.
  for (const vlan of [5, 0, 4094]) {
    await done(vm, `vlan del ${vlan}`);
    assert.not((await filterOf(vm))["vlan-table"].includes(vlan));
    await done(vm, `vlan add ${vlan}`);
    assert.ok((await filterOf(vm))["vlan-table"].includes(vlan));
  }
  await vm.stop();
});

// ---- announcements and the link ----------------------------------------------------------------

test("announce: gratuitous ARP", async (t) => {
  const { vm, net, ready } = await boot(t);
  const source = Buffer.from(ready.mac.replaceAll(":", ""), "hex");
  const seen = new Promise<void>((resolve) => {
    net.onFrame((frame) => {
      const isArp = frame.readUInt16BE(12) === 0x0806;
      const isOurs = frame.subarray(6, 12).equals(source);
      if (isArp && isOurs && frame.subarray(28, 32).equals(frame.subarray(38, 42))) resolve();
    });
  });
  await done(vm, "announce");
  await seen;
  await vm.stop();
});

test("announce-self: the guest announces itself and acknowledges (§5.1.9.5.4)", async (t) => {
  const vm = await t.vm({
    append: STATIC_ADDRESS,
    nics: [{ backend: tap() }],
    extraArguments: ["-trace", "virtio_net_handle_announce"],
    stderrAllowed: [/virtio_net_handle_announce/],
  });
  await vm.waitFor("ready");
  const before = sumQueues(await vm.stats(), "tx", "packets");
  const [initial, max, rounds, step] = [50, 50, 2, 10];
  await vm.qmp.execute("announce-self", { arguments: { initial, max, rounds, step } });
  const deadline = performance.now() + 10_000;
  const acknowledged = () =>
    vm.artifacts().some(({ name, content }) => {
      return name === "stderr.log" && String(content).includes("virtio_net_handle_announce");
    });
  while (!acknowledged() && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.ok(acknowledged(), "QEMU saw no acknowledgement");
  assert.ok(sumQueues(await vm.stats(), "tx", "packets") > before);
  await vm.stop();
});

test("set_link: down, up, and traffic again", async (t) => {
  const { vm, peer } = await boot(t);
  await vm.qmp.execute("set_link", { arguments: { name: "nic", up: false } });
  await vm.waitFor("link", { where: ({ up }) => !up });
  const up = vm.waitFor("link", { where: (event) => event.up, fresh: true });
  await vm.qmp.execute("set_link", { arguments: { name: "nic", up: true } });
  await up;
  await peer.ping(GUEST_IP);
  await vm.stop();
});

for (const [device, speed, duplex] of [
  [{ speed: 1000, duplex: "full" }, 1000, "full"],
  [{ speed: 10, duplex: "half" }, 10, "half"],
  [{ duplex: "full" }, "unknown", "full"],
] as const) {
  test(`link: speed ${speed}, duplex ${duplex} (§5.1.4)`, async (t) => {
    const { vm } = await boot(t, device);
    const link = await vm.waitFor("link");
    assert.equal([link.speed, link.duplex], [speed, duplex]);
    await vm.stop();
  });
}

test("link: neither speed nor duplex without speed_duplex", async (t) => {
  const { vm } = await boot(t);
  const link = await vm.waitFor("link");
  assert.equal([link.speed, link.duplex], [undefined, undefined]);
  await vm.stop();
});

// ---- what is wrong -----------------------------------------------------------------------------

test("bad arguments: an error that names them, and the device hears nothing", async (t) => {
  const { vm, peer } = await boot(t);
  const before = await filterOf(vm);
  for (const [line, message] of [
    ["rx", 'rx: "" is no receive mode'],
    ["rx everything on", 'rx: "everything" is no receive mode'],
    ["rx allmulti maybe", 'rx: "maybe" is neither on nor off'],
    ["rx allmulti on on", 'rx: "on" is one too many'],
    ["mac set 01:00:5e:00:00:01", 'mac: "01:00:5e:00:00:01" is not the address of a host'],
    ["mac set 02:00:00:00:00", 'mac: "02:00:00:00:00" is not the address of a host'],
    ["mac table 01:00:5e:00:00:01 -", 'mac: "01:00:5e:00:00:01" is no list of such addresses'],
    ["mac table - 02:00:00:00:00:01", 'mac: "02:00:00:00:00:01" is no list of such addresses'],
    ["mac table -", 'mac: "" is no list of such addresses'],
    ["vlan add 4095", 'vlan: "4095" is not from 0 to 4094'],
    ["vlan add -1", 'vlan: "-1" is not from 0 to 4094'],
    ["vlan set 1", 'vlan: "set" is neither add nor del'],
    ["announce now", 'announce: "now" is one too many'],
    [
      "offloads guest_csum",
      'offloads: "guest_csum" is no offload that was agreed upon, with + or -',
    ],
    ["offloads +mac", 'offloads: "+mac" is no offload that was agreed upon, with + or -'],
    ["offloads +", 'offloads: "+" is no offload that was agreed upon, with + or -'],
    ["coal rx 1 1", "coal: the device has not agreed to notf_coal"],
    ["coal vq 0", "coal: the device has not agreed to vq_notf_coal"],
    ["devstats", "devstats: the device has not agreed to device_stats"],
    ["rss on", "rss: the device has not agreed to rss"],
    ["queues 1", "queues: the device has not agreed to mq"],
  ] as const) {
    assert.is(await complaint(vm, line), message);
  }
  assert.equal(await filterOf(vm), before);
  await peer.ping(GUEST_IP);
  await vm.stop();
});

test("a line that is no command is a warning", async (t) => {
  const { vm } = await boot(t);
  vm.send("fly");
  const warning = await vm.waitFor("warning", { where: ({ message }) => message.includes("fly") });
  assert.is(warning.message, '"fly" is no command: see help');
  await vm.stop();
});

test("features left out: their commands are refused, and help says so", async (t) => {
  const { vm } = await bootEcho(t, { append: `${STATIC_ADDRESS} features=-ctrl_rx,-ctrl_vlan` });
  assert.is(await complaint(vm, "vlan add 1"), "vlan: the device has not agreed to ctrl_vlan");
  // virtio 1.4 §5.1.9.5.2.2: not even the address may be set without ctrl_rx.
  assert.match(await complaint(vm, "mac set 02:00:00:00:00:01"), /not agreed to ctrl_rx$/);
  vm.send("help");
  const help = await vm.waitFor("help");
  const available = help.commands as string[];
  const unavailable = help.unavailable as { command: string; needs: string[] }[];
  assert.ok(available.includes("announce") && available.includes("stats"));
  assert.ok(!available.some((usage) => usage.startsWith("vlan")));
  const vlan = unavailable.find((entry) => entry.command.startsWith("vlan"));
  assert.equal(vlan?.needs, ["ctrl_vlan"]);
  await vm.stop();
});

test("without ctrl_vq there are no commands for the device, and packets pass", async (t) => {
  const { vm, peer } = await boot(t, { ctrl_vq: false });
  assert.is(await complaint(vm, "rx allmulti on"), "rx: the device has not agreed to ctrl_vq");
  await done(vm, "announce");
  await peer.ping(GUEST_IP);
  await vm.stop();
});

test("eight commands at once are carried out in order", async (t) => {
  const { vm } = await boot(t);
  const lines = [1, 2, 3, 4, 5, 6, 7].map((vlan) => `vlan add ${vlan}`);
  const last = vm.waitFor("control", { where: (event) => event.command === "vlan del 1" });
  vm.send([...lines, "vlan del 1"].join("\n"));
  await last;
  const events = vm.history.filter(({ event }) => event === "control");
  assert.equal(
    events.map((event) => event.command),
    [...lines, "vlan del 1"],
  );
  const vlans = (await filterOf(vm))["vlan-table"];
  assert.not(vlans.includes(1));
  assert.ok([2, 3, 4, 5, 6, 7].every((vlan) => vlans.includes(vlan)));
  await vm.stop();
});

// ---- offloads -------------------------------------------------------------------------------

test("offloads: off and on, one that another needs cannot go (§5.1.9.5.9)", async (t) => {
  const net = tap();
  const vm = await t.vm({ append: STATIC_ADDRESS, nics: [{ backend: net }] });
  await vm.waitFor("ready");
  assert.match(await complaint(vm, "offloads -guest_csum"), /without one that it needs/);
  await done(vm, "offloads -guest_tso4,-guest_tso6,-guest_ecn,-guest_uso4,-guest_uso6");
  await done(vm, "offloads -guest_csum", "offloads +guest_csum,+guest_tso4");
  await ping(net, "-c 3 -i 0.05", GUEST_IP);
  await vm.stop();
});

// ---- after a reset -----------------------------------------------------------------------------

test("a reset: what the device was told it is told again", async (t) => {
  const { vm, peer } = await boot(t);
  await done(vm, "rx promiscuous off", "rx allmulti on", "rx nobcast on", "rx nobcast off");
  await done(vm, "vlan add 7", "vlan add 8", "vlan del 8", "mac set 02:00:00:00:00:09");
  await done(vm, "mac table 02:00:00:00:00:02 01:00:5e:00:00:01");
  const before = await filterOf(vm);
  await done(vm, "reset");
  assert.equal(await filterOf(vm), before);
  assert.is(await peer.arp(GUEST_IP), "02:00:00:00:00:09");
  await peer.ping(GUEST_IP);
  assert.is(((await vm.stats()) as unknown as GuestEvent).recoveries, 1);
  await vm.stop();
});

test.run();
