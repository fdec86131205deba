// The host lab as a command: what runs in it, with which status, and that what it wrote outside the
// build directory stayed there. What it has for guests, the tests show that run in it.

import { existsSync } from "node:fs";
import { assert, inLab, prepareLab, runCommand, suite } from "qemu-test-harness";

const CLI = "test/harness/bin/qemu-test-harness.mjs";
const MARK = "/etc/written-in-the-lab";

const test = suite("harness lab", { timeoutMs: 300_000 });

test("lab -- command: the lab's kernel and devices, the command's output and status", async (t) => {
  if (inLab()) t.skip("a lab in the lab would have no KVM to give");
  const reason = await prepareLab().then(
    () => undefined,
    (error: Error) => error.message,
  );
  if (reason !== undefined) t.skip(reason);
  const script = `uname -r; ls /dev/kvm /dev/vhost-net /sys/module/openvswitch/refcnt; : >${MARK}; exit 7`;
  const own = ["env", "-u", "QEMU_TEST_HARNESS_RUN", "-u", "QEMU_TEST_HARNESS_GREP"];
  const argv = [...own, process.execPath, CLI, "lab", "--", "sh", "-c", script];
  const { status, stdout, stderr } = await runCommand(argv, { timeoutMs: 280_000 });
  t.log(stderr.trim());
  assert.is(status, 7, stdout + stderr);
  const [release = "", ...files] = stdout.trim().split(/\s+/);
  assert.match(stderr, new RegExp(`^lab: Linux ${release}, up in [\\d.]+ s, with .*vhost_net`));
  assert.equal(files, ["/dev/kvm", "/dev/vhost-net", "/sys/module/openvswitch/refcnt"]);
  assert.not.ok(existsSync(MARK), "the lab has written into this machine");
});

test.run();
