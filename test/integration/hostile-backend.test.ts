// A hostile vhost-user device against the image under QEMU: each attack by itself, and seeded
// sequences of them. The guest must name what went wrong, keep its memory, answer on its console,
// and carry traffic again with a device that behaves.

import {
  assert,
  type DeviceFeature,
  delay,
  HarnessError,
  messageOf,
  Random,
  suite,
  type TestContext,
} from "qemu-test-harness";
import { ACTS } from "./hostile-backend-acts";
import type { BackendAttack } from "./hostile-backend-attack";
import { ATTACKS } from "./hostile-backend-attacks";
import { FEATURES, type HostileSetup, Scene, setupName } from "./hostile-backend-scene";

const test = suite("hostile backend", { timeoutMs: 120_000 });

const SETUPS: readonly HostileSetup[] = [
  { ring: "split", pairs: 1 },
  { ring: "split", pairs: 2 },
  { ring: "packed", pairs: 1 },
  { ring: "packed", pairs: 2 },
];
const DROP_MS = 5000;

/** Random sequences: for how long, all setups together, and from which seed on. */
const SECONDS = Number(process.env.VIREO_HOSTILE_SECONDS ?? "8");
const SEED = Number(process.env.VIREO_HOSTILE_SEED ?? "1");
const ACTS_MAX = 8;
const PAUSE_MS_MAX = 4;
/** Then another guest is booted, with other features. */
const SEQUENCES_PER_BOOT = 40;
const SEQUENCES_MIN = 5;
/** Beyond the time for sequences: boots, and the sequence at hand. */
const SLACK_MS = 60_000;

const sum = (drops: Readonly<Record<string, number>>) =>
  Object.values(drops).reduce((total, count) => total + count, 0);

/** One attack, from a guest at rest to a guest at rest. Answers what was wrong. */
async function carryOut(scene: Scene, attack: BackendAttack, pair: number): Promise<string[]> {
  const { net, oracle } = scene;
  oracle.plant();
  const mark = scene.mark();
  const { starts } = net;
  const { recoveries } = await scene.stats();
  const before = await scene.drops();
  await attack.run(scene, pair);
  oracle.showAll();
  if (attack.error !== undefined) {
    await scene.errorSince(mark, attack.error);
    await scene.restarted(starts);
  } else if (attack.drop !== undefined) await waitForDrop(scene, attack.drop, before);
  const after = await scene.stats();
  const said = scene.since(mark, "error").map(({ message }) => String(message));
  const wrong: string[] = [];
  if (attack.error === undefined && attack.spoils !== true) wrong.push(...said);
  if (after.recoveries - recoveries > scene.reasonsSince(mark))
    wrong.push("a reset without a reason");
  if (attack.spoils === true) await scene.reset();
  else scene.behave();
  return [...wrong, ...(await scene.judge())];
}

async function waitForDrop(
  scene: Scene,
  reason: string,
  before: Readonly<Record<string, number>>,
): Promise<void> {
  const end = Date.now() + DROP_MS;
  for (;;) {
    const now = await scene.drops();
    if (reason === "any" ? sum(now) > sum(before) : (now[reason] ?? 0) > (before[reason] ?? 0)) {
      return;
    }
    if (Date.now() > end) {
      throw new HarnessError(
        `no drop '${reason}': ${JSON.stringify(before)}, ${JSON.stringify(now)}`,
      );
    }
  }
}

for (const setup of SETUPS) {
  test(`each attack, ${setupName(setup)}`, async (t) => {
    const scene = await Scene.boot(t, setup, "watchdog=1");
    await scene.reset();
    const free = (await scene.stats()).queues.map((queue) => queue.pool_free);
    const wanted = ATTACKS.filter(({ ring }) => ring === undefined || ring === setup.ring);
    let planted = Number.POSITIVE_INFINITY;
    for (const [number, attack] of wanted.entries()) {
      const pair = number % setup.pairs;
      const where = `${attack.queue} queue of pair ${pair}: ${attack.name}`;
      const wrong = await carryOut(scene, attack, pair).catch((error: unknown) => {
        throw new HarnessError(`${where}: ${error instanceof Error ? error.stack : error}`);
      });
      planted = Math.min(planted, scene.oracle.planted);
      assert.equal(wrong, [], where);
    }
    const errors = scene.since(0, "error").length;
    const canaries = `at least ${planted} packet buffers with canaries in each`;
    t.log(`${wanted.length} attacks, ${errors} errors named; ${canaries}`);
    await scene.reset();
    assert.equal(
      (await scene.stats()).queues.map((queue) => queue.pool_free),
      free,
    );
    await scene.vm.stop();
  });
}

const DISCONNECTS = 2;
const LINK_MS = 10_000;
/** With watchdog=1: a notification after a second, a reset after another. */
const WATCHDOG_MS = 10_000;

