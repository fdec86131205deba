// The harness's own vhost-user device, honest: what it says it has moved, the guest has counted.
// What it is for is in hostile-backend.test.ts.

import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import {
  assert,
  type DeviceFeature,
  Peer,
  suite,
  sumQueues,
  USUAL_FEATURES,
  vhostUserDevice,
} from "qemu-test-harness";
import { echoLoad, GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("vhost-user device", { timeoutMs: 30_000 });

const FORMATS: readonly (readonly [string, readonly DeviceFeature[]])[] = [
  ["split", USUAL_FEATURES],
  ["split", []],
  ["packed", [...USUAL_FEATURES, "packed"]],
  ["packed", ["packed"]],
  ["packed", [...USUAL_FEATURES, "packed", "in_order"]],
];

for (const [ring, features] of FORMATS) {
  for (const queues of [1, 2]) {
    test(`echo, ${ring}, ${queues} pairs, features ${features.join(" ")}`, async (t) => {
      const net = vhostUserDevice({ features, queues });
      const append = `${STATIC_ADDRESS} log=quiet`;
      const vm = await t.vm({ append, cpus: queues, nics: [{ backend: net }] });
      const ready = await vm.waitFor("ready", { timeoutMs: 30_000 });
      assert.equal([ready.ring, ready.queues], [ring, queues]);
      const peer = new Peer(net);
      await peer.ping(GUEST_IP);
      const frameBytes = (n: number) => 60 + ((n * 7) % 1400);
      await echoLoad({ net, peer, ready, vm }, { count: 2000, window: 32, frameBytes });
      const stats = await vm.stats();
      assert.is(sumQueues(stats, "rx", "packets"), net.sent);
      assert.is(sumQueues(stats, "tx", "packets"), net.received);
      for (const { rx } of stats.queues) assert.ok(rx.packets > 900, `${rx.packets} on a queue`);
      assert.equal(net.driverFaults, []);
      await vm.stop();
    });
  }
}

/** This process's eventfds and sockets, and mappings of a guest's memory. */
function held() {
  const links = readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(join("/proc/self/fd", fd))];
    } catch {
      // The directory's own descriptor, which is closed again.
      return [];
    }
  });
  const count = (start: string) => links.filter((link) => link.startsWith(start)).length;
  const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
  return {
    eventfds: count("anon_inode:[eventfd]"),
    sockets: count("socket:"),
    memory: maps.filter((line) => line.includes("memfd:")).length,
  };
}

test("afterwards nothing is open, and nothing of the guest is mapped", async (t) => {
  const net = vhostUserDevice({ queues: 2 });
  await net.available();
  const before = held();
  const vm = await t.vm({ append: STATIC_ADDRESS, cpus: 2, nics: [{ backend: net }] });
  await vm.waitFor("ready", { timeoutMs: 30_000 });
  await new Peer(net).ping(GUEST_IP);
  const during = held();
  assert.ok(during.memory > before.memory, "nothing was mapped");
  // Its own, and two for each of four queues.
  assert.ok(during.eventfds >= before.eventfds + 9, `${during.eventfds} eventfds`);
  await vm.stop();
  await vm.kill();
  assert.equal(held(), before);
});

test.run();
