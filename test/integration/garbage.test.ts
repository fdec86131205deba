// A minute of garbage on the wire: the guest counts every frame under the right reason, loses no
// buffer, sends nothing malformed, and its service goes on.
//
// Shares the machine: its peer sends what the guest takes.

import { assert, Random, suite, sumDrops, sumQueues } from "qemu-test-harness";
import { garbageKinds } from "./garbage-frames";
import { garbageKinds6 } from "./garbage-frames6";
import { bootEcho, GUEST_IP } from "./support";

const SEED = 0x5eed;
const DURATION_MS = 60_000;

const FRAMES_PER_CHECK = 500;
const LOG_EVERY_FRAMES = 200_000;

const test = suite("garbage", { timeoutMs: DURATION_MS + 60_000 });

test("truncated, oversized, damaged and random frames for a minute", async (t) => {
  const { vm, net, peer } = await bootEcho(t, { append: `ip=${GUEST_IP}/24` });
  // Before that its IPv6 addresses hear nothing.
  await vm.waitFor("ipv6", { timeoutMs: 20_000 });
  const random = new Random(SEED);
  const route = await peer.route(GUEST_IP);
  const kinds = [...garbageKinds(route, random), ...garbageKinds6(route, random)];
  const sentAs = new Map<string, number>();
  const before = await vm.stats();
  const sentBefore = net.sent;
  const end = performance.now() + DURATION_MS;
  let sent = 0;
  while (performance.now() < end) {
    for (let i = 0; i < FRAMES_PER_CHECK; i++) {
      const { make, reason } = random.pick(kinds);
      await net.send(make());
      sent++;
      if (reason !== undefined) sentAs.set(reason, (sentAs.get(reason) ?? 0) + 1);
    }
    await peer.ping(GUEST_IP, random.bytes(32));
    if (sent % LOG_EVERY_FRAMES === 0) t.log(`${sent} frames of garbage, still answering`);
  }
  await peer.udpEcho(GUEST_IP, Buffer.from("still here"));
  const after = await vm.stats();
  const drops = sumDrops(after, "rx");
  t.log(`${sent} frames of garbage: ${JSON.stringify(drops)}`);
  for (const [reason, count] of sentAs) {
    const counted = drops[reason] ?? 0;
    assert.ok(counted >= count, `${reason}: ${count} sent, ${counted} counted`);
  }
  // Every frame that was sent has been seen, and each was either taken in or dropped for a reason.
  const seen = sumQueues(after, "rx", "packets") - sumQueues(before, "rx", "packets");
  assert.is(seen, net.sent - sentBefore);
  const dropped = (stats: typeof after) =>
    Object.values(sumDrops(stats, "rx")).reduce((sum, count) => sum + count, 0);
  const accepted = after.accepted - before.accepted;
  assert.is(accepted + dropped(after) - dropped(before), seen);
  assert.is(after.queues[0]?.pool_free, before.queues[0]?.pool_free, "a buffer has been lost");
  assert.is(after.recoveries, 0);
  assert.equal(peer.malformed, []);
  await vm.stop();
});

test.run();
