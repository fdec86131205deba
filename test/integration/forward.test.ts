// app=forward under QEMU: between two stream backends with every byte checked, between the kernels of
// two namespaces, and between two vhost-user backends.

import {
  assert,
  HarnessError,
  Random,
  type StatsEvent,
  type StreamBackend,
  stream,
  suite,
  sumDrops,
  sumQueues,
  type TestContext,
  tapPair,
  type VmOptions,
  vhostUser,
} from "qemu-test-harness";
import { nothingLeaked } from "./counters";
import { ping } from "./ping";

const FORWARD = "app=forward";
const FRAMES = 100_000;
const BURST = 32;
/** Frames on their way at a time, in each direction. */
const WINDOW = 128;
const STALL_MS = 10_000;
const FAR = "192.0.2.2";
const MAC_BYTES = 12;

const test = suite("forward", { timeoutMs: 120_000 });

/** A frame with its number and direction; every byte depends on both. */
function frameOf(number: number, direction: number, bytes: number): Buffer {
  const frame = Buffer.alloc(bytes, (number * 7 + direction) & 0xff);
  frame.write("02000000000102000000000288b5", 0, "hex");
  frame.writeUInt32BE(number, 14);
  frame.writeUInt8(direction, 18);
  return frame;
}

interface Flow {
  readonly from: StreamBackend;
  readonly to: StreamBackend;
  readonly direction: number;
}

/** Sends the frames in bursts and resolves when all of them have come out, in order, unchanged. */
async function flow({ from, to, direction }: Flow): Promise<void> {
  const random = new Random(direction + 1);
  const sizes = Array.from({ length: FRAMES }, () => 60 + random.below(1455));
  let received = 0;
  let wrong: string | undefined;
  let wake: () => void = () => undefined;
  to.onFrame((frame) => {
    const wanted = frameOf(received, direction, sizes[received] ?? 0);
    if (!frame.equals(wanted)) wrong ??= `frame ${received} of direction ${direction} has changed`;
    received++;
    wake();
  });
  const progress = (sent: number) =>
    new Promise<void>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new HarnessError(`${received} of ${sent} frames came out`)),
        STALL_MS,
      );
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  for (let sent = 0; sent < FRAMES; sent += BURST) {
    while (sent - received > WINDOW - BURST) await progress(sent);
    if (wrong !== undefined) throw new HarnessError(wrong);
    const burst = sizes
      .slice(sent, sent + BURST)
      .map((size, i) => frameOf(sent + i, direction, size));
    await from.sendBurst(burst);
  }
  while (received < FRAMES) await progress(FRAMES);
  if (wrong !== undefined) throw new HarnessError(wrong);
}

test(`two stream backends, ${FRAMES} frames each way: all come out, in order, unchanged`, async (t) => {
  const [a, b] = [stream(), stream()];
  const vm = await t.vm({ append: FORWARD, nics: [{ backend: a }, { backend: b }] });
  await vm.waitFor("ready", { where: ({ nic }) => nic === 1, timeoutMs: 30_000 });
  const before = [await vm.stats({ nic: 0 }), await vm.stats({ nic: 1 })];
  await Promise.all([
    flow({ from: a, to: b, direction: 0 }),
    flow({ from: b, to: a, direction: 1 }),
  ]);
  for (const nic of [0, 1]) {
    const stats = await vm.stats({ nic });
    assert.is(sumQueues(stats, "rx", "packets"), FRAMES);
    assert.is(sumQueues(stats, "tx", "packets"), FRAMES);
    assert.equal(sumDrops(stats, "rx"), {});
    assert.is(stats.queues[0]?.pool_free, before[nic]?.queues[0]?.pool_free);
  }
  await vm.stop();
});

test("mac=swap: addresses change places, the rest stays", async (t) => {
  const [a, b] = [stream(), stream()];
  const vm = await t.vm({ append: `${FORWARD} mac=swap`, nics: [{ backend: a }, { backend: b }] });
  await vm.waitFor("ready", { where: ({ nic }) => nic === 1, timeoutMs: 30_000 });
  const frame = frameOf(1, 0, 200);
  const out = new Promise<Buffer>((resolve) => b.onFrame(resolve));
  await a.send(frame);
  const swapped = Buffer.concat([
    frame.subarray(6, MAC_BYTES),
    frame.subarray(0, 6),
    frame.subarray(MAC_BYTES),
  ]);
  assert.equal(await out, swapped);
  await vm.stop();
});

async function bootOnTaps(
  t: TestContext,
  options: Omit<VmOptions, "nics">,
  queues = 1,
  device = {},
) {
  const pair = tapPair({ queues });
  const nics = pair.sides.map((backend) => ({ backend, options: device }));
  const vm = await t.vm({ append: FORWARD, memoryMib: 128, ...options, nics });
  await vm.waitFor("ready", { where: ({ nic }) => nic === 1, timeoutMs: 40_000 });
  await pair.part();
  return { vm, near: pair.sides[0], far: pair.sides[1] };
}

