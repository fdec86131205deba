// Checksum and segmentation offloads with the Linux kernel on the other side of a tap: what the
// guest leaves to the device comes out right, and what the kernel leaves to the guest as well.

import {
  assert,
  linkLocalAddress,
  suite,
  sumDrops,
  sumQueues,
  TAP_NAME,
  tap,
} from "qemu-test-harness";
import { GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("offloads", { timeoutMs: 60_000 });

const MSS = 1448;
const FRAMES = 3;
/** 45 segments of 1,448 bytes, and the headers of Ethernet, IPv4 and TCP. */
const TCP_FRAME_BYTES = 65_214;
const TCP_SEGMENTS = 45;
/** The same frame with UDP's shorter header takes one segment more. */
const UDP_SEGMENTS = 46;
/** IPv6's header is 20 bytes longer: segments are shorter by default, or the last one is. */
const TCP6_SEGMENTS = 46;
const UDP6_SEGMENTS = 45;
/** The kernel's address in the far namespace. */
const FAR_IP = "192.0.2.1";
const FAR_IP6 = "2001:db8::1";
const GUEST_LINK = linkLocalAddress("52:54:00:12:34:56");

/**
 * Makes the namespace a bridge between the tap and a veth pair without offloads, so that the kernel
 * has to cut what it forwards; the far end is in the same namespace and only listened at.
 */
async function bridgeToVeth(net: ReturnType<typeof tap>): Promise<void> {
  const offloads = ["tso", "gso", "gro", "tx", "rx", "tx-udp-segmentation"];
  const off = offloads.flatMap((name) => [name, "off"]);
  const commands = [
    ["ip", "link", "add", "near", "type", "veth", "peer", "name", "far"],
    ["ip", "link", "add", "bridge", "type", "bridge"],
    ["ip", "link", "set", TAP_NAME, "master", "bridge"],
    ["ip", "link", "set", "near", "master", "bridge"],
    ["ethtool", "-K", "near", ...off],
    ["ethtool", "-K", "far", ...off],
    ...["near", "far", "bridge"].map((link) => ["ip", "link", "set", link, "up"]),
  ];
  for (const argv of commands) {
    const { status, stderr } = await net.exec(argv);
    assert.is(status, 0, `${argv.join(" ")}: ${stderr}`);
  }
}

/** Waits until tcpdump's packet socket is there. */
async function listening(net: ReturnType<typeof tap>): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const { stdout } = await net.exec(["cat", "/proc/net/packet"]);
    if (stdout.trim().split("\n").length > 1) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("tcpdump does not listen");
}

/** The segments of each frame, in tcpdump's words, join without a gap. */
function checkSequence(text: string, segments: number): void {
  const ranges = [...text.matchAll(/seq (\d+):(\d+)/g)].map(([, from, to]) =>
    [from, to].map(Number),
  );
  assert.is(ranges.length, FRAMES * segments);
  for (const [i, [from = 0]] of ranges.entries()) {
    const [begin = 0] = ranges[0] ?? [];
    const [, end] = ranges[i - 1] ?? [];
    // Every frame begins where the first did.
    assert.is(from, i % segments === 0 ? begin : end, `segment ${i}`);
  }
}

for (const { gso, mss, segments } of [
  { gso: "tcp4", mss: MSS, segments: TCP_SEGMENTS },
  { gso: "udp4", mss: MSS, segments: UDP_SEGMENTS },
  { gso: "tcp6", mss: undefined, segments: TCP6_SEGMENTS },
  { gso: "udp6", mss: MSS, segments: UDP6_SEGMENTS },
]) {
  test(`source gso=${gso}: the kernel cuts it into segments with right checksums`, async (t) => {
    const net = tap();
    const words = `app=source ${STATIC_ADDRESS} gso=${gso} count=${FRAMES}`;
    const pieces = mss === undefined ? "" : ` mss=${mss}`;
    const [far, from] = gso.endsWith("6") ? [FAR_IP6, GUEST_LINK] : [FAR_IP, GUEST_IP];
    const append = `${words}${pieces} dst=02:00:00:00:00:99 dstip=${far}`;
    // Stopped until somebody listens: the source sends as soon as it runs.
    const source = await t.vm({ append, nics: [{ backend: net }], extraArguments: ["-S"] });
    await bridgeToVeth(net);
    const count = String(FRAMES * segments);
    const capture = net.exec(
      ["tcpdump", "-i", "far", "-nn", "-S", "-vv", "-c", count, "udp or tcp", "and", "src", from],
      { timeoutMs: 20_000 },
    );
    await listening(net);
    await source.qmp.execute("cont");
    const { events } = await source.finished({ timeoutMs: 30_000 });
    const { stdout } = await capture;
    const right = stdout.match(/\(correct\)|udp sum ok/g)?.length ?? 0;
    assert.is(right, FRAMES * segments, stdout.slice(0, 600));
    assert.not.match(stdout, /incorrect|bad udp cksum/);
    if (gso.startsWith("tcp")) checkSequence(stdout, segments);
    assert.is(events.at(-1)?.event, "exit");
  });
}

