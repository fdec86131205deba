// Checksum and segmentation offloads with the Linux kernel on the other side of a tap: what the
// guest leaves to the device comes out right, and what the kernel leaves to the guest as well.

import { assert, linkLocalAddress, suite, sumQueues, TAP_NAME, tap } from "qemu-test-harness";
import { GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("offloads", { timeoutMs: 60_000 });

const MSS = 1448;
const FRAMES = 3;
/** 45 segments of 1,448 bytes, and the headers of Ethernet, IPv4 and TCP. */
const TCP_FRAME_BYTES = 65_214;
const TCP_SEGMENTS = 45;
/** The same frame with UDP's shorter header takes one segment more. */
const UDP_SEGMENTS = 46;
/** IPv6's header is 20 bytes longer, which makes the last segment shorter. */
const TCP6_SEGMENTS = 45;
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

for (const { gso, segments } of [
  { gso: "tcp4", segments: TCP_SEGMENTS },
  { gso: "udp4", segments: UDP_SEGMENTS },
  { gso: "tcp6", segments: TCP6_SEGMENTS },
  { gso: "udp6", segments: UDP6_SEGMENTS },
]) {
  test(`source gso=${gso}: the kernel cuts it into segments with right checksums`, async (t) => {
    const net = tap();
    const words = `app=source ${STATIC_ADDRESS} gso=${gso} mss=${MSS} count=${FRAMES}`;
    const [far, from] = gso.endsWith("6") ? [FAR_IP6, GUEST_LINK] : [FAR_IP, GUEST_IP];
    const append = `${words} dst=02:00:00:00:00:99 dstip=${far}`;
    // Stopped until somebody listens: the source sends as soon as it runs.
    const source = await t.vm({ append, nics: [{ backend: net }], extraArguments: ["-S"] });
    await bridgeToVeth(net);
    const count = String(FRAMES * segments);
    const capture = net.exec(
      ["tcpdump", "-i", "far", "-nn", "-vv", "-c", count, "udp or tcp", "and", "src", from],
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
