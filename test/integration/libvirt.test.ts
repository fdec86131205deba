// Domains of a real libvirtd, commanded by virsh: what the XML asks for is what the guest finds,
// and traffic flows. The exit status is not visible through libvirt, so the console's last event
// counts.

import { resolve } from "node:path";
import {
  assert,
  chooseAccelerator,
  type DomainInterface,
  defaultImage,
  delay,
  HarnessError,
  interfaceXml,
  type LibvirtDomain,
  type LibvirtHost,
  libvirt,
  ovs,
  suite,
  sumQueues,
  TAP_NAME,
  type TapBackend,
  type TestContext,
  tap,
  vhostNet,
  vhostUser,
} from "qemu-test-harness";
import { aheadAtRest, type Counts, sameCounts } from "./counters";
import { ping } from "./ping";
import { GUEST_IP, STATIC_ADDRESS } from "./support";

const READY_MS = 60_000;
const FLOOD = "-f -c 200";
const MAC = "52:54:00:12:34:56";
const SECOND_MAC = "52:54:00:12:34:57";
const LISTED_MS = 20_000;
const SECOND_IP = "198.51.100.2";
const FRAMES = 100_000;

const test = suite("libvirt", { timeoutMs: 120_000, requires: ["libvirt"] });

interface DomainChoice {
  readonly append?: string;
  readonly cpus?: number;
  readonly interfaces: readonly DomainInterface[];
}

async function startHost(
  t: TestContext,
  namespace: string,
  environment: Record<string, string> = {},
): Promise<LibvirtHost> {
  const host = libvirt({ namespace, environment });
  t.cleanup(() => {
    for (const { name, content } of host.artifacts()) t.keep(name, content);
    return host.stop();
  });
  await host.start();
  return host;
}

async function define(host: LibvirtHost, choice: DomainChoice): Promise<LibvirtDomain> {
  const image = resolve(defaultImage());
  const { accelerator } = await chooseAccelerator(image);
  const { append = STATIC_ADDRESS, cpus = 1, interfaces } = choice;
  return host.define({ name: "vireo", image, accelerator, append, cpus, interfaces });
}

async function startTap(t: TestContext, net: TapBackend): Promise<void> {
  const reason = await net.available();
  if (reason !== undefined) t.skip(reason);
  t.cleanup(() => net.stop());
  await net.start();
}

/** What `virsh domifstat` counts; libvirt tells a tap's counters from the guest's side. */
async function tapCounts(host: LibvirtHost): Promise<Counts> {
  const text = await host.virsh("domifstat", "vireo", TAP_NAME);
  const value = (name: string) => {
    const number = new RegExp(`${name} (\\d+)`).exec(text)?.[1];
    if (number === undefined) throw new HarnessError(`domifstat has no ${name}:\n${text}`);
    return Number(number);
  };
  return {
    rxPackets: value("tx_packets"),
    rxBytes: value("tx_bytes"),
    txPackets: value("rx_packets"),
    txBytes: value("rx_bytes"),
  };
}

async function checkCounts(host: LibvirtHost, domain: LibvirtDomain): Promise<void> {
  await sameCounts({ counters: () => tapCounts(host) }, domain);
}

test("a domain is defined, started, asked, stopped and undefined", async (t) => {
  const net = tap();
  await startTap(t, net);
  const host = await startHost(t, net.networkNamespace);
  const card = { type: "ethernet", target: TAP_NAME, mac: MAC, driver: "qemu" } as const;
  const domain = await define(host, { interfaces: [{ ...card, eventIdx: false, alias: "nic" }] });
  assert.is(await domain.state(), "shut off");
  await domain.start();
  assert.is((await domain.waitFor("ready", { timeoutMs: READY_MS })).mac, MAC);
  const { accepted } = await domain.waitFor("features");
  assert.not.ok(accepted.includes("event_idx"), "event_idx='off' has no effect");
  await ping(net, FLOOD, GUEST_IP);
  await checkCounts(host, domain);
  for (const state of ["down", "up"]) {
    const event = domain.waitFor("link", {
      where: ({ up }) => up === (state === "up"),
      fresh: true,
    });
    await host.virsh("domif-setlink", "vireo", MAC, state);
    await event;
  }
  await ping(net, FLOOD, GUEST_IP);
  await domain.stop();
  await host.virsh("undefine", "vireo");
  assert.is((await host.virsh("list", "--all", "--name")).trim(), "");
});

