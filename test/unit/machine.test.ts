// What the guest makes of different machines: firmware tables, configuration space, memory.

import { assert, suite } from "qemu-test-harness";
import { makeGuest, STATIC_IP, startGuest } from "../model/guest";

const test = suite("machine");

const payload = Buffer.from("any machine will do");

for (const root of ["rsdt", "xsdt"] as const) {
  test(`ACPI: ${root} and MCFG lead to the device`, (t) => {
    const guest = startGuest(t, { acpi: { root, ecam: "mcfg" } });
    assert.equal(guest.echo(payload), payload);
  });
}

test("ACPI: the root pointer is found in ROM when the loader does not tell", (t) => {
  const guest = startGuest(t, { tellsRoot: false });
  assert.is(guest.machine.console.all("warning").length, 0);
  assert.equal(guest.echo(payload), payload);
});

test("PCI: without MCFG the ports lead to the device", (t) => {
  const guest = startGuest(t, { acpi: { root: "xsdt", ecam: "none" } });
  assert.equal(guest.echo(payload), payload);
});

test("PCI: BARs that firmware left empty get addresses, ECAM is found through _CBA", (t) => {
  const acpi = { root: "rsdt", ecam: "cba" } as const;
  const guest = startGuest(t, { acpi, net: { hasFirmware: false } });
  assert.equal(guest.echo(payload), payload);
});

test("PCI: the transitional device id is bound as well", (t) => {
  const guest = startGuest(t, { net: { deviceId: 0x1000 } });
  assert.is(guest.machine.console.find("device")?.device, "1000");
  assert.equal(guest.echo(payload), payload);
});

test("no ACPI tables: one warning, and the device works all the same", (t) => {
  const guest = startGuest(t, { acpi: "none" });
  assert.is(guest.machine.console.all("warning").length, 1);
  assert.equal(guest.echo(payload), payload);
});

for (const memoryMib of [8, 16, 64, 512]) {
  test(`memory: ${memoryMib} MiB carry traffic`, (t) => {
    const guest = startGuest(t, { memoryMib, net: { rxSize: 1024, txSize: 1024 } });
    assert.is(guest.machine.console.find("boot")?.memory_mib, memoryMib);
    assert.equal(guest.echo(payload), payload);
  });
}

test("memory: too little is an error that says how much is needed, and status 35", (t) => {
  const guest = makeGuest(t, { memoryMib: 5 });
  guest.machine.boot();
  const [message = ""] = guest.errors();
  assert.match(message, /too little memory/);
  const error = guest.machine.console.find("error");
  assert.is(error?.usable_kib, 5 << 10);
  assert.is(error?.needed_kib, 6 << 10);
  assert.is(guest.exitStatus(), 35);
});

test("memory: too little for this number of CPUs", (t) => {
  const guest = makeGuest(t, { memoryMib: 16, cpus: 4 });
  guest.machine.boot();
  assert.equal(guest.errors(), ["too little memory for this number of CPUs"]);
  assert.is(guest.exitStatus(), 35);
});

for (const cpus of [1, 2, 4]) {
  test(`memory: ${cpus} vCPUs stay within their shares`, (t) => {
    const guest = startGuest(t, { cpus, memoryMib: 64 });
    const arenas = guest.machine.cpus.map(({ arena }) => arena);
    const limits = [...arenas.slice(1).map(({ base }) => base), guest.machine.memoryEnd];
    arenas.forEach(({ base, bytes }, index) => {
      const share = (limits[index] ?? 0) - base;
      assert.ok(bytes <= share, `CPU ${index} has ${bytes} bytes of ${share}`);
    });
  });
}

test("memory: after boot nothing is allocated, whatever happens", (t) => {
  const guest = startGuest(t, { commandLine: `${STATIC_IP} stats=1` });
  const { arena } = guest.machine.bootCpu;
  const before = arena.bytes;
  for (let i = 0; i < 100; i++) guest.echo(Buffer.alloc(i));
  guest.nic.setLink(false);
  guest.settle();
  guest.nic.setLink(true);
  guest.nic.pci.needReset();
  guest.settle();
  guest.machine.console.type("help");
  guest.stats();
  assert.is(arena.bytes, before);
  assert.equal(guest.errors(), ["the device needs a reset"]);
});

test.run();