for (const setup of SETUPS) {
  test(`the device disconnects in the middle and comes back, ${setupName(setup)}`, async (t) => {
    const scene = await Scene.boot(t, setup, "watchdog=1");
    const { net, vm } = scene;
    for (let i = 0; i < DISCONNECTS; i++) {
      scene.oracle.plant();
      // Frames to send are outstanding, and frames that came are not answered yet.
      await scene.fillTransmit(i % setup.pairs);
      scene.oracle.showAll();
      scene.rx(0).push(scene.datagram("cut off"), {});
      const mark = scene.mark();
      const { connections } = net;
      const { recoveries } = await scene.stats();
      const saw = (up: boolean) => () => scene.since(mark, "link").some((link) => link.up === up);
      net.disconnect();
      await net.until(saw(false), LINK_MS, "link down");
      await scene.stats();
      await net.until(saw(true), LINK_MS, "link up");
      const isBack = () => net.connections > connections && net.running.length === 2 * setup.pairs;
      await net.until(isBack, LINK_MS, "queues that run again");
      // QEMU knows by the used index where a split ring stood. Of a packed one it says that it is at
      // its beginning: nothing moves, and the driver has to find that out.
      if (setup.ring === "packed") {
        await scene.recovered(recoveries, WATCHDOG_MS);
        // What the device saw in the wrong place says nothing of the driver.
        net.driverFaults.length = 0;
      }
      assert.equal(await scene.judge(), []);
      const resets = (await scene.stats()).recoveries - recoveries;
      assert.is(resets, setup.ring === "packed" ? 1 : 0);
    }
    await vm.stop();
  });
}

/** What is offered in the n-th boot: all the first time, then some of it, and perhaps IN_ORDER. */
function featuresOf(boot: number, random: Random): readonly DeviceFeature[] {
  if (boot === 0) return FEATURES;
  const kept = FEATURES.filter(() => random.below(3) > 0);
  const usable = kept.includes("guest_csum")
    ? kept
    : kept.filter((name) => !name.startsWith("guest_"));
  // Without mrg_rxbuf large frames would take buffers of 64 KiB each.
  const small = usable.includes("mrg_rxbuf")
    ? usable
    : usable.filter((name) => !name.startsWith("guest_tso") && name !== "host_mtu");
  return random.below(2) === 0 ? small : [...small, "in_order"];
}

/** A few acts, then a device that behaves. Answers what was wrong. */
async function sequence(scene: Scene, random: Random, said: string[]): Promise<string[]> {
  const { net, oracle } = scene;
  oracle.plant();
  const mark = scene.mark();
  const { recoveries } = await scene.stats();
  for (let acts = 1 + random.below(ACTS_MAX); acts > 0; acts--) {
    const what = random.pick(ACTS)(scene, random);
    if (what !== undefined) said.push(what);
    if (random.below(3) > 0) continue;
    await delay(random.below(PAUSE_MS_MAX));
    said.push("pause");
  }
  await scene.stats();
  // What still waits in the device has a header that lies, perhaps.
  for (const queue of net.queues) queue.forget();
  await scene.reset();
  const after = await scene.stats();
  const wrong: string[] = [];
  if (after.recoveries - recoveries > scene.reasonsSince(mark))
    wrong.push("a reset without a reason");
  if (net.running.length !== 2 * scene.pairs) wrong.push("not all queues run");
  return [...wrong, ...(await scene.judge())];
}

/** Sequences on one guest, from `first` on, for at most `ms`. Answers how many. */
async function sequences(scene: Scene, first: number, ms: number): Promise<number> {
  await scene.reset();
  const free = async () => (await scene.stats()).queues.map((queue) => queue.pool_free);
  const before = await free();
  const end = Date.now() + ms;
  let count = 0;
  // However slow the machine is just now, there are some.
  for (; count < SEQUENCES_PER_BOOT && (count < SEQUENCES_MIN || Date.now() < end); count++) {
    const number = first + count;
    const said: string[] = [];
    const fail = (wrong: string) =>
      new HarnessError(`seed ${SEED}, sequence ${number}: ${said.join("; ")}: ${wrong}`);
    const random = new Random(SEED + 7919 * number);
    const wrong = await sequence(scene, random, said).catch((error: unknown) => {
      throw fail(messageOf(error));
    });
    if (wrong.length > 0) throw fail(wrong.join("; "));
  }
  await scene.reset();
  assert.equal(await free(), before, "packets have leaked");
  await scene.vm.stop();
  return count;
}

async function longRun(t: TestContext, setup: HostileSetup, ms: number): Promise<void> {
  const random = new Random(SEED);
  let count = 0;
  let boots = 0;
  let errors = 0;
  for (let left = ms; left > 0; boots++) {
    const scene = await Scene.boot(t, { ...setup, features: featuresOf(boots, random) });
    const start = Date.now();
    count += await sequences(scene, count, left);
    left -= Date.now() - start;
    errors += scene.since(0, "error").length;
    await scene.vm.kill();
  }
  t.log(`seed ${SEED}: ${count} sequences in ${boots} guests, ${errors} errors named`);
}

for (const setup of SETUPS) {
  const ms = (SECONDS * 1000) / SETUPS.length;
  const handler = (t: TestContext) => longRun(t, setup, ms);
  test(`sequences at random, ${setupName(setup)}`, handler, { timeoutMs: ms + SLACK_MS });
}

test.run();
