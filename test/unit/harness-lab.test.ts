// The parts of the host lab that can be seen without booting it, and what becomes of tests that need
// it where there can be none. That it boots, and what it has, test/integration/vhost-net shows.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  assert,
  domainXml,
  EnvironmentError,
  runCommand,
  suite,
  type TestContext,
} from "qemu-test-harness";
import { MODE_DIRECTORY, MODE_FILE, writeCpio } from "../harness/src/lab/cpio";
import { labImage } from "../harness/src/lab/image";
import { labCommand } from "../harness/src/lab/lab";
import { dependenciesOf, loadOrder } from "../harness/src/lab/modules";

const CLI = "test/harness/bin/qemu-test-harness.mjs";
const FIXTURES = "test/harness/fixtures";

const test = suite("harness lab", { timeoutMs: 70_000 });

function scratch(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "harness-lab-"));
  t.cleanup(() => rmSync(directory, { recursive: true }));
  return directory;
}

async function runner(directory: string, ...args: string[]) {
  const outputs = ["--json", join(directory, "r.json"), "--junit", join(directory, "r.xml")];
  const own = ["env", "-u", "QEMU_TEST_HARNESS_RUN", "-u", "QEMU_TEST_HARNESS_GREP"];
  const more = ["--artifacts", join(directory, "artifacts")];
  const argv = [...own, "node", CLI, "run", ...outputs, ...more, ...args];
  const result = await runCommand(argv, { timeoutMs: 60_000 });
  return { ...result, last: result.stdout.trimEnd().split("\n").at(-1) };
}

test("cpio: entries are aligned, sized and ended as the kernel wants them", () => {
  const archive = writeCpio([
    { path: "d", mode: MODE_DIRECTORY },
    { path: "d/file", mode: MODE_FILE, content: Buffer.from("hello") },
  ]);
  assert.is(archive.length % 4, 0);
  const names: string[] = [];
  let at = 0;
  for (let i = 0; i < 3; i++) {
    const field = (index: number) =>
      Number.parseInt(archive.toString("latin1", at + 6 + 8 * index, at + 14 + 8 * index), 16);
    assert.is(archive.toString("latin1", at, at + 6), "070701");
    const [size, nameSize] = [field(6), field(11)];
    names.push(archive.toString("latin1", at + 110, at + 110 + nameSize - 1));
    const content = (at + 110 + nameSize + 3) & ~3;
    if (size > 0) assert.is(archive.toString("latin1", content, content + size), "hello");
    at = (content + size + 3) & ~3;
  }
  assert.equal(names, ["d", "d/file", "TRAILER!!!"]);
  assert.is(at, archive.length);
});

/** What is of interest of a module's file. */
const module = (depends: string) => Buffer.from(`ELF\0license=GPL\0depends=${depends}\0name=x\0`);

test("modules: each after what it depends on, whatever the spelling; a missing one is named", () => {
  const files: Record<string, Buffer> = {
    vhost_net: module("vhost,tun"),
    vhost: module("vhost-iotlb"),
    vhost_iotlb: module(""),
    tun: module(""),
    kvm_amd: module("kvm,ccp"),
  };
  assert.equal(dependenciesOf(module("a,b-c")), ["a", "b-c"]);
  assert.equal(dependenciesOf(Buffer.from("no such word")), []);
  const order = [...loadOrder(["vhost-net", "tun"], (name) => files[name]).keys()];
  assert.equal(order, ["vhost_iotlb", "vhost", "tun", "vhost_net"]);
  assert.throws(() => loadOrder(["kvm_amd"], (name) => files[name]), /has no module kvm:/);
});

test("no apt-get: the lab says what it lacks", async (t) => {
  const directory = scratch(t);
  const script = join(directory, "script");
  writeFileSync(script, "");
  const path = process.env.PATH ?? "";
  t.cleanup(() => {
    process.env.PATH = path;
  });
  const sh = join(directory, "sh");
  await runCommand(["ln", "-s", "/bin/sh", sh]);
  process.env.PATH = directory;
  const outcome = await labImage(join(directory, "lab"), { init: script, guest: script }).then(
    () => undefined,
    (error: unknown) => error,
  );
  assert.instance(outcome, EnvironmentError);
  assert.match((outcome as Error).message, /needs apt-get, to get Debian's kernel/);
});

test("the lab's QEMU gives the host's files for reading only, and the build directory", () => {
  const image = { release: "6.1", kernel: "/k", initramfs: "/i" };
  const command = labCommand("qemu", image, join(process.cwd(), "build/lab/job-x"));
  const shares = command.filter((word) => word.startsWith("local,"));
  assert.match(shares[0] ?? "", /path=\/,.*readonly=on/);
  assert.ok(shares[1]?.includes(`path=${join(process.cwd(), "build")},`));
  assert.ok(command.includes("max,+svm"));
});

test("--no-lab: what this machine lacks is skipped with the reason, and the rest runs", async (t) => {
  if (existsSync("/dev/vhost-net")) t.skip("this machine has vhost-net");
  const result = await runner(scratch(t), "--no-lab", `${FIXTURES}/wants-vhost-net.test.ts`);
  assert.is(result.last, "1 passed, 0 failed, 1 skipped", result.stdout + result.stderr);
  assert.match(result.stdout, /skipped 1: needs (root|\/dev\/vhost-net)/);
});

test("--only: the tests in the file and no others", async (t) => {
  const directory = scratch(t);
  const file = `${FIXTURES}/mixed.test.ts`;
  const only = join(directory, "only.json");
  writeFileSync(only, JSON.stringify({ [file]: ["mixed › passes"] }));
  const result = await runner(directory, "--only", only, file);
  assert.is(result.last, "1 passed, 0 failed, 0 skipped", result.stdout + result.stderr);
  const { counts } = JSON.parse(readFileSync(join(directory, "r.json"), "utf8")) as {
    counts: unknown;
  };
  assert.equal(counts, { passed: 1, failed: 0, skipped: 0 });
});

test("domain XML: each kind of interface, shared memory only for vhost-user, text escaped", () => {
  const common = { name: "a<b", image: "/i", accelerator: "tcg", append: "x='1'" } as const;
  const mac = "52:54:00:00:00:01";
  const tap = { type: "ethernet", target: "v0", mac, driver: "vhost", queues: 4 } as const;
  const one = domainXml({ ...common, consolePath: "/c", interfaces: [{ ...tap, packed: true }] });
  assert.match(one, /<name>a&lt;b<\/name>/);
  assert.match(one, /<cmdline>x=&apos;1&apos;<\/cmdline>/);
  assert.match(one, /<driver name='vhost' queues='4' packed='on'\/>/);
  assert.match(one, /<target dev='v0' managed='no'\/>/);
  assert.not.match(one, /memfd/);
  const two = domainXml({
    ...common,
    consolePath: "/c",
    interfaces: [
      { type: "vhostuser", path: "/s", mode: "server", mac, guest: { tso4: false } },
      { type: "openvswitch", bridge: "br0", target: "t", vlan: 7, mac },
    ],
  });
  assert.match(two, /memfd/);
  assert.match(two, /<source type='unix' path='\/s' mode='server'\/>/);
  assert.match(two, /<guest tso4='off'\/>/);
  assert.match(two, /<virtualport type='openvswitch'\/>.*<tag id='7'\/>/);
});

test.run();