for (const merge of [true, false]) {
  const how = merge ? "merged" : "large";
  test(`a super-datagram of the kernel comes in ${how} buffers and goes back whole`, async (t) => {
    const net = tap();
    const nics = [{ backend: net, options: { mrg_rxbuf: merge } }];
    const vm = await t.vm({ append: STATIC_ADDRESS, memoryMib: 128, nics });
    await vm.waitFor("ready");
    const before = await vm.stats();
    const script = ["python3", "test/fixtures/peer/uso-echo.py", GUEST_IP, "1400", "42000"];
    const { stdout, stderr } = await net.exec(script);
    assert.is(stdout.trim(), "right 42000", stderr);
    const after = await vm.stats();
    const received = sumQueues(after, "rx", "packets") - sumQueues(before, "rx", "packets");
    // One for the kernel's ARP, and the super-datagram.
    assert.ok(received <= 2, `${received} packets, not one for all`);
    assert.is(after.queues[0]?.pool_free, before.queues[0]?.pool_free, "packets have leaked");
    await vm.stop();
  });
}

for (const merge of [true, false]) {
  const how = merge ? "merged buffers" : "one large buffer";
  test(`TCP super-frames over IPv6 arrive whole, each in ${how}`, async (t) => {
    const net = tap({ address6: "2001:db8:77::1/64" });
    const nics = [{ backend: net, options: { mrg_rxbuf: merge } }];
    const append = "app=sink";
    const vm = await t.vm({ append, memoryMib: 128, nics });
    await vm.waitFor("ready");
    const sizes = [1600, 9000, 65_000];
    const count = 10;
    for (const size of sizes) {
      const before = await vm.stats();
      const macs = ["02:00:00:00:00:01", "52:54:00:12:34:56"];
      const words = [TAP_NAME, ...macs, String(size), String(count)];
      const { stdout, stderr } = await net.exec([
        "python3",
        "test/fixtures/peer/tcp6-super.py",
        ...words,
      ]);
      assert.is(stdout.trim(), `sent ${count}`, stderr);
      const after = await vm.stats();
      const bytes = sumQueues(after, "rx", "bytes") - sumQueues(before, "rx", "bytes");
      const packets = sumQueues(after, "rx", "packets") - sumQueues(before, "rx", "packets");
      // The kernel may say a few short things of its own on the link.
      assert.ok(bytes >= size * count && bytes < size * count + 1000, `${bytes} bytes`);
      assert.ok(packets >= count && packets < count + 8, `${packets} packets`);
      assert.is(after.queues[0]?.pool_free, before.queues[0]?.pool_free, "packets have leaked");
    }
    assert.equal(sumDrops(await vm.stats(), "rx"), {});
    await vm.stop();
  });
}

test("a super-datagram of the kernel over IPv6 goes back whole", async (t) => {
  const net = tap({ address6: "2001:db8:77::1/64" });
  const append = `ip=${GUEST_IP}/24 ip6=2001:db8:77::5/64`;
  const vm = await t.vm({ append, memoryMib: 128, nics: [{ backend: net }] });
  await vm.waitFor("ipv6", { where: ({ origin }) => origin === "static", timeoutMs: 20_000 });
  const before = await vm.stats();
  const script = ["python3", "test/fixtures/peer/uso-echo.py", "2001:db8:77::5", "1400", "42000"];
  const { stdout, stderr } = await net.exec(script);
  assert.is(stdout.trim(), "right 42000", stderr);
  const after = await vm.stats();
  const bytes = sumQueues(after, "rx", "bytes") - sumQueues(before, "rx", "bytes");
  const packets = sumQueues(after, "rx", "packets") - sumQueues(before, "rx", "packets");
  assert.ok(bytes >= 42_062 && packets < 12, `${packets} packets, not one for all`);
  await vm.stop();
});

test("without csum on offer the guest completes what the kernel left open", async (t) => {
  const net = tap();
  const options = { csum: false, gso: false, host_uso: false };
  const vm = await t.vm({ append: STATIC_ADDRESS, nics: [{ backend: net, options }] });
  await vm.waitFor("ready");
  const ask = ["nc", "-u", "-w", "1", GUEST_IP, "7"];
  const { stdout } = await net.exec(ask, { input: "completed in software\n" });
  assert.is(stdout, "completed in software\n");
  await vm.stop();
});

test(`a frame of ${TCP_FRAME_BYTES} bytes needs segmentation on offer`, async (t) => {
  const net = tap();
  const options = { host_tso4: false };
  const append = `app=source ${STATIC_ADDRESS} gso=tcp4 dst=02:00:00:00:00:99`;
  const vm = await t.vm({ append, nics: [{ backend: net, options }] });
  const { error } = await vm.failure();
  assert.is(error.message, "gso: the device does not offer this segmentation");
});

test.run();