test("a second card: attached, found by the guest, detached again", async (t) => {
  const net = tap();
  await startTap(t, net);
  await net.exec(["ip", "tuntap", "add", "v1", "mode", "tap", "vnet_hdr"]);
  await net.exec(["ip", "link", "set", "v1", "up"]);
  const host = await startHost(t, net.networkNamespace);
  const card = { type: "ethernet", driver: "qemu" } as const;
  const domain = await define(host, { interfaces: [{ ...card, target: TAP_NAME, mac: MAC }] });
  const second = { ...card, target: "v1", mac: SECOND_MAC };
  const xml = host.file("second.xml", interfaceXml(second));
  await host.virsh("attach-device", "vireo", xml, "--config");
  assert.is((await host.virsh("domiflist", "vireo", "--inactive")).match(/52:54/g)?.length, 2);
  await host.virsh("detach-device", "vireo", xml, "--config");
  await domain.start();
  await domain.waitFor("ready", { timeoutMs: READY_MS });
  // The guest does not look for cards that come later, and must not be disturbed by one.
  await host.virsh("attach-device", "vireo", xml, "--live");
  assert.is((await host.virsh("domiflist", "vireo")).match(/52:54/g)?.length, 2);
  await ping(net, FLOOD, GUEST_IP);
  await host.virsh("destroy", "vireo");
  assert.is(await domain.state(), "shut off");
});

/** Waits until libvirt knows of so many cards. */
async function listed(host: LibvirtHost, count: number): Promise<void> {
  const begin = performance.now();
  for (;;) {
    const list = await host.virsh("domiflist", "vireo");
    if ((list.match(/52:54/g)?.length ?? 0) === count) return;
    if (performance.now() - begin > LISTED_MS) throw new HarnessError(`not ${count}:\n${list}`);
    await delay(100);
  }
}

test("a second card: detached and attached while the guest runs, three times, and it is pinged", async (t) => {
  const net = tap();
  await startTap(t, net);
  const command = (argv: readonly string[]) => net.exec(argv, { timeoutMs: 30_000 });
  await command(["ip", "tuntap", "add", "v1", "mode", "tap", "vnet_hdr"]);
  await command(["ip", "address", "add", "198.51.100.1/24", "dev", "v1"]);
  await command(["ip", "link", "set", "v1", "up"]);
  const host = await startHost(t, net.networkNamespace);
  const card = { type: "ethernet", driver: "qemu" } as const;
  const second = { ...card, target: "v1", mac: SECOND_MAC, bus: 5 };
  const domain = await define(host, {
    append: `${STATIC_ADDRESS} ip1=${SECOND_IP}/24 ip61=off`,
    interfaces: [{ ...card, target: TAP_NAME, mac: MAC, bus: 4 }, second],
  });
  await domain.start();
  const ready = { timeoutMs: READY_MS, where: ({ nic }: { nic: number }) => nic === 1 };
  await domain.waitFor("ready", ready);
  const xml = host.file("second.xml", interfaceXml(second));
  for (let round = 0; round < 3; round++) {
    const removed = domain.waitFor("removed", { ...ready, fresh: true });
    await host.virsh("detach-device", "vireo", xml, "--live");
    await removed;
    await ping(net, FLOOD, GUEST_IP);
    await listed(host, 1);
    const back = domain.waitFor("ready", { ...ready, fresh: true });
    await host.virsh("attach-device", "vireo", xml, "--live");
    await back;
    await listed(host, 2);
    await ping(net, "-c 5 -i 0.2", SECOND_IP);
  }
  await ping(net, FLOOD, GUEST_IP);
  await domain.stop();
});

