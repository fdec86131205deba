// Frames of every size and in every number: nothing is lost, changed or doubled, and the rings
// wrap.

import { assert, suite, sumQueues } from "qemu-test-harness";
import { bootEcho, DISCARD_PORT, echoLoad, GUEST_IP, UDP_OVERHEAD_BYTES } from "./support";

const MINIMUM_FRAME = 60;
const HEADER = 14;
const INDEX_VALUES = 65_536;

const test = suite("frames", { timeoutMs: 120_000 });

test("every frame size from 60 to 1514 bytes is echoed unchanged", async (t) => {
  const guest = await bootEcho(t);
  const count = 1500 + HEADER - MINIMUM_FRAME + 1;
  await echoLoad(guest, { count, window: 64, frameBytes: (number) => MINIMUM_FRAME + number });
  await guest.vm.stop();
});

for (const mtu of [1280, 1500, 4000, 9000]) {
  for (const mergeable of [true, false]) {
    const device = { host_mtu: mtu, mrg_rxbuf: mergeable };
    const buffers = mergeable ? "on" : "off";
    test(`host_mtu ${mtu}, mrg_rxbuf ${buffers}: sizes up to the MTU are echoed`, async (t) => {
      const guest = await bootEcho(t, { device });
      assert.is(guest.ready.mtu, mtu);
      const largest = mtu + HEADER;
      const step = 7;
      const count = Math.ceil((largest - MINIMUM_FRAME) / step) + 1;
      const frameBytes = (number: number) => Math.min(MINIMUM_FRAME + number * step, largest);
      await echoLoad(guest, { count, window: 32, frameBytes });
      await guest.peer.ping(GUEST_IP, Buffer.alloc(mtu - 28, 0x77));
      await guest.vm.stop();
    });
  }
}

for (const size of [256, 1024]) {
  const device = { rx_queue_size: size };
  test(`bursts of three times the ring, rx_queue_size ${size}`, async (t) => {
    const guest = await bootEcho(t, { device });
    await echoLoad(guest, { count: size * 12, window: size * 3, frameBytes: () => 200 });
    await guest.vm.stop();
  });

  test(`rx_queue_size ${size}: the ring's indices wrap three times`, async (t) => {
    const guest = await bootEcho(t, { device });
    const count = 3 * INDEX_VALUES;
    await echoLoad(guest, { count, window: 128, frameBytes: () => MINIMUM_FRAME });
    const stats = await guest.vm.stats();
    assert.ok(sumQueues(stats, "rx", "packets") >= count);
    assert.ok(sumQueues(stats, "tx", "packets") >= count);
    await guest.vm.stop();
  });
}

test("100,000 numbered frames come back, none lost, none changed", async (t) => {
  const guest = await bootEcho(t);
  const begin = performance.now();
  const frameBytes = (number: number) => MINIMUM_FRAME + ((number * 13) % 400);
  await echoLoad(guest, { count: 100_000, window: 128, frameBytes });
  const seconds = (performance.now() - begin) / 1000;
  t.log(`${Math.round(100_000 / seconds)} echoes a second`);
  const stats = await guest.vm.stats();
  assert.ok(sumQueues(stats, "tx", "packets") >= 100_000);
  await guest.vm.stop();
});

test("datagrams to the discard port are counted and not answered", async (t) => {
  const { vm, net, peer } = await bootEcho(t);
  await peer.route(GUEST_IP);
  const before = await vm.stats();
  const received = net.received;
  for (let i = 0; i < 1000; i++) {
    await peer.sendUdp(GUEST_IP, DISCARD_PORT, Buffer.alloc(100 - UDP_OVERHEAD_BYTES));
  }
  // The ping is behind the datagrams in the same queue: its answer shows that they have been taken.
  await peer.ping(GUEST_IP);
  const after = await vm.stats();
  const taken = sumQueues(after, "rx", "packets") - sumQueues(before, "rx", "packets");
  assert.is(taken, 1001);
  assert.is(net.received - received, 1);
  const bytes = sumQueues(after, "rx", "bytes") - sumQueues(before, "rx", "bytes");
  assert.is(bytes, 1000 * 100 + MINIMUM_FRAME);
  await vm.stop();
});

test.run();
