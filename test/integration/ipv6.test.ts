// IPv6 with the Linux kernel as the peer, through a tap, with radvd as the router there; and with
// QEMU's user network, whose own router advertises a prefix.
//
// Shares the machine: it waits for routers and addresses most of the time.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import {
  assert,
  eui64Address,
  type Ipv6Event,
  linkLocalAddress,
  suite,
  sumDrops,
  sumQueues,
  TAP_NAME,
  type TestContext,
  tap,
  user,
  type Vm,
} from "qemu-test-harness";
import { aheadAtRest, sameCounts } from "./counters";
import { ping } from "./ping";
import { GUEST_IP } from "./support";

const test = suite("IPv6", { timeoutMs: 90_000 });

const MAC = "52:54:00:12:34:56";
const LINK = linkLocalAddress(MAC);
const ON_LINK = `${LINK}%${TAP_NAME}`;
const KERNEL = "2001:db8:77::1";
const STATIC = "2001:db8:77::5";
const LARGEST_PING = 1452;
const FLOOD_COUNT = 3000;
const RADVD = `interface ${TAP_NAME} {
  AdvSendAdvert on;
  MinRtrAdvInterval 3;
  MaxRtrAdvInterval 4;
  prefix 2001:db8:78::/64 { AdvOnLink on; AdvAutonomous on; };
};
`;

/** Waits until the guest has an address in this state. */
function addressed(vm: Vm, ip6: string, state: Ipv6Event["state"] = "preferred") {
  const isIt = (event: Ipv6Event) => event.ip6 === ip6 && event.state === state;
  return vm.waitFor("ipv6", { timeoutMs: 20_000, where: isIt });
}

async function bootOnTap(t: TestContext, words = `ip6=${STATIC}/64`, cpus = 1) {
  const net = tap({ address6: `${KERNEL}/64`, queues: cpus });
  const append = `ip=${GUEST_IP}/24 ${words}`;
  const vm = await t.vm({ append, cpus, nics: [{ backend: net }] });
  await addressed(vm, LINK);
  return { net, vm };
}

test("ready does not wait; the link-local address a second after", async (t) => {
  const { vm } = await bootOnTap(t, "ip6=auto");
  const ready = await vm.waitFor("ready");
  const link = await addressed(vm, LINK);
  t.log(`ready at ${ready.us} us, link-local at ${link.us} us`);
  assert.ok(link.us - ready.us > 900_000, "an address is used that nobody was asked about");
  assert.ok(link.us < 3_000_000);
  await vm.stop();
});

test("ping of all addresses and of all nodes; the kernel knows its neighbours", async (t) => {
  const { net, vm } = await bootOnTap(t);
  await addressed(vm, STATIC);
  await ping(net, "-c 3 -i 0.1", ON_LINK);
  await ping(net, "-c 3 -i 0.1", STATIC);
  await ping(net, "-c 1", `ff02::1%${TAP_NAME}`);
  const { stdout } = await net.exec(["ip", "-6", "neigh", "show", "dev", TAP_NAME]);
  for (const address of [LINK, STATIC]) {
    assert.match(stdout, new RegExp(`${address} lladdr ${MAC} (router )?(REACHABLE|STALE|DELAY)`));
  }
  assert.not.match(stdout, /FAILED|INCOMPLETE/);
  await vm.stop();
});

test(`ping -s 0 to ${LARGEST_PING}: every size is answered`, async (t) => {
  const { net, vm } = await bootOnTap(t);
  await addressed(vm, STATIC);
  // One shell for all: starting a program in the namespace costs more than a ping.
  const script = `for size in $(seq 0 ${LARGEST_PING}); do
    ping -6 -q -c 1 -W 2 -M do -s $size ${STATIC} >/dev/null || echo lost $size
  done; echo done`;
  const pings = await net.exec(["sh", "-c", script], { timeoutMs: 80_000 });
  assert.is(pings.stdout, "done\n", pings.stderr);
  await vm.stop();
});

test("a flood of pings: every one is answered, and the counters agree", async (t) => {
  const { net, vm } = await bootOnTap(t);
  await addressed(vm, STATIC);
  const ahead = await aheadAtRest(net, vm);
  await ping(net, `-f -c ${FLOOD_COUNT}`, STATIC);
  const stats = await sameCounts(net, vm, ahead);
  assert.ok(sumQueues(stats, "tx", "packets") >= FLOOD_COUNT);
  await vm.stop();
});