test("a domain that libvirt or QEMU refuses: virsh says why", async (t) => {
  const net = tap();
  await startTap(t, net);
  const host = await startHost(t, net.networkNamespace);
  const bad = await host.tryVirsh("define", host.file("bad.xml", "<domain type='qemu'/>"));
  assert.is(bad.status, 1);
  assert.match(bad.stderr, /error/);
  const path = "/no/such/socket";
  const domain = await define(host, {
    interfaces: [{ type: "vhostuser", path, mode: "client", mac: MAC }],
  });
  const message = await domain.start().then(
    () => "started",
    (error: Error) => error.message,
  );
  assert.match(message, /no\/such\/socket/);
  assert.is(await domain.state(), "shut off");
});

test("vhost-user: DPDK has counted what the guest has sent", async (t) => {
  const net = vhostUser({ mode: "rxonly" });
  const reason = await net.available();
  if (reason !== undefined) t.skip(reason);
  const spare = tap();
  await startTap(t, spare);
  t.cleanup(() => net.stop());
  await net.start();
  const host = await startHost(t, spare.networkNamespace);
  const append = `app=source count=${FRAMES} dst=02:00:00:00:00:01 ${STATIC_ADDRESS}`;
  const domain = await define(host, {
    append,
    interfaces: [{ type: "vhostuser", path: net.socketPath, mode: "client", mac: MAC }],
  });
  await domain.start();
  const { status } = await domain.waitFor("exit", { timeoutMs: READY_MS });
  assert.is(status, "success");
  const sent = sumQueues(await domain.waitFor("stats"), "tx", "packets");
  assert.ok(sent >= FRAMES);
  const seen = await net.waitFor(({ rxPackets }) => rxPackets >= sent, 5000);
  assert.is(seen.rxPackets, sent);
});

test(
  "Open vSwitch's virtualport: libvirt adds the port, in its VLAN, and takes it away",
  async (t) => {
    // libvirt gives its tap to the switch first, and takes it up afterwards.
    const errorsAllowed = [/error receiving data from vnet0: Network is down/];
    const bridge = ovs({ datapath: "userspace", vlan: 10, errorsAllowed });
    t.cleanup(() => bridge.stop());
    await bridge.start();
    const host = await startHost(t, bridge.namespace, bridge.environment);
    const card = { type: "openvswitch", bridge: "br0", target: "vnet0", driver: "qemu" } as const;
    const domain = await define(host, { interfaces: [{ ...card, mac: MAC, vlan: 10 }] });
    await domain.start();
    await domain.waitFor("ready", { timeoutMs: READY_MS });
    assert.is((await bridge.vsctl("get", "port", "vnet0", "tag")).trim(), "10");
    const port = { counters: () => bridge.counters("vnet0") };
    const ahead = await aheadAtRest(port, domain);
    await ping(bridge, FLOOD, GUEST_IP);
    await sameCounts(port, domain, ahead);
    await domain.stop();
    assert.not.match(await bridge.vsctl("list-ports", "br0"), /vnet0/);
  },
  { requires: ["libvirt", "ovs-dpdk"] },
);

test(
  "vhost-net with 4 queue pairs: a kernel thread for each, and the tap's counters are the guest's",
  async (t) => {
    const net = vhostNet({ queues: 4 });
    await startTap(t, net);
    const host = await startHost(t, net.networkNamespace);
    const card = { type: "ethernet", target: TAP_NAME, mac: MAC, driver: "vhost" } as const;
    const domain = await define(host, { cpus: 4, interfaces: [{ ...card, queues: 4 }] });
    await domain.start();
    assert.is((await domain.waitFor("ready", { timeoutMs: READY_MS })).queues, 4);
    await ping(net, FLOOD, GUEST_IP);
    await checkCounts(host, domain);
    const workers = net.workers(domain.pid());
    assert.is(workers.length, 4);
    assert.ok(
      workers.some(({ slices }) => slices > 10),
      "the vhost threads were hardly woken",
    );
    await domain.stop();
  },
  { requires: ["libvirt", "vhost-net"] },
);

test.run();
