// Instructions a frame, counted by QEMU (`-icount shift=0`: one instruction is one tick of the time
// stamp counter). They do not depend on the machine, so more of them than instructions.json allows
// is a regression. They do depend a little on how many frames the backend takes at a time.

import { readFileSync } from "node:fs";
import {
  assert,
  type DeviceOptions,
  delay,
  HarnessError,
  type StatsEvent,
  type StreamBackend,
  stream,
  suite,
  sumQueues,
  type TestContext,
  tap,
  type Vm,
} from "qemu-test-harness";
import { bootEcho, echoLoad, STATIC_ADDRESS } from "./support";

const test = suite("instructions", { timeoutMs: 60_000 });

const SENT = 50_000;
const RECEIVED = 2_000;
/** At a time, as many as QEMU may have put into the ring when the guest looks. */
const BURST = 200;
const ROUNDS = 30;
const ECHOES = 2_000;
const WINDOW = 200;
const FRAME_BYTES = 60;
const ICOUNT = ["-icount", "shift=0,sleep=off"];
const ALLOWED = JSON.parse(readFileSync("test/integration/instructions.json", "utf8")) as Record<
  string,
  number
>;

const FORMATS: readonly { readonly name: string; readonly options: DeviceOptions }[] = [
  { name: "split", options: {} },
  { name: "split in order", options: { in_order: true } },
  { name: "packed", options: { packed: true } },
  { name: "packed in order", options: { packed: true, in_order: true } },
];

/** Instructions and frames from one `stats` to the next. */
function perFrame(direction: "rx" | "tx", after: StatsEvent, before?: StatsEvent): number {
  const since = (what: "cycles" | "packets") =>
    sumQueues(after, direction, what) - (before ? sumQueues(before, direction, what) : 0);
  return since("cycles") / since("packets");
}

function check(t: TestContext, what: string, each: number): void {
  const allowed = ALLOWED[what] ?? 0;
  t.log(`${each.toFixed(1)} instructions a frame, ${allowed} allowed`);
  assert.ok(each > 0 && each <= allowed, `${each.toFixed(1)} instructions a frame, not ${allowed}`);
}

/** Sends a round of frames and answers the `stats` when all have been received. */
async function round(vm: Vm, net: StreamBackend, before: StatsEvent): Promise<StatsEvent> {
  const burst = Array.from({ length: BURST }, () => Buffer.alloc(FRAME_BYTES, 0xff));
  for (let i = 0; i < RECEIVED; i += BURST) await net.sendBurst(burst);
  const wanted = sumQueues(before, "rx", "packets") + RECEIVED;
  // Each look is a round trip over the console.
  for (let left = 100; left > 0; left--) {
    const stats = await vm.stats({ nic: 0 });
    if (sumQueues(stats, "rx", "packets") === wanted) return stats;
  }
  throw new HarnessError(`${RECEIVED} frames were sent and not all of them received`);
}

/** Answers the `stats` after a round of frames more. */
async function sent(vm: Vm, before: StatsEvent): Promise<StatsEvent> {
  const wanted = sumQueues(before, "tx", "packets") + SENT;
  for (let left = 100; left > 0; left--) {
    await delay(100);
    const stats = await vm.stats();
    if (sumQueues(stats, "tx", "packets") >= wanted) return stats;
  }
  throw new HarnessError(`${SENT} frames were not sent within 10 s`);
}

/** The best of some rounds: how many frames come at a time is the host's affair. */
async function bestRound(vm: Vm, net: StreamBackend, what: string): Promise<number> {
  const limit = ALLOWED[what] ?? 0;
  let before = await vm.stats({ nic: 0 });
  let least = Infinity;
  for (let i = 0; i < ROUNDS && least > limit; i++) {
    const after = await round(vm, net, before);
    least = Math.min(least, perFrame("rx", after, before));
    before = after;
  }
  return least;
}

for (const { name, options } of FORMATS) {
  test(`source, ${name}: instructions a frame, sent and reclaimed`, async (t) => {
    const append = `app=source ${STATIC_ADDRESS} dst=02:00:00:00:00:99`;
    const nics = [{ backend: tap(), options }];
    const vm = await t.vm({ append, nics, accelerator: "tcg", extraArguments: ICOUNT });
    await vm.waitFor("ready", { timeoutMs: 30_000 });
    // How many frames the host takes at a time is its affair: the best of some rounds counts.
    let before = await vm.stats();
    let least = Infinity;
    const limit = ALLOWED[`source, ${name}`] ?? 0;
    for (let i = 0; i < ROUNDS && least > limit; i++) {
      const after = await sent(vm, before);
      least = Math.min(least, perFrame("tx", after, before));
      before = after;
    }
    check(t, `source, ${name}`, least);
    await vm.stop();
  });

  for (const merged of [true, false]) {
    receives(merged ? `sink, ${name}` : `sink, ${name}, plain`, { ...options, mrg_rxbuf: merged });
  }
}

/** Without MRG_RXBUF no header is read, and the ring is passed once. */
function receives(name: string, options: DeviceOptions): void {
  test(`${name}: instructions a frame, received and dropped`, async (t) => {
    const net = stream();
    const nics = [{ backend: net, options }];
    const vm = await t.vm({ append: "app=sink", nics, accelerator: "tcg", extraArguments: ICOUNT });
    await vm.waitFor("ready", { timeoutMs: 30_000 });
    check(t, name, await bestRound(vm, net, name));
    await vm.stop();
  });
}

/** Without these nobody has to look at a received header, so that frames go from ring to ring. */
const PLAIN: DeviceOptions = {
  ...{ mrg_rxbuf: false, guest_csum: false, guest_tso4: false, guest_tso6: false },
  ...{ guest_ecn: false, guest_ufo: false, guest_uso4: false, guest_uso6: false },
};

for (const { name, options } of FORMATS) {
  test(`forward, ${name}: instructions a frame, received, sent and reclaimed`, async (t) => {
    const net = stream();
    const nics = [net, stream()].map((backend) => ({ backend, options: { ...options, ...PLAIN } }));
    const boot = {
      append: "app=forward",
      nics,
      accelerator: "tcg",
      extraArguments: ICOUNT,
    } as const;
    const vm = await t.vm(boot);
    await vm.waitFor("ready", { where: ({ nic }) => nic === 1, timeoutMs: 30_000 });
    check(t, `forward, ${name}`, await bestRound(vm, net, `forward, ${name}`));
    await vm.stop();
  });
}

test("echo: instructions a datagram, received, answered and reclaimed", async (t) => {
  const guest = await bootEcho(t, { accelerator: "tcg", extraArguments: ICOUNT });
  const limit = ALLOWED.echo ?? 0;
  let before = await guest.vm.stats();
  let least = Infinity;
  for (let i = 0; i < ROUNDS && least > limit; i++) {
    await echoLoad(guest, { count: ECHOES, window: WINDOW, frameBytes: () => FRAME_BYTES });
    const after = await guest.vm.stats();
    least = Math.min(least, perFrame("rx", after, before));
    before = after;
  }
  check(t, "echo", least);
  await guest.vm.stop();
});

test.run();