/** Runs iperf3 from the near side to the far one; answers bytes that arrived. */
async function iperf(
  { near, far }: Awaited<ReturnType<typeof bootOnTaps>>,
  words: readonly string[],
): Promise<number> {
  const server = far.exec(["iperf3", "-s", "-1"], { timeoutMs: 40_000 });
  // The server says nothing when it listens; the client is told to try again instead.
  const script = `for i in $(seq 50); do
    iperf3 -J -c ${FAR} ${words.join(" ")} && exit 0; sleep 0.1; done; exit 1`;
  const { stdout, status } = await near.exec(["sh", "-c", script], { timeoutMs: 40_000 });
  await server;
  assert.is(status, 0, stdout);
  const begin = stdout.lastIndexOf('{\n\t"start"');
  const report = JSON.parse(stdout.slice(Math.max(begin, 0))) as {
    end: { sum_received?: { bytes: number } };
  };
  return report.end.sum_received?.bytes ?? 0;
}

for (const [what, device] of [
  ["with segmentation and checksums left to the devices", {}],
  ["without segmentation", { host_tso4: false, guest_tso4: false, host_tso6: false }],
  ["without checksums either", { csum: false, guest_csum: false }],
] as const) {
  test(`two kernels, ${what}: ping and iperf3 through the guest`, async (t) => {
    const net = await bootOnTaps(t, {}, 1, device);
    await ping(net.near, "-f -c 500", FAR);
    await ping(net.near, "-c 3 -s 1472 -M do", FAR);
    for (const reverse of [[], ["-R"]]) {
      const bytes = await iperf(net, ["-n", "20M", ...reverse]);
      // The last of what was sent is still on its way when the receiver reports.
      assert.ok(bytes >= 15 * 1024 * 1024, `${bytes} of 20 MiB arrived`);
    }
    const stats = await net.vm.stats();
    const [packets, total] = [sumQueues(stats, "rx", "packets"), sumQueues(stats, "rx", "bytes")];
    t.log(`${packets} packets of ${Math.round(total / packets)} bytes on average`);
    if (Object.keys(device).length === 0) assert.ok(total / packets > 2000, "nothing came uncut");
    await net.vm.stop();
  });
}

for (const cpus of [1, 2, 4]) {
  test(`${cpus} vCPUs: every queue pair forwards, and nothing leaks`, async (t) => {
    const net = await bootOnTaps(t, { cpus }, cpus);
    const before = [await net.vm.stats({ nic: 0 }), await net.vm.stats({ nic: 1 })];
    for (const reverse of [[], ["-R"]]) {
      await iperf(net, ["-P", "32", "-n", "32M", ...reverse]);
    }
    for (const nic of [0, 1]) {
      const { queues } = await net.vm.stats({ nic });
      assert.is(queues.length, cpus);
      for (const { index, rx, tx } of queues) {
        assert.ok(rx.packets > 0, `NIC ${nic}: receive queue ${index} carried nothing`);
        assert.ok(tx.packets > 0, `NIC ${nic}: transmit queue ${index} carried nothing`);
      }
    }
    for (const [nic, atRest] of before.entries()) {
      await nothingLeaked({ stats: () => net.vm.stats({ nic }) }, atRest);
    }
    await net.vm.stop();
  });
}

test("two vhost-user backends: what one has sent, the other has got or it was dropped", async (t) => {
  const [from, to] = [vhostUser({ mode: "txonly" }), vhostUser({ mode: "rxonly" })];
  const nics = [{ backend: from }, { backend: to }];
  const vm = await t.vm({ append: `${FORWARD} mode=poll`, memoryMib: 128, nics });
  await vm.waitFor("ready", { where: ({ nic }) => nic === 1, timeoutMs: 30_000 });
  await to.waitFor(({ rxPackets }) => rxPackets >= 500_000, 60_000);
  const { events } = await vm.stop();
  const [last, first] = events.filter(({ event }) => event === "stats").reverse();
  const stats = [first, last].map((event) => event as unknown as StatsEvent);
  const [a, b] = stats;
  if (a === undefined || b === undefined) throw new HarnessError("no stats at the end");
  const received = sumQueues(a, "rx", "packets");
  const sent = sumQueues(b, "tx", "packets");
  const dropped = sumDrops(a, "rx").forward_full ?? 0;
  t.log(`${received} received, ${sent} sent on, ${dropped} dropped`);
  assert.is(received, sent + dropped);
  const seen = await to.waitFor(({ rxPackets }) => rxPackets >= sent - 256, 5000);
  assert.ok(seen.rxPackets <= sent);
});

for (const count of [1, 3]) {
  test(`with ${count} NIC${count > 1 ? "s" : ""}: an error that says so, status 35`, async (t) => {
    const nics = Array.from({ length: count }, () => ({ backend: stream() }));
    const vm = await t.vm({ append: FORWARD, nics });
    const { error } = await vm.failure({ timeoutMs: 30_000 });
    assert.is(error.message, "app: forward is between two NICs, no more and no fewer");
  });
}

test.run();