test("UDP echo with nc, over the link-local and over the global address", async (t) => {
  const { net, vm } = await bootOnTap(t);
  await addressed(vm, STATIC);
  for (const address of [ON_LINK, STATIC]) {
    const argv = ["nc", "-6", "-u", "-w1", address, "7"];
    const { status, stdout } = await net.exec(argv, { input: "hello, guest\n" });
    if (status === 127) t.skip("nc is not installed");
    assert.is(stdout, "hello, guest\n", address);
  }
  assert.equal(sumDrops(await vm.stats(), "rx").udp_checksum, undefined);
  await vm.stop();
});

test("the kernel has the address already: the guest finds out and does without", async (t) => {
  const { net, vm } = await bootOnTap(t, `ip6=${KERNEL}/64`);
  await addressed(vm, KERNEL, "duplicate");
  await ping(net, "-c 1", ON_LINK);
  await vm.stop();
});

test("4 vCPUs: neighbours and pings on every queue", async (t) => {
  const { net, vm } = await bootOnTap(t, `ip6=${STATIC}/64`, 4);
  await addressed(vm, STATIC);
  for (let i = 0; i < 5; i++) {
    await net.exec(["ip", "-6", "neigh", "flush", "dev", TAP_NAME]);
    await ping(net, "-c 20 -i 0.01", STATIC);
    await ping(net, "-c 20 -i 0.01", ON_LINK);
  }
  await vm.stop();
});

test("radvd: its prefix becomes an address for the kernel to ping, also after mac set", async (t) => {
  const { net, vm } = await bootOnTap(t, "ip6=auto");
  if ((await net.exec(["which", "radvd"])).status !== 0) t.skip("radvd is not installed");
  const folder = mkdtempSync(`${tmpdir()}/radvd-`);
  t.cleanup(() => rmSync(folder, { recursive: true }));
  writeFileSync(`${folder}/radvd.conf`, RADVD);
  await net.exec(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"]);
  // In the foreground, so that it ends with the test whatever happens.
  const files = ["-C", `${folder}/radvd.conf`, "-p", `${folder}/pid`];
  const radvd = net.exec(["timeout", "60", "radvd", "-n", "-m", "stderr", ...files], {
    timeoutMs: 70_000,
  });
  const mine = eui64Address("2001:db8:78::", MAC);
  const slaac = await addressed(vm, mine);
  assert.is(slaac.origin, "slaac");
  await net.exec(["ip", "-6", "address", "add", "2001:db8:78::1/64", "dev", TAP_NAME, "nodad"]);
  await ping(net, "-c 3 -i 0.1", mine);
  vm.send("mac set 52:54:00:12:34:77");
  await vm.waitFor("control");
  await ping(net, "-c 3 -i 0.1", mine);
  const { stdout } = await net.exec(["ip", "-6", "neigh", "show", mine, "dev", TAP_NAME]);
  assert.match(stdout, /lladdr 52:54:00:12:34:77/);
  await net.exec(["sh", "-c", `kill $(cat ${folder}/pid)`]);
  await radvd;
  await vm.stop();
});

test("a device that filters lets our groups in, whatever mac table says", async (t) => {
  const { net, vm } = await bootOnTap(t);
  await addressed(vm, STATIC);
  for (const line of ["rx promiscuous off", "mac table - 01:00:5e:00:00:05"]) {
    vm.send(line);
    const { result } = await vm.waitFor("control", { where: ({ command }) => command === line });
    assert.is(result, "ok");
    await net.exec(["ip", "-6", "neigh", "flush", "dev", TAP_NAME]);
    await ping(net, "-c 2 -i 0.1", STATIC);
    await ping(net, "-c 2 -i 0.1", ON_LINK);
  }
  const filters: unknown = await vm.qmp.execute("query-rx-filter");
  for (const group of ["33:33:00:00:00:01", "33:33:ff:12:34:56", "33:33:ff:00:00:05"]) {
    assert.ok(JSON.stringify(filters).includes(group), JSON.stringify(filters));
  }
  await vm.stop();
});

test("QEMU's user network: its router is asked, and its prefix becomes an address", async (t) => {
  const net = user({ ipv6: true });
  const vm = await t.vm({ append: `ip=10.0.2.15/24`, nics: [{ backend: net }] });
  const slaac = await addressed(vm, eui64Address("fec0::", MAC));
  assert.is(slaac.origin, "slaac");
  assert.is(slaac.prefix, 64);
  await vm.stop();
});

test("QEMU's user network: a source finds the gateway's MAC by neighbour discovery", async (t) => {
  const net = user({ ipv6: true });
  const append = "app=source dstip=fec0::2 dstport=9 count=100";
  const vm = await t.vm({ append, nics: [{ backend: net }] });
  const { events } = await vm.finished({ timeoutMs: 20_000 });
  assert.is(events.at(-1)?.event, "exit");
  assert.is(events.at(-1)?.status, "success");
});

test.run();
