// The Linux kernel as the peer, through a tap in a network namespace of its own.

import {
  assert,
  chooseAccelerator,
  defaultImage,
  MACHINES,
  suite,
  TAP_NAME,
  type TestContext,
  tap,
  type VmOptions,
} from "qemu-test-harness";
import { sameCounts } from "./counters";
import { ping } from "./ping";
import { GUEST_IP, STATIC_ADDRESS } from "./support";

const FLOOD_COUNT = 5000;
const SHORT_FLOOD_COUNT = 500;
const LARGEST_PING = 1472;

const test = suite("tap", { timeoutMs: 90_000 });

async function bootOnTap(t: TestContext, options: Omit<VmOptions, "nics"> = {}) {
  const net = tap();
  const vm = await t.vm({ ...options, append: STATIC_ADDRESS, nics: [{ backend: net }] });
  const ready = await vm.waitFor("ready", { timeoutMs: 30_000 });
  return { net, vm, ready };
}

/** A short conversation with the kernel: arping, a flood of pings, the smallest and the largest. */
async function talk(t: TestContext, options: Omit<VmOptions, "nics">): Promise<void> {
  const { net, vm, ready } = await bootOnTap(t, options);
  const arping = await net.exec(["arping", "-c", "1", "-w", "5", "-I", TAP_NAME, GUEST_IP]);
  assert.ok(arping.stdout.toLowerCase().includes(ready.mac), arping.stdout + arping.stderr);
  for (const words of [`-f -c ${SHORT_FLOOD_COUNT}`, "-c 1 -s 0", `-c 1 -s ${LARGEST_PING}`]) {
    await ping(net, words, GUEST_IP);
  }
  await vm.stop();
}

for (const machine of MACHINES) {
  for (const cpus of [1, 2, 4]) {
    test(`${machine} with ${cpus} vCPUs under TCG: arping and ping`, (t) =>
      talk(t, { machine, cpus, accelerator: "tcg" }));
  }
}

test("q35 under KVM: arping and ping", async (t) => {
  const choice = await chooseAccelerator(defaultImage());
  if (choice.accelerator !== "kvm") t.skip(choice.reason);
  await talk(t, { accelerator: "kvm" });
});

test("a flood of pings: every one is answered, and the counters agree", async (t) => {
  const { net, vm } = await bootOnTap(t);
  await ping(net, `-f -c ${FLOOD_COUNT}`, GUEST_IP);
  await sameCounts(net, vm);
  await vm.stop();
});

test("ping -s 0 to 1472: every size is answered", async (t) => {
  const { net, vm } = await bootOnTap(t);
  // One shell for all: starting a program in the namespace costs more than a ping.
  const script = `for size in $(seq 0 ${LARGEST_PING}); do
    ping -q -c 1 -W 2 -M do -s $size ${GUEST_IP} >/dev/null || echo lost $size
  done; echo done`;
  const pings = await net.exec(["sh", "-c", script], { timeoutMs: 80_000 });
  assert.is(pings.stdout, "done\n", pings.stderr);
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
