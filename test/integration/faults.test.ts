// What goes wrong around a guest in operation: a bad network, a machine that is stopped, a link
// that flaps, a backend that does not read, that dies and comes back, or that is taken away, and a
// move to another QEMU. The guest must lose only what was lost on the way, send nothing wrong, and
// go on.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  assert,
  delay,
  FaultLine,
  faultyStream,
  Inbox,
  type LineFrame,
  mustRun,
  Peer,
  parseArp,
  parseEthernet,
  Random,
  REORDER_FRAMES,
  type StatsEvent,
  stream,
  suite,
  sumDrops,
  sumQueues,
  TAP_NAME,
  TYPE_ARP,
  tap,
  udpFrame,
  vhostUser,
} from "qemu-test-harness";
import { bootEcho, ECHO_PORT, echoLoad, GUEST_IP, STATIC_ADDRESS } from "./support";

const READY_MS = 30_000;
const LINE_FRAMES = 2000;
const LINE_SEEDS = 20;
const BAD_FRAMES = 3000;
const BAD_PORT = 31_000;
const SETTLE_MS = 300;
const LOAD = { count: 6000, window: 32, frameBytes: (n: number) => 60 + ((n * 7) % 1400) };
const SEED = 20_261;
/** The guest announces itself when it starts, and once more a little later. */
const BOOT_ANNOUNCEMENTS = 2;

const test = suite("faults", { timeoutMs: 90_000 });

function through(line: FaultLine, frames: readonly Buffer[]): LineFrame[] {
  return [...frames.flatMap((frame) => line.push(frame)), ...line.flush()];
}

function numbered(count: number): Buffer[] {
  return Array.from({ length: count }, (_, number) => {
    const frame = Buffer.alloc(64);
    frame.writeUInt32BE(number);
    return frame;
  });
}

const numbersOf = (items: readonly LineFrame[]) => items.map(({ frame }) => frame.readUInt32BE(0));

test("fault line: without chances every frame passes as it is, in order", () => {
  const frames = numbered(LINE_FRAMES);
  const out = through(new FaultLine(1, {}), frames);
  assert.equal(
    out.map(({ frame }) => frame),
    frames,
  );
  assert.ok(out.every(({ corrupted, delayMs }) => !corrupted && delayMs === 0));
});

test("fault line: each fault does what it says and no more, for any seed", () => {
  const frames = numbered(LINE_FRAMES);
  const order = frames.map((_, number) => number);
  for (let seed = 0; seed < LINE_SEEDS; seed++) {
    const dropping = new FaultLine(seed, { drop: 0.1 });
    const kept = numbersOf(through(dropping, frames));
    assert.is(kept.length + dropping.counts.dropped, LINE_FRAMES);
    assert.ok(kept.every((number, i) => i === 0 || number > (kept[i - 1] ?? 0)));

    const doubling = new FaultLine(seed, { duplicate: 0.1 });
    const doubled = numbersOf(through(doubling, frames));
    assert.is(doubled.length, LINE_FRAMES + doubling.counts.duplicated);
    assert.equal([...new Set(doubled)], order);

    const mixing = new FaultLine(seed, { reorder: 0.1 });
    const mixed = numbersOf(through(mixing, frames));
    assert.ok(mixing.counts.reordered > 0);
    assert.not.equal(mixed, order);
    assert.equal(
      [...mixed].sort((a, b) => a - b),
      order,
    );
    // A frame held back waits for REORDER_FRAMES that pass, and as many may be held meanwhile.
    assert.ok(mixed.every((number, at) => Math.abs(number - at) <= 4 * REORDER_FRAMES));

    const spoiling = new FaultLine(seed, { corrupt: 0.1 });
    for (const [i, { frame, corrupted }] of through(spoiling, frames).entries()) {
      const original = frames[i] ?? Buffer.alloc(0);
      assert.is(differentBits(frame, original), corrupted ? 1 : 0);
      assert.ok(frame.subarray(0, 14).equals(original.subarray(0, 14)));
    }
  }
});

function differentBits(a: Buffer, b: Buffer): number {
  let bits = 0;
  for (let i = 0; i < a.length; i++) {
    for (let x = (a[i] ?? 0) ^ (b[i] ?? 0); x !== 0; x &= x - 1) bits++;
  }
  return bits;
}

test("fault line: the same seed does the same, another one something else", () => {
  const rates = { drop: 0.05, duplicate: 0.05, corrupt: 0.05, reorder: 0.05, delay: 0.01 };
  const run = (seed: number) => through(new FaultLine(seed, rates), numbered(LINE_FRAMES));
  assert.equal(run(7), run(7));
  assert.not.equal(run(7), run(8));
});

