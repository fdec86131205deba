// IPv6 and segmentation offloads through the kernel's vhost-net, both ways: frames of 64 KB that
// nobody has cut, and what the kernel itself cuts. Where this machine has no vhost-net, in the lab.

import {
  assert,
  linkLocalAddress,
  type StatsEvent,
  suite,
  sumDrops,
  sumQueues,
  TAP_NAME,
  type TestContext,
  type VhostNetBackend,
  type VmOptions,
  vhostNet,
} from "qemu-test-harness";
import { aheadAtRest, nothingLeaked, sameCounts } from "./counters";
import { ping } from "./ping";
import { GUEST_IP, STATIC_ADDRESS } from "./support";

const READY_MS = 60_000;
const PINGS = 300;
const FRAMES = 20;
/** A super-frame without FCS, and what it holds over IPv4 and over IPv6. */
const FRAME_BYTES = 65_214;
const TCP4_BYTES = FRAME_BYTES - 14 - 20 - 20;
const TCP6_BYTES = FRAME_BYTES - 14 - 40 - 20;
const HOST_IP6 = "2001:db8:77::1";
const GUEST_IP6 = "2001:db8:77::5";
const GUEST_MAC = "52:54:00:12:34:56";
const FAR_MAC = "02:00:00:00:00:99";
const SUPER_SIZES = [1600, 9000, 65_000];
const SUPER_COUNT = 10;

const test = suite("vhost-net offloads", { timeoutMs: 180_000, requires: ["vhost-net"] });

async function boot(t: TestContext, net: VhostNetBackend, options: Omit<VmOptions, "nics">) {
  const nics = [{ backend: net }];
  return t.vm({ accelerator: "auto", memoryMib: 128, ...options, nics });
}

test("IPv6: neighbour discovery, a flood of pings, UDP; the tap has counted the same", async (t) => {
  const net = vhostNet({ address6: `${HOST_IP6}/64` });
  const append = `ip=${GUEST_IP}/24 ip6=${GUEST_IP6}/64`;
  const vm = await boot(t, net, { append });
  const where = ({ origin }: { origin: string }) => origin === "static";
  await vm.waitFor("ipv6", { where, timeoutMs: READY_MS });
  const before = await aheadAtRest(net, vm);
  await ping(net, `-f -c ${PINGS}`, GUEST_IP6);
  await ping(net, "-c 3 -s 1452", GUEST_IP6);
  const answer = await net.exec(["nc", "-6", "-u", "-w1", GUEST_IP6, "7"], { input: "over six\n" });
  assert.is(answer.stdout, "over six\n");
  await sameCounts(net, vm, before);
  await vm.stop();
});

for (const { gso, bytes } of [
  { gso: "tcp4", bytes: TCP4_BYTES },
  { gso: "tcp6", bytes: TCP6_BYTES },
]) {
  test(`source gso=${gso}: the kernel takes frames of ${FRAME_BYTES} bytes whole`, async (t) => {
    const net = vhostNet({ address6: `${HOST_IP6}/64` });
    const [to, from] =
      gso === "tcp6" ? [HOST_IP6, linkLocalAddress(GUEST_MAC)] : ["192.0.2.1", GUEST_IP];
    const words = `app=source gso=${gso} count=${FRAMES} dst=${FAR_MAC} dstip=${to}`;
    // Stopped until somebody listens: the source sends as soon as it runs.
    const append = `${words} ${STATIC_ADDRESS}`;
    const vm = await boot(t, net, { append, extraArguments: ["-S"] });
    const filter = ["tcp", "and", "src", from];
    const dump = ["tcpdump", "-i", TAP_NAME, "-nn", "-c", String(FRAMES), "-s", "200", ...filter];
    const capture = net.exec(dump, { timeoutMs: READY_MS });
    for (let tries = 0; ; tries++) {
      const { stdout } = await net.exec(["cat", "/proc/net/packet"]);
      if (stdout.trim().split("\n").length > 1) break;
      assert.ok(tries < 200, "tcpdump does not listen");
    }
    await vm.qmp.execute("cont");
    const { events } = await vm.finished({ timeoutMs: READY_MS });
    const { stdout, stderr } = await capture;
    const lengths = [...stdout.matchAll(/length (\d+)$/gm)].map(([, length]) => Number(length));
    assert.equal(lengths, Array<number>(FRAMES).fill(bytes), stdout + stderr);
    const stats = events.filter(({ event }) => event === "stats").at(-1) as unknown as StatsEvent;
    const kernel = await net.counters();
    assert.is(sumQueues(stats, "tx", "packets"), kernel.rxPackets);
    assert.is(sumQueues(stats, "tx", "bytes"), kernel.rxBytes);
    assert.ok(kernel.rxBytes >= FRAMES * FRAME_BYTES);
  });
}

for (const merge of [true, false]) {
  const how = merge ? "merged buffers" : "one large buffer";
  test(`TCP super-frames over IPv6 arrive whole, each in ${how}`, async (t) => {
    const net = vhostNet({ address6: `${HOST_IP6}/64` });
    const nics = [{ backend: net, options: { mrg_rxbuf: merge } }];
    const vm = await t.vm({ append: "app=sink", accelerator: "auto", memoryMib: 128, nics });
    await vm.waitFor("ready", { timeoutMs: READY_MS });
    const atRest = await aheadAtRest(net, vm);
    for (const size of SUPER_SIZES) {
      const before = await vm.stats();
      const script = ["python3", "test/fixtures/peer/tcp6-super.py", TAP_NAME, FAR_MAC, GUEST_MAC];
      const sent = await net.exec([...script, String(size), String(SUPER_COUNT)]);
      assert.is(sent.stdout.trim(), `sent ${SUPER_COUNT}`, sent.stderr);
      const after = await arrived(() => vm.stats(), before, size * SUPER_COUNT);
      const packets = sumQueues(after, "rx", "packets") - sumQueues(before, "rx", "packets");
      // The kernel may say a few short things of its own on the link.
      assert.ok(packets >= SUPER_COUNT && packets < SUPER_COUNT + 8, `${packets} packets`);
      await nothingLeaked(vm, before);
    }
    assert.equal(sumDrops(await vm.stats(), "rx"), {});
    await sameCounts(net, vm, atRest);
    await vm.stop();
  });
}

/** The kernel's thread has them on their way for a moment. */
async function arrived(ask: () => Promise<StatsEvent>, before: StatsEvent, bytes: number) {
  for (let tries = 0; ; tries++) {
    const stats = await ask();
    const more = sumQueues(stats, "rx", "bytes") - sumQueues(before, "rx", "bytes");
    if (more >= bytes) return stats;
    assert.ok(tries < 100, `${more} of ${bytes} bytes have arrived`);
  }
}

for (const address of [GUEST_IP, GUEST_IP6]) {
  test(`42,000 bytes that the kernel is to cut go to ${address} and back`, async (t) => {
    const net = vhostNet({ address6: `${HOST_IP6}/64` });
    const vm = await boot(t, net, { append: `ip=${GUEST_IP}/24 ip6=${GUEST_IP6}/64` });
    const where = ({ origin }: { origin: string }) => origin === "static";
    await vm.waitFor("ipv6", { where, timeoutMs: READY_MS });
    const before = await aheadAtRest(net, vm);
    const script = ["python3", "test/fixtures/peer/uso-echo.py", address, "1400", "42000"];
    const { stdout, stderr } = await net.exec(script, { timeoutMs: 30_000 });
    assert.is(stdout.trim(), "right 42000", stderr);
    await sameCounts(net, vm, before);
    await vm.stop();
  });
}

test.run();
