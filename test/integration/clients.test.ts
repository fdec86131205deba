// Programs that people use against a guest: iperf3, socat, and tcpdump as an independent judge of
// every frame. (ping, arping and nc are in tap.test.ts.)

import {
  assert,
  type DeviceOptions,
  delay,
  HarnessError,
  Inbox,
  lineSplitter,
  startProcess,
  suite,
  sumQueues,
  TAP_NAME,
  type TapBackend,
  type TestContext,
  tap,
} from "qemu-test-harness";
import { sameCounts } from "./counters";
import { GUEST_IP, STATIC_ADDRESS } from "./support";

const READY_MS = 30_000;
const LINE_MS = 15_000;
const IPERF_SECONDS = 4;
const HOST_IP = "192.0.2.1";

const test = suite("clients", { timeoutMs: 60_000 });

async function boot(t: TestContext, app: string, options: DeviceOptions = {}) {
  const net = tap();
  const vm = await t.vm({ append: `${app} ${STATIC_ADDRESS}`, nics: [{ backend: net, options }] });
  const { mac } = await vm.waitFor("ready", { timeoutMs: READY_MS });
  await run(net, "ip", "neigh", "replace", GUEST_IP, "lladdr", mac, "dev", TAP_NAME);
  return { net, vm };
}

async function run(net: TapBackend, ...argv: string[]): Promise<string> {
  const { status, stdout, stderr } = await net.exec(argv, { timeoutMs: 20_000 });
  if (status !== 0) throw new HarnessError(`${argv.join(" ")} ended with ${status}: ${stderr}`);
  return stdout;
}

/** Starts a program in the namespace; `line` waits for one of its lines. */
function start(t: TestContext, net: TapBackend, argv: readonly string[]) {
  const [program = "", ...args] = [...net.wrapper, ...argv];
  const started = startProcess(program, args);
  t.cleanup(() => started.stop());
  const inbox = new Inbox<string>(`a line of ${argv[0]}`);
  const all: string[] = [];
  const take = lineSplitter((text) => {
    all.push(text);
    inbox.push(text);
  });
  started.child.stdout?.on("data", take);
  started.child.stderr?.on("data", take);
  const line = (pattern: RegExp) => inbox.next(LINE_MS, (text) => pattern.test(text));
  return { process: started, all, line };
}

test("iperf3 -u into the sink: the guest counts what the tap has sent", async (t) => {
  const { net, vm } = await boot(t, "app=sink");
  // iperf3 wants a server to speak to by TCP and to greet by UDP, and the guest has no TCP. Until
  // iperf3 has its connections, this side has the guest's address as well; then it gives it back,
  // and the datagrams go where they should.
  const own = [`${GUEST_IP}/32`, "dev", "lo"];
  await run(net, "ip", "address", "add", ...own);
  const server = start(t, net, ["iperf3", "-s", "-1", "-B", GUEST_IP, "--forceflush"]);
  await server.line(/listening/);
  const load = ["-u", "-b", "20M", "-l", "1400", "-t", "60", "-i", "1", "--forceflush"];
  const client = start(t, net, ["iperf3", "-c", GUEST_IP, "-B", HOST_IP, ...load]);
  await client.line(new RegExp(`local ${HOST_IP} port \\d+ connected to ${GUEST_IP}`));
  await run(net, "ip", "address", "del", ...own);
  let sent = 0;
  for (let second = 0; second < IPERF_SECONDS; second++) {
    const line = await client.line(/sec .*bits\/sec +\d+/);
    sent += Number(/bits\/sec +(\d+)/.exec(line)?.[1]);
  }
  await client.process.stop();
  const received = sumQueues(await sameCounts(net, vm), "rx", "packets");
  t.log(`iperf3 sent ${sent} datagrams, the guest took ${received}`);
  assert.ok(sent > 1000, client.all.join("\n"));
  // What went before the address was given back never left this side.
  assert.ok(received > sent / 2, `${received} of ${sent}`);
  await vm.stop();
});

test("socat: a file goes through the echo and comes back as it was", async (t) => {
  const { net, vm } = await boot(t, "app=echo");
  const text = Buffer.alloc(64_000, "all work and no play makes a dull guest\n");
  // Datagram by datagram: socat reads 1,000 bytes, sends them, and takes the answer.
  const argv = ["socat", "-t", "2", "-b", "1000", "-", `UDP4:${GUEST_IP}:7`];
  const { stdout, stderr } = await net.exec(argv, { input: text, timeoutMs: 20_000 });
  assert.is(stderr, "");
  assert.is(stdout.length, text.length);
  assert.ok(Buffer.from(stdout).equals(text), "socat got other bytes back");
  await vm.stop();
});

test("tcpdump finds every frame of the guest well-formed, with right checksums", async (t) => {
  // Otherwise the guest leaves checksums to the host, and tcpdump sees them before they are there.
  const { net, vm } = await boot(t, "app=echo", { csum: false });
  const tcpdump = start(t, net, ["tcpdump", "-i", TAP_NAME, "-Q", "in", "-vv", "-nn", "-l"]);
  await tcpdump.line(/listening on/);
  await run(net, "ping", "-c", "3", "-i", "0.2", "-s", "700", GUEST_IP);
  await run(net, "arping", "-c", "1", "-I", TAP_NAME, GUEST_IP);
  const nc = await net.exec(["nc", "-u", "-w1", GUEST_IP, "7"], { input: "seen by tcpdump\n" });
  assert.is(nc.stdout, "seen by tcpdump\n");
  await tcpdump.line(/192\.0\.2\.2\.7 > .*udp sum ok|192\.0\.2\.2\.7 > .*no cksum/);
  await delay(100);
  const said = tcpdump.all.join("\n");
  assert.match(said, /192\.0\.2\.2 > 192\.0\.2\.1: ICMP echo reply/);
  assert.match(said, /Reply 192\.0\.2\.2 is-at/);
  assert.not.match(said, /bad |wrong |truncated|malformed|incorrect|invalid/i);
  await vm.stop();
});

test.run();
