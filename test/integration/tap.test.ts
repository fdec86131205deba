// The Linux kernel as the peer, through a tap in a network namespace of its own.

import { assert, suite, sumQueues, TAP_NAME, type TestContext, tap } from "qemu-test-harness";
import { GUEST_IP, STATIC_ADDRESS } from "./support";

const FLOOD_COUNT = 5000;
const LARGEST_PING = 1472;

const test = suite("tap", { timeoutMs: 90_000 });

async function bootOnTap(t: TestContext) {
  const net = tap();
  const vm = await t.vm({ append: STATIC_ADDRESS, nics: [{ backend: net }] });
  await vm.waitFor("ready");
  return { net, vm };
}

test("a flood of pings: every one is answered, and the counters agree", async (t) => {
  const { net, vm } = await bootOnTap(t);
  const ping = await net.exec(["ping", "-f", "-q", "-c", String(FLOOD_COUNT), GUEST_IP], {
    timeoutMs: 60_000,
  });
  const expected = `${FLOOD_COUNT} packets transmitted, ${FLOOD_COUNT} received, 0% packet loss`;
  assert.ok(ping.stdout.includes(expected), ping.stdout + ping.stderr);
  const stats = await vm.stats();
  const kernel = await net.counters();
  assert.is(sumQueues(stats, "tx", "packets"), kernel.rxPackets);
  assert.is(sumQueues(stats, "tx", "bytes"), kernel.rxBytes);
  assert.is(sumQueues(stats, "rx", "packets"), kernel.txPackets);
  assert.is(sumQueues(stats, "rx", "bytes"), kernel.txBytes);
  await vm.stop();
});

test("pings of sizes from 0 to 1472 bytes", async (t) => {
  const { net, vm } = await bootOnTap(t);
  const sizes = [...Array.from({ length: 32 }, (_, i) => i * 46), LARGEST_PING - 1, LARGEST_PING];
  for (const size of sizes) {
    const words = [
      "ping",
      "-q",
      "-c",
      "2",
      "-i",
      "0.01",
      "-W",
      "2",
      "-M",
      "do",
      "-s",
      String(size),
    ];
    const ping = await net.exec([...words, GUEST_IP]);
    assert.ok(ping.stdout.includes(" 0% packet loss"), `${size} bytes: ${ping.stdout}`);
  }
  await vm.stop();
});

test("arping", async (t) => {
  const { net, vm } = await bootOnTap(t);
  const arping = await net.exec(["arping", "-c", "3", "-I", TAP_NAME, GUEST_IP]);
  if (arping.status === 127) t.skip("arping is not installed");
  assert.is(arping.status, 0, arping.stdout + arping.stderr);
  assert.match(arping.stdout, /52:54:00:12:34:56/i);
  await vm.stop();
});

test("UDP echo with nc", async (t) => {
  const { net, vm } = await bootOnTap(t);
  const answer = await net.exec(["nc", "-u", "-w1", GUEST_IP, "7"], { input: "hello, guest\n" });
  if (answer.status === 127) t.skip("nc is not installed");
  assert.is(answer.stdout, "hello, guest\n");
  await vm.stop();
});

test.run();
