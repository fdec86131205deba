// The harness's parts that need no QEMU: captures, queues with deadlines, console events, QEMU's
// command line and version.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  assert,
  commandLine,
  Inbox,
  parseEvent,
  printable,
  Recording,
  readPcap,
  runCommand,
  stream,
  suite,
  writePcap,
} from "qemu-test-harness";
import { EventLog } from "../harness/src/event-log";
import { lineSplitter } from "../harness/src/lines";
import { parseVersion, vhostUserUnavailable } from "../harness/src/qemu";

const test = suite("harness parts");

const line = (event: string, fields: object = {}) =>
  JSON.stringify({ event, us: 1, cpu: 0, ...fields });

async function rejection(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  throw new Error("the promise was expected to reject");
}

test("pcap: round trip, and a cut file is refused", () => {
  const frames = [
    { timeNs: 1_700_000_000_123_456_789n, frame: Buffer.from("first") },
    { timeNs: 1_700_000_001_000_000_001n, frame: Buffer.alloc(0) },
  ];
  const file = writePcap(frames);
  assert.equal(readPcap(file), frames);
  assert.throws(() => readPcap(file.subarray(0, file.length - 1)), /cut/);
  assert.throws(() => readPcap(Buffer.alloc(24)), /not a little-endian/);
});

test("pcap: tcpdump reads what we write", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "harness-pcap-"));
  t.cleanup(() => rmSync(directory, { recursive: true }));
  const path = join(directory, "f.pcap");
  writeFileSync(path, writePcap([{ timeNs: 1_000_000_000n, frame: Buffer.alloc(60, 0xff) }]));
  const result = await runCommand(["tcpdump", "-r", path, "-nn", "-e"]);
  if (result.status === 127) t.skip("tcpdump is not installed");
  assert.match(result.stdout, /ff:ff:ff:ff:ff:ff > ff:ff:ff:ff:ff:ff/);
});

test("a recording keeps the last frames in order", () => {
  const recording = new Recording(3);
  for (let i = 0; i < 5; i++) recording.add(Buffer.from([i]));
  assert.equal(
    recording.frames().map(({ frame }) => frame[0]),
    [2, 3, 4],
  );
});

test("inbox: order, selection, deadline, bound and end", async () => {
  const inbox = new Inbox<number>("a number", 3);
  for (let i = 0; i < 5; i++) inbox.push(i);
  assert.is(inbox.dropped, 2);
  assert.is(await inbox.next(10, (n) => n === 3), 3);
  assert.is(await inbox.next(10), 2);
  assert.is(await inbox.next(10), 4);
  assert.match(await rejection(inbox.next(10)), /within 10 ms: a number/);
  const late = inbox.next(1000);
  inbox.push(9);
  assert.is(await late, 9);
  const open = rejection(inbox.next(1000));
  inbox.close(new Error("closed"));
  assert.is(await open, "closed");
});

test("lines are cut at line ends only, also inside a character", () => {
  const lines: string[] = [];
  const take = lineSplitter((text) => lines.push(text));
  for (const byte of Buffer.from("a\u00e9b\r\nsecond\nrest")) take(Buffer.from([byte]));
  assert.equal(lines, ["a\u00e9b", "second"]);
  take.end();
  assert.is(lines.at(-1), "rest");
});

test("events: well-formed objects only", () => {
  assert.is(parseEvent(line("boot"))?.event, "boot");
  const bad = ["", "SeaBIOS", "{", "[]", '{"event":"boot"}', '{"event":1,"us":1,"cpu":0}'];
  for (const text of bad) assert.is(parseEvent(text), undefined);
});

