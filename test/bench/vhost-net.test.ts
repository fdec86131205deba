// Frames per second through the kernel's vhost-net, beside those of a Linux guest on the same
// kernel: each has a tap, and they take turns of a few seconds, while the other one stands still
// (SIGSTOP). So what the machine can do at the moment matters to both alike. Both are measured by
// their tap's counters. `make rates` runs this, in the lab where there is no /dev/vhost-net.

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
  type Vm,
  vhostNet,
  withDeadline,
} from "qemu-test-harness";
import { STATIC_ADDRESS } from "../integration/support";

/** So often each of the two has its turn. */
const ROUNDS = 5;
const SAMPLE_MS = 3000;
const SETTLE_MS = 500;
const BOOT_MS = 60_000;
const GUEST_MAC = "52:54:00:12:34:56";
const PEER_MAC = "02:00:00:00:00:01";

const test = suite("vhost-net rates", {
  timeoutMs: 230_000,
  requires: ["vhost-net", "pktgen"],
});

type Role = "source" | "sink";
type Direction = "rxPackets" | "txPackets";

const middle = (numbers: readonly number[]) =>
  [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;

/** One of the two guests, frozen until its turn. */
interface Contender {
  readonly net: VhostNetBackend;
  readonly pid: number;
}

/** What a guest's tap counts in its turn, in frames a second. */
async function turn({ net, pid }: Contender, role: Role): Promise<number> {
  const direction: Direction = role === "source" ? "rxPackets" : "txPackets";
  const look = async () => ({ frames: (await net.counters())[direction], at: performance.now() });
  process.kill(pid, "SIGCONT");
  const flood = role === "sink" ? await startFlood(net) : undefined;
  try {
    await delay(SETTLE_MS);
    const before = await look();
    await delay(SAMPLE_MS);
    const after = await look();
    return ((after.frames - before.frames) * 1000) / (after.at - before.at);
  } finally {
    await flood?.();
    process.kill(pid, "SIGSTOP");
  }
}

/** Boots the Linux guest and resolves when it says that it is ready. */
async function bootLinux(
  t: TestContext,
  net: VhostNetBackend,
  role: Role,
): Promise<ManagedProcess> {
  const image = await prepareLab();
  t.cleanup(() => net.stop());
  await net.start();
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

/** Floods the tap until the function that it returns is called. */
async function startFlood(net: VhostNetBackend): Promise<() => Promise<void>> {
  const [program = "", ...args] = net.wrapper;
  const start = startProcess(program, [...args, "sh", "-c", "echo start >/proc/net/pktgen/pgctrl"]);
  return async () => {
    const stopped = await net.exec(["sh", "-c", "echo stop >/proc/net/pktgen/pgctrl"]);
    assert.is(stopped.status, 0, stopped.stderr);
    await start.stop();
  };
}

function perFrame(before: StatsEvent, after: StatsEvent, direction: "rx" | "tx"): string {
  const grown = (counter: "packets" | "kicks" | "interrupts") =>
    sumQueues(after, direction, counter) - sumQueues(before, direction, counter);
  const frames = grown("packets");
  const per = (count: number) => (count / frames).toFixed(4);
  return `${per(grown("kicks"))} doorbells and ${per(grown("interrupts"))} interrupts a frame`;
}

async function startLinux(t: TestContext, role: Role): Promise<Contender> {
  const net = vhostNet();
  const guest = await bootLinux(t, net, role);
  const { pid } = guest.child;
  if (pid === undefined) throw new HarnessError("the Linux guest has no process");
  process.kill(pid, "SIGSTOP");
  // What is stopped does not end when it is asked to.
  t.cleanup(() => {
    if (guest.running) process.kill(pid, "SIGCONT");
  });
  if (role === "sink") await prepareFlood(net);
  return { net, pid };
}

async function startOwn(t: TestContext, role: Role): Promise<Contender & { readonly vm: Vm }> {
  const net = vhostNet();
  const append = role === "source" ? `app=source dst=${PEER_MAC} ${STATIC_ADDRESS}` : "app=sink";
  const nics = [{ backend: net, options: { mac: GUEST_MAC } }];
  const vm = await t.vm({ accelerator: "auto", append, nics });
  await vm.waitFor("ready", { timeoutMs: BOOT_MS });
  const { pid } = vm;
  if (pid === undefined) throw new HarnessError("the guest has no process");
  t.cleanup(() => {
    if (vm.running) process.kill(pid, "SIGCONT");
  });
  if (role === "sink") await prepareFlood(net);
  return { net, pid, vm };
}

async function compare(t: TestContext, role: Role): Promise<void> {
  const linux = await startLinux(t, role);
  const own = await startOwn(t, role);
  const before = await own.vm.stats();
  process.kill(own.pid, "SIGSTOP");
  const ratios: number[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    const reference = await turn(linux, role);
    const frames = await turn(own, role);
    ratios.push(frames / reference);
    t.log(
      `${role}, round ${round}: ${Math.round(frames)} frames/s, Linux ${Math.round(reference)}`,
    );
  }
  process.kill(own.pid, "SIGCONT");
  const counts = perFrame(before, await own.vm.stats(), role === "source" ? "tx" : "rx");
  await own.vm.stop();
  const ratio = middle(ratios);
  t.log(`${role}: ${ratio.toFixed(2)} of what Linux does, the middle of ${ROUNDS}; ${counts}`);
  assert.ok(ratio >= 1, `${ratio.toFixed(3)} of what a Linux guest does`);
}

test("source: at least level with a Linux guest's pktgen", (t) => compare(t, "source"));

test("sink: at least level with a Linux guest", (t) => compare(t, "sink"));

test.run();
