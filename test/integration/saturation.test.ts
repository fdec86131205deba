// Saturated, a doorbell and an interrupt each serve many frames: at most one of either per 32 frames,
// by the driver's counters; behind a tap QEMU's trace is the witness. What it takes is that the guest
// is awake all the time, so frames come and go as fast as the backend makes them.

import { readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  assert,
  type StatsEvent,
  suite,
  sumQueues,
  TAP_NAME,
  tap,
  vhostUser,
} from "qemu-test-harness";
import { DISCARD_PORT, GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("saturation", { timeoutMs: 60_000 });

const FRAMES_EACH = 32;
const COUNT = 500_000;
const TAP_COUNT = 100_000;
/** Frames of each at least. */
const BACKLOG = 500;
const BACKLOGS = 15;
const SOURCE = `app=source ${STATIC_ADDRESS} dst=02:00:00:00:00:01 dstip=192.0.2.1`;

/** Checks one direction; answers its kicks. */
function check(stats: StatsEvent, direction: "rx" | "tx", log: (text: string) => void): void {
  const packets = sumQueues(stats, direction, "packets");
  const kicks = sumQueues(stats, direction, "kicks");
  const interrupts = sumQueues(stats, direction, "interrupts");
  log(`${direction}: ${packets} frames, ${kicks} doorbells, ${interrupts} interrupts`);
  assert.ok(kicks * FRAMES_EACH <= packets, `${kicks} doorbells for ${packets} frames`);
  assert.ok(interrupts * FRAMES_EACH <= packets, `${interrupts} interrupts for ${packets} frames`);
}

const lastStats = (events: readonly { readonly event: string }[]) =>
  events.findLast(({ event }) => event === "stats") as unknown as StatsEvent;

test("vhost-user, sending", async (t) => {
  const nics = [{ backend: vhostUser({ mode: "rxonly" }) }];
  const vm = await t.vm({ append: `${SOURCE} count=${COUNT}`, nics });
  const { events } = await vm.finished({ timeoutMs: 40_000 });
  check(lastStats(events), "tx", (text) => t.log(text));
});

test("vhost-user, receiving", async (t) => {
  const net = vhostUser({ mode: "txonly" });
  const vm = await t.vm({ append: `app=sink ${STATIC_ADDRESS}`, nics: [{ backend: net }] });
  await vm.waitFor("ready");
  await net.waitFor(({ txPackets }) => txPackets >= COUNT, 40_000);
  check(await vm.stats(), "rx", (text) => t.log(text));
  await vm.stop();
});

test("tap, sending: as many doorbells as QEMU's trace has", async (t) => {
  const file = join(tmpdir(), `vireo-saturation-${process.pid}.log`);
  t.cleanup(() => rmSync(file, { force: true }));
  const extraArguments = ["-trace", "virtio_queue_notify", "-D", file];
  const nics = [{ backend: tap() }];
  const vm = await t.vm({ append: `${SOURCE} count=${TAP_COUNT}`, nics, extraArguments });
  const { events } = await vm.finished({ timeoutMs: 50_000 });
  const stats = lastStats(events);
  check(stats, "tx", (text) => t.log(text));
  const notified = readFileSync(file, "utf8").match(/virtio_queue_notify/g)?.length ?? 0;
  const rung = sumQueues(stats, "tx", "kicks") + sumQueues(stats, "rx", "kicks");
  t.log(`${rung} doorbells by the guest, ${notified} by QEMU`);
  assert.ok(notified >= rung && notified <= rung + 8, `${notified} seen, ${rung} rung`);
});

// Frames come out of QEMU one after the other, slower than the guest takes them, unless there is a
// backlog: what the kernel's queue of the tap holds while the machine stands still.
test("tap, receiving: as many interrupts as QEMU's trace has", async (t) => {
  const file = join(tmpdir(), `vireo-saturation-${process.pid}-rx.log`);
  t.cleanup(() => rmSync(file, { force: true }));
  const extraArguments = ["-trace", "virtio_notify", "-D", file];
  const net = tap();
  const append = `app=sink ${STATIC_ADDRESS}`;
  const vm = await t.vm({ append, nics: [{ backend: net }], extraArguments });
  const ready = await vm.waitFor("ready");
  // Nobody answers ARP while the machine stands still.
  await net.exec(["ip", "neigh", "replace", GUEST_IP, "lladdr", ready.mac, "dev", TAP_NAME]);
  // What one socket may have in the queue is a few hundred frames.
  const sender = `timeout 0.2 socat -u -b 64 OPEN:/dev/zero UDP:${GUEST_IP}:${DISCARD_PORT}`;
  const script = `for i in 1 2 3 4; do ${sender} & done; wait`;
  for (let round = 1; round <= BACKLOGS; round++) {
    await vm.qmp.execute("stop");
    await net.exec(["sh", "-c", script]);
    await vm.qmp.execute("cont");
    const { txPackets } = await net.counters();
    const arrived = async () => sumQueues(await vm.stats(), "rx", "packets") >= txPackets;
    while (!(await arrived())) await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const stats = await vm.stats();
  check(stats, "rx", (text) => t.log(text));
  assert.ok(sumQueues(stats, "rx", "packets") > BACKLOGS * BACKLOG);
  const raised = readFileSync(file, "utf8").match(/virtio_notify/g)?.length ?? 0;
  const taken = sumQueues(stats, "rx", "interrupts") + sumQueues(stats, "tx", "interrupts");
  t.log(`${taken} interrupts taken by the guest, ${raised} raised by QEMU`);
  // The configuration's own are raised as well; one that comes while one is pending is one with it.
  assert.ok(taken <= raised && taken >= raised * 0.9, `${raised} raised, ${taken} taken`);
  await vm.stop();
});

test.run();
