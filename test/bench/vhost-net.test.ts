// Frames per second through the kernel's vhost-net, beside those of a Linux guest on the same
// kernel and the same tap, by turns: what the machine can do at the moment matters to both alike.
// Both are measured by the tap's counters. `make rates` runs this, in the lab where there is no
// /dev/vhost-net.

import {
  assert,
  type Backend,
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

/** So often each of the two has its turn. */
const ROUNDS = 3;
const SAMPLES = 3;
const SAMPLE_MS = 1500;
const SETTLE_MS = 1500;
const BOOT_MS = 60_000;
const GUEST_MAC = "52:54:00:12:34:56";
const PEER_MAC = "02:00:00:00:00:01";

const test = suite("vhost-net rates", {
  timeoutMs: 230_000,
  requires: ["vhost-net", "pktgen"],
});

type Role = "source" | "sink";
type Direction = "rxPackets" | "txPackets";

/** The run's tap as the backend of one guest of several: there before it, and after it. */
function lent(net: VhostNetBackend): Backend {
  return {
    name: net.name,
    wrapper: net.wrapper,
    available: () => net.available(),
    start: async () => undefined,
    netdev: (id) => net.netdev(id),
    stop: async () => undefined,
    artifacts: () => [],
  };
}

const middle = (numbers: readonly number[]) =>
  [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;

/** The middle of several samples of the tap's counter, in frames a second. */
async function rate(net: VhostNetBackend, role: Role): Promise<number> {
  const direction: Direction = role === "source" ? "rxPackets" : "txPackets";
  const rates: number[] = [];
  await delay(SETTLE_MS);
  for (let i = 0; i < SAMPLES; i++) {
    const before = (await net.counters())[direction];
    const begin = performance.now();
    await delay(SAMPLE_MS);
    const after = (await net.counters())[direction];
    rates.push(((after - before) * 1000) / (performance.now() - begin));
  }
  return middle(rates);
}

/** Boots the Linux guest and resolves when it says that it is ready. */
async function bootLinux(
  t: TestContext,
  net: VhostNetBackend,
  role: Role,
): Promise<ManagedProcess> {
  const image = await prepareLab();
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

/** Tells the kernel's own generator whom to flood, once it is told to start. */
async function prepareFlood(net: VhostNetBackend): Promise<void> {
  const settings = ["count 0", "pkt_size 60", `dst_mac ${GUEST_MAC}`, "dst 192.0.2.2"];
  const more = ["udp_dst_min 9", "udp_dst_max 9", "delay 0"];
  const lines = [...settings, ...more].map((s) => `echo '${s}' >/proc/net/pktgen/${TAP_NAME}`);
  const script = ["set -e", `echo 'add_device ${TAP_NAME}' >/proc/net/pktgen/kpktgend_1`, ...lines];
  const prepared = await net.exec(["sh", "-c", script.join("\n")]);
  assert.is(prepared.status, 0, prepared.stderr);
}

/** The rate of a guest that is up; floods it meanwhile when it is to receive. */
async function measure(t: TestContext, net: VhostNetBackend, role: Role): Promise<number> {
  if (role === "source") return rate(net, role);
  const [program = "", ...args] = net.wrapper;
  const start = startProcess(program, [...args, "sh", "-c", "echo start >/proc/net/pktgen/pgctrl"]);
  t.cleanup(() => start.stop());
  try {
    return await rate(net, role);
  } finally {
    const stopped = await net.exec(["sh", "-c", "echo stop >/proc/net/pktgen/pgctrl"]);
    assert.is(stopped.status, 0, stopped.stderr);
    await start.stop();
  }
}

function perFrame(before: StatsEvent, after: StatsEvent, direction: "rx" | "tx"): string {
  const grown = (counter: "packets" | "kicks" | "interrupts") =>
    sumQueues(after, direction, counter) - sumQueues(before, direction, counter);
  const frames = grown("packets");
  const per = (count: number) => (count / frames).toFixed(4);
  return `${per(grown("kicks"))} doorbells and ${per(grown("interrupts"))} interrupts a frame`;
}

async function linuxRate(t: TestContext, net: VhostNetBackend, role: Role): Promise<number> {
  const guest = await bootLinux(t, net, role);
  const frames = await measure(t, net, role);
  await guest.stop();
  return frames;
}

interface OwnRate {
  readonly frames: number;
  /** Doorbells and interrupts. */
  readonly counts: string;
}

async function ownRate(t: TestContext, net: VhostNetBackend, role: Role): Promise<OwnRate> {
  const append = role === "source" ? `app=source dst=${PEER_MAC}` : "app=sink";
  const nics = [{ backend: lent(net), options: { mac: GUEST_MAC } }];
  const vm = await t.vm({ accelerator: "auto", append: `${append} ${STATIC_ADDRESS}`, nics });
  await vm.waitFor("ready", { timeoutMs: BOOT_MS });
  const before = await vm.stats();
  const frames = await measure(t, net, role);
  const counts = perFrame(before, await vm.stats(), role === "source" ? "tx" : "rx");
  await vm.stop();
  return { frames, counts };
}

async function compare(t: TestContext, role: Role): Promise<void> {
  const net = vhostNet();
  t.cleanup(() => net.stop());
  await net.start();
  if (role === "sink") await prepareFlood(net);
  const ratios: number[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    const reference = await linuxRate(t, net, role);
    const { frames, counts } = await ownRate(t, net, role);
    ratios.push(frames / reference);
    const rates = `${Math.round(frames)} frames/s, Linux ${Math.round(reference)}`;
    t.log(`${role}, round ${round}: ${rates}; ${counts}`);
  }
  const ratio = middle(ratios);
  t.log(`${role}: ${ratio.toFixed(2)} of what Linux does, the middle of ${ROUNDS} rounds`);
  assert.ok(ratio >= 1, `${ratio.toFixed(3)} of what a Linux guest does`);
}

test("source: at least level with a Linux guest's pktgen", (t) => compare(t, "source"));

test("sink: at least level with a Linux guest", (t) => compare(t, "sink"));

test.run();