test("event log: firmware noise before the first event is kept, noise after it fails", async () => {
  const failures: Error[] = [];
  const log = new EventLog((error) => failures.push(error));
  log.add("SeaBIOS (version 1)");
  log.add(line("boot"));
  assert.is((await log.waitFor("boot")).event, "boot");
  assert.is(failures.length, 0);
  const wait = rejection(log.waitFor("ready"));
  log.add("{noise");
  assert.match(await wait, /no event: \{noise/);
  assert.is(failures.length, 1);
  assert.is(log.lines.length, 3);
});

test("event log: an unasked error rejects other waits, and is found by name later", async () => {
  const log = new EventLog(() => undefined);
  const wait = rejection(log.waitFor("ready", { timeoutMs: 5000 }));
  log.add(line("error", { message: "no such key" }));
  assert.match(await wait, /no such key/);
  assert.match(await rejection(log.waitFor("ready")), /no such key/);
  assert.is(log.unclaimed()?.event, "error");
  assert.is((await log.waitFor("error")).message, "no such key");
  assert.is(log.unclaimed(), undefined);
});

test("event log: fresh waits ignore the past; the end rejects with the tail", async () => {
  const log = new EventLog(() => undefined);
  log.add(line("stats", { nic: 0 }));
  assert.match(await rejection(log.waitFor("stats", { fresh: true, timeoutMs: 10 })), /within 10/);
  const wait = rejection(log.waitFor("ready"));
  log.end("QEMU has ended with status 1");
  assert.match(await wait, /status 1\nthe console ends:\n.*"stats"/);
  assert.match(await rejection(log.waitFor("ready")), /ended without 'ready'/);
});

test("event log: the iterator yields all events and ends with QEMU", async () => {
  const log = new EventLog(() => undefined);
  log.add(line("boot"));
  setTimeout(() => log.add(line("ready")), 5);
  setTimeout(() => log.end("over"), 10);
  const seen: string[] = [];
  for await (const { event } of log.iterate(1000)) seen.push(event);
  assert.equal(seen, ["boot", "ready"]);
});

test("QEMU's version is read, and old ones are refused for vhost-user", () => {
  const debian12 = parseVersion("/q", "QEMU emulator version 7.2.15 (Debian 1:7.2+dfsg-7)");
  assert.is(debian12.version, "7.2.15");
  assert.match(vhostUserUnavailable(debian12) ?? "", /bookworm-backports/);
  const newer = parseVersion("/q", "QEMU emulator version 10.0.2 (Debian)");
  assert.is(vhostUserUnavailable(newer), undefined);
  const first = parseVersion("/q", "QEMU emulator version 8.2.0");
  assert.is(vhostUserUnavailable(first), undefined);
  assert.throws(() => parseVersion("/q", "nonsense"), /reinstall/);
});

test("events: an error that is allowed ends no wait; another one, and a panic, do", async () => {
  const log = new EventLog(() => undefined, [/^receive queue: /]);
  const ready = log.waitFor("ready");
  log.add(line("error", { message: "receive queue: the used index jumped" }));
  assert.is(log.unclaimed(), undefined);
  log.add(line("ready"));
  await ready;
  for (const fatal of ["error", "panic"]) {
    const other = new EventLog(() => undefined, [/^receive queue: /]);
    const waiting = rejection(other.waitFor("ready"));
    const message = fatal === "panic" ? "receive queue: jumped" : "the receive queue: jumped";
    other.add(line(fatal, { message }));
    assert.match(await waiting, /the guest reports/);
    assert.is(other.unclaimed()?.event, fatal);
  }
});

test("the command line has the machine, the device's properties and quotes for a shell", () => {
  const nics = [{ backend: stream(), options: { mrg_rxbuf: false, rx_queue_size: 1024 } }];
  const append = "ip=192.0.2.2/24 app=echo";
  const words = commandLine("/q", "tcg", "/s", { machine: "microvm", nics, append, image: "i" });
  assert.ok(words.includes("microvm,pcie=on"));
  assert.ok(words.includes("virtio-net-pci,netdev=net0,romfile=,mrg_rxbuf=off,rx_queue_size=1024"));
  assert.match(printable(words), /-append 'ip=192.0.2.2\/24 app=echo'$/);
});

test("a program that does not exist, and one that outlives its deadline", async () => {
  assert.is((await runCommand(["no-such-program-here"])).status, 127);
  assert.match(
    await rejection(runCommand(["sleep", "60"], { timeoutMs: 50 })),
    /'sleep 60' runs on/,
  );
});

test.run();
