// A minute of garbage on the wire: the guest counts it, sends nothing malformed, and its service
// goes on.

import {
  assert,
  buildEthernet,
  suite,
  sumDrops,
  sumQueues,
  TYPE_ARP,
  TYPE_IPV4,
  udpFrame,
} from "qemu-test-harness";
import { bootEcho, ECHO_PORT, GUEST_IP } from "./support";

const SEED = 0x5eed;
const DURATION_MS = 60_000;
const FRAMES_PER_CHECK = 500;

/** A small reproducible generator (mulberry32): numbers from 0 up to, not including, `limit`. */
function generator(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
}

const test = suite("garbage", { timeoutMs: DURATION_MS + 60_000 });

test("truncated, oversized, damaged and random frames for a minute", async (t) => {
  const { vm, net, peer } = await bootEcho(t);
  const route = await peer.route(GUEST_IP);
  const random = generator(SEED);
  const bytes = (length: number) => Buffer.from(Array.from({ length }, () => random(256)));
  const sourcePort = 20_000;
  const valid = () =>
    udpFrame(route, { sourcePort, destinationPort: ECHO_PORT, payload: bytes(random(200)) });
  const damaged = () => {
    const frame = valid();
    const at = 14 + random(frame.length - 14);
    frame.writeUInt8(frame.readUInt8(at) ^ (1 << random(8)), at);
    return frame;
  };
  const { destinationMac: destination, sourceMac: source } = route;
  const kinds: readonly (() => Buffer)[] = [
    () => bytes(1 + random(1514)),
    () => valid().subarray(0, 1 + random(41)),
    damaged,
    () => buildEthernet({ destination, source, type: TYPE_IPV4, payload: bytes(random(1500)) }),
    () => buildEthernet({ destination, source, type: TYPE_ARP, payload: bytes(random(60)) }),
    () => buildEthernet({ destination, source, type: TYPE_IPV4, payload: bytes(4000) }),
    () => buildEthernet({ destination, source, type: random(65_536), payload: bytes(46) }),
  ];
  const end = performance.now() + DURATION_MS;
  let sent = 0;
  while (performance.now() < end) {
    for (let i = 0; i < FRAMES_PER_CHECK; i++) {
      const make = kinds[random(kinds.length)] ?? damaged;
      await net.send(make());
      sent++;
    }
    await peer.ping(GUEST_IP, bytes(32));
    if (sent % 200_000 === 0) t.log(`${sent} frames of garbage, still answering`);
  }
  await peer.udpEcho(GUEST_IP, Buffer.from("still here"));
  const stats = await vm.stats();
  const drops = sumDrops(stats, "rx");
  t.log(`${sent} frames sent, ${sumQueues(stats, "rx", "packets")} seen, ${JSON.stringify(drops)}`);
  assert.ok(Object.values(drops).reduce((sum, count) => sum + count, 0) > 0, "nothing was counted");
  assert.equal(peer.malformed, []);
  await vm.stop();
});

test.run();
