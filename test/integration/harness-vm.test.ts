// The harness's own promises about a VM, kept against a real QEMU: it fails loudly and at once when
// QEMU or the guest does.

import { existsSync } from "node:fs";
import { assert, dgram, Peer, readPcap, stream, suite, tap, Vm } from "qemu-test-harness";
import { bootEcho, GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("harness VM", { timeoutMs: 30_000 });

async function rejection(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  throw new Error("the promise was expected to reject");
}

test("a wrong device option: the start rejects with QEMU's own words", async (t) => {
  const options = { no_such_property: 1 };
  const message = await rejection(t.vm({ nics: [{ backend: stream(), options }] }));
  assert.match(message, /no_such_property/);
  assert.match(message, /-device/);
});

test("a missing image: the start rejects and says what to do", async (t) => {
  assert.match(await rejection(t.vm({ image: "build/no-such.elf" })), /not found: build it/);
});

test("QEMU's death rejects an open wait at once, with the console's tail", async (t) => {
  const { vm } = await bootEcho(t);
  const begin = performance.now();
  const wait = rejection(vm.waitFor("link", { fresh: true, timeoutMs: 20_000 }));
  process.kill(vm.pid ?? 0, "SIGKILL");
  assert.match(await wait, /SIGKILL[\s\S]*"ready"/);
  assert.ok(performance.now() - begin < 2000);
  assert.match(await rejection(vm.stop()), /not 33/);
});

test("a line on QEMU's standard error fails the VM, unless it is allowed", async (t) => {
  // QEMU warns about a CPU feature that it cannot emulate.
  const extraArguments = ["-cpu", "max,+tsc-deadline"];
  const options = { append: STATIC_ADDRESS, extraArguments, nics: [{ backend: stream() }] };
  const vm = await Vm.start(options);
  t.cleanup(() => vm.kill());
  assert.match(await rejection(vm.finished({ timeoutMs: 5000 })), /TCG doesn't support/);
  const nics = [{ backend: stream() }];
  const allowed = await t.vm({ ...options, nics, stderrAllowed: [/doesn't support/] });
  await allowed.waitFor("ready");
  await allowed.stop();
});

test("a guest that hangs fails the test, and is gone", async (t) => {
  const { vm } = await bootEcho(t);
  await vm.qmp.execute("stop");
  const begin = performance.now();
  assert.match(await rejection(vm.stop({ timeoutMs: 1000 })), /the guest does not end/);
  assert.ok(performance.now() - begin < 10_000);
  assert.not.ok(vm.running);
});

test("a silent console fails the VM after its no-output deadline", async (t) => {
  const backend = stream();
  const vm = await Vm.start({ append: STATIC_ADDRESS, noOutputMs: 500, nics: [{ backend }] });
  t.cleanup(() => vm.kill());
  await vm.waitFor("ready");
  const message = await rejection(vm.waitFor("exit", { timeoutMs: 10_000 }));
  assert.match(message, /silent for 500 ms/);
});

test("a guest error that nobody asked for rejects the wait for something else", async (t) => {
  const vm = await t.vm({ append: "colour=blue", nics: [{ backend: stream() }] });
  assert.match(await rejection(vm.waitFor("ready")), /colour/);
  const { error, status } = await vm.failure();
  assert.is(status, 35);
  assert.match(error.message, /colour/);
});

test("QMP: commands, errors, and a link that goes down and up", async (t) => {
  const { vm } = await bootEcho(t);
  assert.equal(await vm.qmp.execute("query-status"), { status: "running", running: true });
  assert.match(await rejection(vm.qmp.execute("no-such-command")), /no-such-command/);
  for (const up of [false, true]) {
    const event = vm.waitFor("link", { fresh: true, where: (link) => link.up === up });
    await vm.qmp.execute("set_link", { arguments: { name: "net0", up } });
    await event;
  }
  await vm.stop();
});

test("dgram: ARP, ping and UDP echo", async (t) => {
  const net = dgram();
  const vm = await t.vm({ append: STATIC_ADDRESS, nics: [{ backend: net }] });
  await vm.waitFor("ready");
  const peer = new Peer(net);
  await peer.ping(GUEST_IP);
  await peer.udpEcho(GUEST_IP, Buffer.alloc(1000, 0x5a));
  await vm.stop();
});

test("the stream backend records both directions", async (t) => {
  const { vm, net, peer } = await bootEcho(t);
  await peer.ping(GUEST_IP);
  await vm.stop();
  const capture = vm.artifacts().find(({ name }) => name === "frames.pcap");
  const frames = readPcap(Buffer.from(capture?.content ?? ""));
  assert.is(frames.length, net.sent + net.received);
  assert.ok(net.sent >= 2 && net.received >= 2);
});

test("a tap's namespace is gone after the VM", async (t) => {
  const net = tap();
  const reason = await net.available();
  if (reason !== undefined) t.skip(reason);
  const vm = await Vm.start({ append: STATIC_ADDRESS, nics: [{ backend: net }] });
  t.cleanup(() => vm.kill());
  const path = `/run/netns/${net.wrapper.at(-1)}`;
  assert.ok(existsSync(path));
  await vm.waitFor("ready");
  await vm.kill();
  assert.not.ok(existsSync(path));
});

test.run();
