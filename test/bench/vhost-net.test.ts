// Frames per second through the kernel's vhost-net, beside those of a Linux guest on the same
// kernel, the same tap and in the same minutes: what the machine can do at the moment matters to
// both alike. Both are measured by the tap's counters. `make rates` runs this, in the lab where
// there is no /dev/vhost-net.

import {
  assert,
  delay,
  findQemu,
  HarnessError,
  lineSplitter,
  type ManagedProcess,
  prepareLab,
  type StatsEvent,
  startProcess,
  suite,
  sumQueues,
  TAP_NAME,
  type TestContext,
  type VhostNetBackend,
  vhostNet,
  withDeadline,
} from "qemu-test-harness";
import { STATIC_ADDRESS } from "../integration/support";

const SAMPLES = 5;
const SAMPLE_MS = 1500;
const SETTLE_MS = 1500;
const BOOT_MS = 60_000;
const GUEST_MAC = "52:54:00:12:34:56";
const PEER_MAC = "02:00:00:00:00:01";

const test = suite("vhost-net rates", {
  timeoutMs: 200_000,
  requires: ["vhost-net", "pktgen"],
});

type Direction = "rxPackets" | "txPackets";

/** The middle of several samples of the tap's counter, in frames a second. */
async function rate(net: VhostNetBackend, direction: Direction): Promise<number> {
  const rates: number[] = [];
  await delay(SETTLE_MS);
  for (let i = 0; i < SAMPLES; i++) {
    const before = (await net.counters())[direction];
    const begin = performance.now();
    await delay(SAMPLE_MS);
    const after = (await net.counters())[direction];
    rates.push(((after - before) * 1000) / (performance.now() - begin));
  }
  return rates.sort((a, b) => a - b)[Math.floor(SAMPLES / 2)] ?? 0;
}

/** Boots the Linux guest and resolves when it says that it is ready. */
async function bootLinux(
  t: TestContext,
  net: VhostNetBackend,
  role: "source" | "sink",
): Promise<ManagedProcess> {
  const image = await prepareLab();
  await net.start();
  t.cleanup(() => net.stop());
  const words = `console=ttyS0 quiet mitigations=off rdinit=/linux-guest ROLE=${role}`;
  const argv = [
    ...[...net.wrapper, findQemu().path, "-M", "q35", "-accel", "kvm"],
    ...["-cpu", "host,arch-capabilities=off", "-m", "256", "-nodefaults", "-display", "none"],
    ...["-serial", "stdio", "-kernel", image.kernel, "-initrd", image.initramfs],
    ...["-append", `${words} DST=${PEER_MAC}`, ...net.netdev("net0")],
    ...["-device", `virtio-net-pci,netdev=net0,mac=${GUEST_MAC},romfile=`],
  ];
  const [program = "", ...args] = argv;
  const guest = startProcess(program, args);
  t.cleanup(() => guest.stop());
  const lines: string[] = [];
  const ready = new Promise<void>((resolve, reject) => {
    const splitter = lineSplitter((line) => {
      lines.push(line);
      if (/^ready \w+/.test(line)) resolve();
    });
    guest.child.stdout?.on("data", splitter);
    guest.child.stderr?.on("data", splitter);
    const end = () => reject(new HarnessError(`the Linux guest ended\n${lines.join("\n")}`));
    void guest.exited.then(end);
  });
  await withDeadline(ready, BOOT_MS, () => `the Linux guest is not ready\n${lines.join("\n")}`);
  const refused = lines.filter((line) => /refuses|cannot/.test(line));
  assert.equal(refused, [], "the Linux guest cannot do what it should");
  return guest;
}

/** Floods the tap from the kernel's own generator until the namespace goes. */
async function floodTap(t: TestContext, net: VhostNetBackend): Promise<void> {
  const settings = ["count 0", "pkt_size 60", `dst_mac ${GUEST_MAC}`, "dst 192.0.2.2"];
  const more = ["udp_dst_min 9", "udp_dst_max 9", "delay 0"];
  const lines = [...settings, ...more].map((s) => `echo '${s}' >/proc/net/pktgen/${TAP_NAME}`);
  const script = ["set -e", `echo 'add_device ${TAP_NAME}' >/proc/net/pktgen/kpktgend_1`, ...lines];
  const prepared = await net.exec(["sh", "-c", script.join("\n")]);
  assert.is(prepared.status, 0, prepared.stderr);
  const [program = "", ...args] = net.wrapper;
  const start = startProcess(program, [...args, "sh", "-c", "echo start >/proc/net/pktgen/pgctrl"]);
  t.cleanup(async () => {
    await net.exec(["sh", "-c", "echo stop >/proc/net/pktgen/pgctrl"]);
    await start.stop();
  });
}

function perFrame(before: StatsEvent, after: StatsEvent, direction: "rx" | "tx"): string {
  const grown = (counter: "packets" | "kicks" | "interrupts") =>
    sumQueues(after, direction, counter) - sumQueues(before, direction, counter);
  const frames = grown("packets");
  const per = (count: number) => (count / frames).toFixed(4);
  return `${per(grown("kicks"))} doorbells and ${per(grown("interrupts"))} interrupts a frame`;
}

async function linuxRate(t: TestContext, role: "source" | "sink"): Promise<number> {
  const net = vhostNet();
  const guest = await bootLinux(t, net, role);
  if (role === "sink") await floodTap(t, net);
  const frames = await rate(net, role === "source" ? "rxPackets" : "txPackets");
  if (role === "sink") await net.exec(["sh", "-c", "echo stop >/proc/net/pktgen/pgctrl"]);
  await guest.stop();
  return frames;
}

async function compare(t: TestContext, role: "source" | "sink"): Promise<void> {
  const reference = await linuxRate(t, role);
  const net = vhostNet();
  const append = role === "source" ? `app=source dst=${PEER_MAC}` : "app=sink";
  const nics = [{ backend: net, options: { mac: GUEST_MAC } }];
  const vm = await t.vm({ accelerator: "auto", append: `${append} ${STATIC_ADDRESS}`, nics });
  await vm.waitFor("ready", { timeoutMs: BOOT_MS });
  if (role === "sink") await floodTap(t, net);
  const before = await vm.stats();
  const own = await rate(net, role === "source" ? "rxPackets" : "txPackets");
  const after = await vm.stats();
  const counts = perFrame(before, after, role === "source" ? "tx" : "rx");
  const rates = `${Math.round(own)} frames/s, Linux ${Math.round(reference)}`;
  t.log(`${role}: ${rates}; ${counts}`);
  if (role === "sink") await net.exec(["sh", "-c", "echo stop >/proc/net/pktgen/pgctrl"]);
  await vm.stop();
  assert.ok(own >= reference, rates);
}

test("source: at least level with a Linux guest's pktgen", (t) => compare(t, "source"));

test("sink: at least level with a Linux guest", (t) => compare(t, "sink"));

test.run();
