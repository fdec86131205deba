// What the harness says when the machine is not as it should be: one clear line, and a status that
// is not zero; or, where something would seem to work although it does not, a failure.

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import {
  assert,
  type Backend,
  commandLine,
  runCommand,
  stream,
  suite,
  type TestContext,
  Vm,
  vhostUser,
} from "qemu-test-harness";
import { STATIC_ADDRESS } from "./support";

const CLI = "test/harness/bin/qemu-test-harness.mjs";
const STATUS_ENVIRONMENT = 3;

const test = suite("harness environment", { timeoutMs: 60_000 });

/** Runs the command line with other programs before the machine's own, or with none of them. */
async function harness(path: string, ...args: string[]) {
  const own = ["-u", "QEMU_TEST_HARNESS_RUN", "-u", "QEMU_TEST_HARNESS_GREP", `PATH=${path}`];
  return runCommand(["env", ...own, process.execPath, CLI, ...args], { timeoutMs: 30_000 });
}

function fakeQemu(t: TestContext, answer: string): string {
  const directory = mkdtempSync(join(tmpdir(), "harness-fake-"));
  t.cleanup(() => rmSync(directory, { recursive: true }));
  const program = join(directory, "qemu-system-x86_64");
  writeFileSync(program, `#!/bin/sh\necho '${answer}'\n`);
  chmodSync(program, 0o755);
  return directory;
}

function oneLine(text: string): string {
  const lines = text.trimEnd().split("\n");
  assert.is(lines.length, 1, text);
  return lines[0] ?? "";
}

test("no QEMU: one line says what to install, status 3", async (t) => {
  // A directory with a shell and node, and nothing else.
  const directory = mkdtempSync(join(tmpdir(), "harness-path-"));
  t.cleanup(() => rmSync(directory, { recursive: true }));
  for (const name of ["sh", "env"]) await runCommand(["ln", "-s", `/bin/${name}`, directory]);
  const { status, stderr } = await harness(directory, "probe");
  assert.match(oneLine(stderr), /qemu-system-x86_64 not found: install it/);
  assert.is(status, STATUS_ENVIRONMENT);
});

test("a QEMU that does not name its version: one line, status 3", async (t) => {
  const path = `${fakeQemu(t, "I am not QEMU")}:${process.env.PATH}`;
  const { status, stderr } = await harness(path, "probe");
  assert.match(oneLine(stderr), /does not name a version: reinstall QEMU/);
  assert.is(status, STATUS_ENVIRONMENT);
});

/** A command as a user who owns nothing. */
function asNobody(...argv: string[]) {
  const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
  const own = ["env", "-u", "QEMU_TEST_HARNESS_RUN", "-u", "QEMU_TEST_HARNESS_GREP"];
  return runCommand([...nobody, ...own, process.execPath, ...argv], { timeoutMs: 30_000 });
}

test("no permission to write below build: one line, status 3", async (t) => {
  if (process.getuid?.() !== 0) t.skip("needs root, to become somebody else");
  const { status, stdout, stderr } = await asNobody(CLI, "list");
  assert.match(oneLine(stderr), /cannot be bundled: .*permission denied/);
  assert.is(stdout, "");
  assert.is(status, STATUS_ENVIRONMENT);
});

test("no permission to make a tap: the reason is one line, and nothing was proved", async (t) => {
  if (process.getuid?.() !== 0) t.skip("needs root, to become somebody else");
  await harness(process.env.PATH ?? "", "list", "test/harness/fixtures");
  const bundle = JSON.stringify(resolve("build/harness/cli.mjs"));
  const directory = mkdtempSync(join(tmpdir(), "harness-nobody-"));
  t.cleanup(() => rmSync(directory, { recursive: true }));
  chmodSync(directory, 0o777);
  const words = ["matrix", "--backend", "tap", "--state", join(directory, "state.json")];
  const script = `const { main } = await import(${bundle}); process.exit(await main(${JSON.stringify(words)}));`;
  const { status, stdout } = await asNobody("--input-type=module", "-e", script);
  assert.is(
    stdout,
    "tap: skipped, needs root, to make a network namespace\n0 proved, 0 failed, 96 skipped\n",
  );
  assert.is(status, 1);
});

test("QEMU 7.2: tests with vhost-user are skipped, and the reason says which QEMU is needed", async (t) => {
  const path = `${fakeQemu(t, "QEMU emulator version 7.2.15")}:${process.env.PATH}`;
  const json = join(dirname(path.split(":")[0] ?? ""), "harness-fake.json");
  t.cleanup(() => rmSync(json, { force: true }));
  const outputs = ["--json", json, "--junit", `${json}.xml`, "--artifacts", `${json}.d`];
  t.cleanup(() => rmSync(`${json}.xml`, { force: true }));
  const file = "test/integration/vhost-user.test.ts";
  const { status, stdout } = await harness(path, "run", ...outputs, file);
  assert.match(stdout, /skipped 2: vhost-user: (QEMU 7\.2\.15 may crash|needs dpdk-testpmd)/);
  // A run in which nothing passes is no success.
  assert.is(status, 1);
});

test("a port that is in use: the start rejects with QEMU's own words", async (t) => {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  t.cleanup(() => {
    server.close();
  });
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const socket = `socket,id=taken,host=127.0.0.1,port=${port},server=on,wait=off`;
  const message = await t.vm({ extraArguments: ["-chardev", socket] }).then(
    () => "it started",
    (error: Error) => error.message,
  );
  assert.match(message, /Address already in use/);
});

/** The backend as it is, but without the memory that its other side has to see. */
function withoutSharedMemory(backend: Backend): Backend {
  return new Proxy(backend, {
    get: (target, property) => {
      if (property === "sharedMemory") return false;
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

test("vhost-user without shared memory is a failure, although the guest would run", async (t) => {
  const net = vhostUser({ mode: "rxonly" });
  const reason = await net.available();
  if (reason !== undefined) t.skip(reason);
  const append = `app=source count=100 dst=02:00:00:00:00:01 ${STATIC_ADDRESS}`;
  const nics = [{ backend: withoutSharedMemory(net) }];
  assert.not.ok(commandLine("qemu", "tcg", "qmp", { nics }).join(" ").includes("share=on"));
  const outcome = await Vm.start({ append, nics }).then(
    async (vm) => {
      t.cleanup(() => vm.kill());
      return vm.finished({ timeoutMs: 20_000 }).then(
        () => "it passes",
        (error: Error) => error.message,
      );
    },
    (error: Error) => error.message,
  );
  t.log(outcome.split("\n").slice(0, 2).join(" "));
  assert.match(outcome, /standard error says|has ended with/);
});

test("a guest that ends well but without its last event is a failure", async (t) => {
  // Status 33 comes from whoever writes 0x10 to port 0xf4: here QEMU's monitor does, for the guest.
  const vm = await Vm.start({ append: STATIC_ADDRESS, nics: [{ backend: stream() }] });
  t.cleanup(() => vm.kill());
  await vm.waitFor("ready");
  const ended = vm.finished({ timeoutMs: 10_000 }).then(
    () => "it passes",
    (error: Error) => error.message,
  );
  // QEMU is gone before it can answer.
  const command = { "command-line": "o /b 0xf4 0x10" };
  await vm.qmp.execute("human-monitor-command", { arguments: command }).catch(() => undefined);
  assert.match(await ended, /the last event is not 'exit'/);
});

test.run();