test("a bad network: what arrives intact is answered, all else is dropped and counted", async (t) => {
  const net = faultyStream();
  const nics = [{ backend: net }];
  const vm = await t.vm({ append: STATIC_ADDRESS, nics });
  await vm.waitFor("ready", { timeoutMs: READY_MS });
  const peer = new Peer(net);
  const route = await peer.route(GUEST_IP);
  const before = await vm.stats();
  const payloads = new Set<string>();
  let answers = 0;
  let strange = 0;
  peer.onUdp(BAD_PORT, ({ udp }) => {
    answers++;
    if (!payloads.has(udp.payload.toString("hex"))) strange++;
  });
  net.faults(SEED, { drop: 0.05, duplicate: 0.05, corrupt: 0.05, reorder: 0.05, delay: 0.005 });
  const random = new Random(SEED);
  for (let number = 0; number < BAD_FRAMES; number++) {
    const payload = random.bytes(32 + random.below(900));
    payloads.add(payload.toString("hex"));
    const fields = { sourcePort: BAD_PORT, destinationPort: ECHO_PORT, payload };
    await net.send(udpFrame(route, fields));
  }
  const counts = await net.calm();
  t.log(`seed ${SEED}: ${JSON.stringify(counts)}, delivered ${JSON.stringify(net.delivered)}`);
  for (const [fault, count] of Object.entries(counts)) assert.ok(count > 0, `no ${fault}`);
  await peer.ping(GUEST_IP);
  const after = await vm.stats();
  assert.is(answers, net.delivered.intact, "answers and intact frames");
  assert.is(strange, 0, "an answer with a payload that was never sent");
  assert.equal(peer.malformed, []);
  const sum = (stats: StatsEvent) =>
    Object.values(sumDrops(stats, "rx")).reduce((total, count) => total + count, 0);
  const drops = sum(after) - sum(before);
  assert.is(drops, net.delivered.corrupted, JSON.stringify(sumDrops(after, "rx")));
  await vm.stop();
});

test("QEMU stops and goes on again and again under a load: nothing is lost or doubled", async (t) => {
  const guest = await bootEcho(t);
  const load = echoLoad(guest, LOAD);
  let done = false;
  const ended = load.finally(() => {
    done = true;
  });
  let stops = 0;
  while (!done && stops < 20) {
    await guest.vm.qmp.execute("stop");
    await guest.vm.qmp.execute("cont");
    stops++;
    await delay(30);
  }
  await ended;
  t.log(`${stops} stops`);
  assert.ok(stops >= 2, `only ${stops} stops while the load ran`);
  await guest.vm.stop();
});

test("a link that flaps: every change is reported, and afterwards everything is answered", async (t) => {
  const guest = await bootEcho(t);
  const { vm } = guest;
  for (let flap = 0; flap < 10; flap++) {
    for (const up of [false, true]) {
      const event = vm.waitFor("link", { fresh: true, where: (link) => link.up === up });
      await vm.qmp.execute("set_link", { arguments: { name: "net0", up } });
      await event;
    }
  }
  await echoLoad(guest, { ...LOAD, count: 1000 });
  await vm.stop();
});

test("a backend that stops reading: the guest waits, answers its console, and goes on", async (t) => {
  const net = stream();
  const count = 20_000;
  const append = `app=source count=${count} size=1400 dst=02:00:00:00:00:01 ${STATIC_ADDRESS}`;
  // QEMU starts stopped, so that not a frame is read before the pause.
  const vm = await t.vm({ append, nics: [{ backend: net }], extraArguments: ["-S"] });
  await net.pause();
  await vm.qmp.execute("cont");
  await vm.waitFor("ready", { timeoutMs: READY_MS });
  await delay(SETTLE_MS);
  const stalled = sumQueues(await vm.stats(), "tx", "packets");
  await delay(SETTLE_MS);
  assert.is(sumQueues(await vm.stats(), "tx", "packets"), stalled, "the guest sends on");
  assert.ok(stalled < count, `${stalled} frames sent although nobody reads`);
  net.resume();
  const { events } = await vm.finished({ timeoutMs: READY_MS });
  const last = events.filter(({ event }) => event === "stats").at(-1) as unknown as StatsEvent;
  const sent = sumQueues(last, "tx", "packets");
  assert.ok(sent >= count);
  for (let i = 0; net.received < sent && i < 50; i++) await delay(100);
  t.log(`stalled after ${stalled} frames; then ${net.received} of ${sent} arrived`);
  assert.is(net.received, sent);
});

test("packed: QEMU miscounts what it drops at a link flap and gives up; the guest goes on", async (t) => {
  const net = stream();
  const app = "app=source size=1400 dst=02:00:00:00:00:01 watchdog=1";
  // QEMU's own count of what is in use (docs/decisions.md); one that counts right says nothing.
  const stderrAllowed = [/Virtqueue size exceeded/];
  const nics = [{ backend: net, options: { packed: true } }];
  const vm = await t.vm({ append: `${app} ${STATIC_ADDRESS}`, nics, stderrAllowed });
  await vm.waitFor("ready", { timeoutMs: READY_MS });
  const reset = vm.waitFor("error", { where: ({ message }) => /needs a reset/.test(message) });
  const gaveUp = reset.then(
    () => true,
    () => false,
  );
  for (let flap = 0; flap < 5; flap++) {
    for (const up of [false, true]) {
      const event = vm.waitFor("link", { fresh: true, where: (link) => link.up === up });
      await vm.qmp.execute("set_link", { arguments: { name: "net0", up } });
      await event;
    }
  }
  t.log((await gaveUp) ? "QEMU has given up" : "QEMU has counted right");
  const before = net.received;
  for (let i = 0; net.received < before + 2000 && i < 200; i++) await delay(100);
  assert.ok(net.received >= before + 2000, "the guest sends no more");
  await vm.stop();
});

