// Hashes of received packets as QEMU computes them, behind a tap: with and without RSS, on one lane
// and on several. What they have to be is computed here from the frame. virtio 1.4 §5.1.9.4.4
//
// Shares the machine: nothing in it is timed.

import { assert, type StatsEvent, suite, type TestContext, tap, type Vm } from "qemu-test-harness";
import { toeplitz } from "../model/net/flows";
import { done } from "./control-support";
import { GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("hash report under QEMU", { timeoutMs: 60_000 });

const KEY = Buffer.from(
  "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa",
  "hex",
);
const SOURCE_PORT = 40_001;
const FROM_TO = Buffer.from([192, 0, 2, 1, 192, 0, 2, 2]);
const PORTS = Buffer.from([SOURCE_PORT >> 8, SOURCE_PORT & 0xff, 0, 7]);
const hex = (hash: number) => hash.toString(16).padStart(8, "0");

/** One datagram, and its echo. */
async function echo(net: ReturnType<typeof tap>): Promise<void> {
  const script = `
    const socket = require("node:dgram").createSocket("udp4");
    socket.on("message", (message) => { console.log(String(message)); socket.close(); });
    socket.bind(${SOURCE_PORT}, () => socket.send("hashed", 7, "${GUEST_IP}"));
    setTimeout(() => process.exit(1), 5000).unref();`;
  const { stdout } = await net.exec([process.execPath, "-e", script], { timeoutMs: 10_000 });
  assert.is(stdout, "hashed\n");
}

interface Hashes {
  readonly hashes?: Readonly<Record<string, number>>;
  readonly last_hash?: string;
  readonly last_hash_report?: string;
}

/** What all lanes together say of packets with a hash of this kind; and the hash. */
async function hashed(vm: Vm, report: string): Promise<{ count: number; hash?: string }> {
  const stats: StatsEvent = await vm.stats();
  const lanes = stats.queues.map(({ rx }) => rx as unknown as Hashes);
  const count = lanes.reduce((sum, { hashes }) => sum + (hashes?.[report] ?? 0), 0);
  const hash = lanes.find((lane) => lane.last_hash_report === report)?.last_hash;
  return hash === undefined ? { count } : { count, hash };
}

async function boot(t: TestContext, cpus: number, rss: boolean) {
  const net = tap({ queues: cpus });
  const device = { hash: true, rss };
  const vm = await t.vm({
    append: STATIC_ADDRESS,
    cpus,
    memoryMib: 32 * cpus + 32,
    nics: [{ backend: net, options: device }],
    stderrAllowed: [/eBPF RSS/],
  });
  await vm.waitFor("ready", { timeoutMs: 30_000 });
  const { accepted } = await vm.waitFor("features");
  assert.ok(accepted.includes("hash_report"), accepted.join());
  return { vm, net };
}

for (const cpus of [1, 4]) {
  for (const rss of [true, false]) {
    test(`a datagram's hash is Toeplitz's, ${cpus} lanes, rss=${rss}`, async (t) => {
      const { vm, net } = await boot(t, cpus, rss);
      await echo(net);
      const withPorts = hex(toeplitz(KEY, Buffer.concat([FROM_TO, PORTS])));
      assert.equal(await hashed(vm, "udpv4"), { count: 1, hash: withPorts });
      const line = rss ? "rss types ipv4" : "hash types ipv4";
      await done(vm, line);
      await echo(net);
      assert.equal(await hashed(vm, "ipv4"), { count: 1, hash: hex(toeplitz(KEY, FROM_TO)) });
      await done(vm, "reset");
      await echo(net);
      assert.is((await hashed(vm, "ipv4")).count, 2);
      await vm.stop();
    });
  }
}

test("rss off, queues and rss on: who chooses the types at each time", async (t) => {
  const { vm, net } = await boot(t, 4, true);
  await done(vm, "rss types ipv4", "hash types udpv4");
  await echo(net);
  assert.is((await hashed(vm, "ipv4")).count, 1);
  await done(vm, "rss off");
  await echo(net);
  assert.is((await hashed(vm, "udpv4")).count, 1);
  await done(vm, "queues 2");
  await echo(net);
  assert.is((await hashed(vm, "udpv4")).count, 2);
  await done(vm, "rss on");
  await echo(net);
  assert.is((await hashed(vm, "ipv4")).count, 2);
  await vm.stop();
});

test.run();
