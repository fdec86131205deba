// A hostile vhost-user device against the image under QEMU: each attack by itself, and seeded
// sequences of them. The guest must name what went wrong, keep its memory, answer on its console,
// and carry traffic again with a device that behaves.

import { assert, HarnessError, suite } from "qemu-test-harness";
import { ATTACKS, type BackendAttack } from "./hostile-backend-attacks";
import { type HostileSetup, Scene, setupName } from "./hostile-backend-scene";

const test = suite("hostile backend", { timeoutMs: 60_000 });

const SETUPS: readonly HostileSetup[] = [
  { ring: "split", pairs: 1 },
  { ring: "split", pairs: 2 },
  { ring: "packed", pairs: 1 },
  { ring: "packed", pairs: 2 },
];
const DROP_MS = 5000;

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
  const warnings = scene.since(mark, "warning").length;
  if (after.recoveries - recoveries > said.length + warnings)
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
    t.log(`${wanted.length} attacks; at least ${planted} packet buffers with canaries in each`);
    await scene.reset();
    assert.equal(
      (await scene.stats()).queues.map((queue) => queue.pool_free),
      free,
    );
    await scene.vm.stop();
  });
}

test.run();