test("a tap that is taken away: the guest lives, and ends when it is told to", async (t) => {
  const net = tap();
  const vm = await t.vm({ append: STATIC_ADDRESS, nics: [{ backend: net }] });
  await vm.waitFor("ready", { timeoutMs: READY_MS });
  const ping = await net.exec(["ping", "-c", "1", "-W", "5", GUEST_IP]);
  assert.is(ping.status, 0, ping.stdout);
  await mustRun([...net.wrapper, "ip", "link", "delete", TAP_NAME]);
  const before = sumQueues(await vm.stats(), "rx", "packets");
  await delay(SETTLE_MS);
  assert.is(sumQueues(await vm.stats(), "rx", "packets"), before);
  await vm.stop();
});

test("a vhost-user backend that crashes and comes back: link down, link up, frames flow", async (t) => {
  const net = vhostUser({ mode: "macswap", reconnect: true });
  const append = `app=source mode=adaptive ${STATIC_ADDRESS} dst=02:00:00:00:00:01 dstip=192.0.2.1`;
  const stderrAllowed = [/vhost/i, /Failed to (read|set|write)/, /Unexpected end-of-file/];
  const vm = await t.vm({ append, nics: [{ backend: net }], stderrAllowed });
  await vm.waitFor("ready", { timeoutMs: READY_MS });
  await net.waitFor(({ rxPackets }) => rxPackets > 10_000, 20_000);
  for (let crash = 0; crash < 3; crash++) {
    const down = vm.waitFor("link", { fresh: true, where: ({ up }) => !up });
    await net.crash();
    await down;
    const up = vm.waitFor("link", { fresh: true, where: (link) => link.up });
    await net.restart();
    await up;
    const before = sumQueues(await vm.stats(), "tx", "packets");
    const seen = await net.waitFor(({ rxPackets }) => rxPackets > 10_000, 20_000);
    const { recoveries, ...after } = await vm.stats();
    assert.ok(sumQueues({ ...after, recoveries }, "tx", "packets") >= before + 10_000 - 256);
    t.log(`crash ${crash}: ${seen.rxPackets} frames since, ${recoveries} recoveries`);
  }
  await vm.stop();
});

/** An ARP by which the guest tells everybody its address. */
function isAnnouncement(bytes: Uint8Array, mac: string): boolean {
  const { type, source, payload } = parseEthernet(Buffer.from(bytes));
  if (type !== TYPE_ARP || source !== mac) return false;
  const { senderIp, targetIp } = parseArp(payload);
  return senderIp === GUEST_IP && targetIp === GUEST_IP;
}

test("migration under a load: the guest announces itself over there, and nothing is corrupted", async (t) => {
  const here = await bootEcho(t);
  const there = stream();
  const vm = await t.vm({
    append: STATIC_ADDRESS,
    nics: [{ backend: there }],
    extraArguments: ["-incoming", "defer"],
  });
  const announcements = new Inbox<string>("an announcement by ARP");
  there.onFrame((frame) => {
    if (isAnnouncement(frame, here.ready.mac)) announcements.push(GUEST_IP);
  });
  // Those that belong to the boot must be over, not to be taken for one that the move asks for.
  const atBoot = () =>
    here.net.recording.frames().filter(({ frame }) => isAnnouncement(frame, here.ready.mac)).length;
  for (let i = 0; atBoot() < BOOT_ANNOUNCEMENTS && i < 100; i++) await delay(100);
  assert.is(atBoot(), BOOT_ANNOUNCEMENTS);
  await echoLoad(here, { ...LOAD, count: 500 });
  const before = await here.vm.stats();
  const directory = mkdtempSync(join(tmpdir(), "harness-migrate-"));
  t.cleanup(() => rmSync(directory, { recursive: true }));
  const uri = `unix:${join(directory, "socket")}`;
  await vm.qmp.execute("migrate-incoming", { arguments: { uri } });
  await here.vm.qmp.execute("migrate", { arguments: { uri } });
  // Traffic while the memory is on its way; what is under way at the switch may be lost.
  for (let number = 0; number < 200; number++) {
    await here.peer.sendUdp(GUEST_IP, ECHO_PORT, Buffer.from(`under way ${number}`));
  }
  await vm.qmp.waitFor("RESUME", READY_MS);
  assert.is(await announcements.next(10_000), GUEST_IP);
  assert.equal(here.peer.malformed, []);
  await here.vm.kill();
  const peer = new Peer(there);
  const after = await vm.stats();
  assert.ok(sumQueues(after, "rx", "packets") >= sumQueues(before, "rx", "packets"));
  assert.is(after.recoveries, before.recoveries);
  await echoLoad({ ...here, vm, net: there, peer }, { ...LOAD, count: 2000 });
  await vm.stop();
});

test.run();
