// What hostile cases have found in the driver, one test each, named after the clause; and the cases
// of the corpus, which found something once or reach what others do not.

import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, suite } from "qemu-test-harness";
import { findTests } from "../../tools/conformance-catalogue";
import { startGuest } from "../model/guest";
import { MODULE } from "../model/machine/machine";
import { type FeatureName, featureSet } from "../model/virtio/features";
import { Benches } from "./benches";
import type { Attack, AttackKind, Setup } from "./cases";
import { CORPUS, readCorpus } from "./corpus";
import { openModule } from "./open-module";
import { makeSetup } from "./setups";

const test = suite("hostile regressions", { timeoutMs: 60_000 });

const RUNNER = "test/harness/bin/qemu-test-harness.mjs";
/** More machine calls than a bring-up has. */
const CALLS_MAX = 399;

function step(kind: AttackKind, moment = 0, a = 0, b = 0, c = 0): Attack {
  return { kind, moment, a, b, c };
}

for (const setup of ["merging", "control", "pairs"] as const satisfies readonly Setup[]) {
  test(`§2.1.2: DEVICE_NEEDS_RESET at any machine call of a recovery, ${setup}`, () => {
    const bench = new Benches(openModule(MODULE)).of(setup);
    const wrong: string[] = [];
    for (let call = 1; call <= CALLS_MAX; call++) {
      const attacks = [step("status", call), step("status")];
      const { ended, faults } = bench.run({ setup, attacks });
      if (faults.length > 0 || ended) wrong.push(`call ${call}: ${ended}, ${faults.join()}`);
    }
    assert.equal(wrong, []);
  });
}

/** What was told to the device, and which features it lacks after its reset. */
const FORGOTTEN: readonly (readonly [string, readonly FeatureName[]])[] = [
  ["vlan add 5", ["ctrl_vlan"]],
  ["rx promiscuous on", ["ctrl_rx", "ctrl_rx_extra"]],
  ["rx nobcast on", ["ctrl_rx_extra"]],
  ["mac set 52:54:00:12:34:57", ["ctrl_mac_addr"]],
  ["mac table 52:54:00:00:00:07 -", ["ctrl_rx", "ctrl_rx_extra"]],
  ["offloads +guest_tso4", ["guest_tso4"]],
  ["offloads -guest_uso4", ["ctrl_guest_offloads"]],
  ["coal rx 50 8", ["notf_coal"]],
  ["coal vq 0 20 4", ["vq_notf_coal"]],
];

for (const [line, gone] of FORGOTTEN) {
  test(`§5.1.9.5: '${line}' is not told again without ${gone.join()} on offer`, () => {
    const guest = makeSetup("control", openModule(MODULE)).start();
    guest.machine.console.type(line);
    const { console } = guest.machine;
    guest.until(() => console.find("control") !== undefined, "the command is carried out");
    assert.is(console.find("control")?.result, "ok");
    // They are read 32 at a time, the lower ones first.
    const masks = [0n, 32n].map((at) => Number((featureSet(gone) >> at) & 0xffff_ffffn));
    let select = 0;
    guest.nic.pci.tamper = (name, value) => {
      if (name !== "device_feature") return value;
      const mask = masks[select++ % masks.length] ?? 0;
      return (value & ~mask) >>> 0;
    };
    guest.nic.pci.needReset();
    guest.settle();
    assert.equal(guest.errors(), ["the device needs a reset"]);
    for (const name of gone) assert.is(guest.nic.accepts(name), false, name);
    assert.equal(guest.problems(), []);
  });
}

for (const [line] of FORGOTTEN) {
  test(`§5.1.9.5: '${line}' is told again as it was said, whatever the device writes into it`, () => {
    const guest = makeSetup("control", openModule(MODULE)).start();
    const { console, ram } = guest.machine;
    const { control } = guest.nic;
    let last = { address: 0, bytes: 0 };
    ram.onAccess = (address, bytes) => {
      last = { address, bytes };
    };
    // What the device has read last before it answers is the command.
    control.tamper = (_, usual) => {
      const arena = ram.find(last.address, last.bytes, "the command");
      const start = last.address - arena.base;
      arena.array.fill(0xee, start, start + last.bytes);
      return usual;
    };
    console.type(line);
    guest.until(() => console.find("control") !== undefined, "the command is carried out");
    control.tamper = undefined;
    const [said] = control.commands.splice(0);
    guest.nic.pci.needReset();
    guest.settle();
    const again = control.commands.filter(
      (one) => one.class === said?.class && one.command === said.command,
    );
    assert.ok(said !== undefined && again.length > 0, "it is told again");
    for (const one of again) assert.equal(one.data, said?.data);
    assert.equal(guest.errors(), ["the device needs a reset"]);
    assert.equal(guest.problems(), []);
  });
}

for (const txSize of [16, 64]) {
  for (const app of ["sink", "idle"]) {
    test(`§2.7.7: ${app} with a transmit ring of ${txSize} sleeps on packets that were sent`, (t) => {
      const net = { rxSize: 64, txSize };
      const guest = startGuest(t, { commandLine: `app=${app} ip=192.0.2.2/24`, net });
      guest.settle();
      guest.machine.run(() => false, { us: 3_000_000 });
      const { steps } = guest.machine.bootCpu;
      guest.machine.run(() => false, { us: 1_000_000 });
      const woken = guest.machine.bootCpu.steps - steps;
      assert.ok(woken <= 5, `${woken} steps in a second with nothing to do`);
    });
  }
}

test("an announcement that the ring had no room for is not a buffer that nobody had", () => {
  const attacks = [step("command", 0, 3), step("frames", 0, 0, 19)];
  const { faults } = new Benches(openModule(MODULE)).run({ setup: "control", attacks });
  assert.equal(faults, []);
});

const F_MARKS = 0x8080;

for (const setup of ["packed", "packed_ordered"] as const) {
  for (const count of [1, 3]) {
    test(`§2.8.22: ${count} used where nothing is outstanding are a fault, ${setup}`, () => {
      const guest = makeSetup(setup, openModule(MODULE)).start();
      guest.settle();
      const before = guest.stats().queues[0]?.pool_free;
      const { packed, queue } = guest.nic.live("tx");
      // All that an honest descriptor would say of these slots, of which none was offered.
      for (let i = 0; i < count; i++) {
        const { slot, wrap } = packed.used.plus(i);
        packed.lieInSlot(slot, slot, 0, wrap ? F_MARKS : 0);
      }
      guest.nic.pci.interruptQueue(queue);
      guest.settle();
      assert.equal(guest.errors(), ["transmit queue: a used id is not outstanding"]);
      assert.is(guest.echo(Buffer.from("again")).toString(), "again");
      assert.is(guest.stats().queues[0]?.pool_free, before);
      assert.equal(guest.problems(), []);
    });
  }
}

for (const setup of ["merging", "offloads"] as const) {
  test(`§5.1.9.4: a merged buffer of no bytes is no piece of what is sent on, ${setup}`, () => {
    // num_buffers is 2, and the device has written nothing into the second buffer.
    const attacks = [step("header", 0, 1707, 2), step("offload"), step("use")];
    assert.equal(new Benches(openModule(MODULE)).run({ setup, attacks }).faults, []);
  });
}

/** Every bug of the driver that was found so far, by its clause, and the tests that would find it again. */
const FOUND: readonly (readonly [string, string])[] = [
  ["§2.1.2", "hostile regressions › §2.1.2: *"],
  ["§2.6.1", "queue reset › half of a merged packet is let go of with its queue"],
  ["§2.7.7", "hostile regressions › §2.7.7: *"],
  ["§2.7.14", "lane changes › echo with a full ring of * sleeps, and wakes when there is room, *"],
  ["§2.8.4", "packed details › a device that never sets WRITE in used descriptors*"],
  [
    "§2.8.10",
    "clauses packed › §2.8.16: a place * slots behind is answered by a notification at once",
  ],
  ["§2.8.14", "packed ring › *: a source that sleeps when the ring is full is woken every time"],
  ["§2.8.22", "hostile regressions › §2.8.22: *"],
  ["§5.1.9.2.1", "offloads, receiving › hdr_len is not trusted*"],
  ["§5.1.9.4", "hostile regressions › §5.1.9.4: *"],
  ["§5.1.9.4.4", "hash report › a used length of *, less than the header, is dropped and counted"],
  ["§5.1.9.5", "hostile regressions › §5.1.9.5: *"],
  ["§5.1.9.5", "control faults › §5.1.9.5: *"],
  ["§5.1.9.5.4", "control races › an announcement asked for *"],
  ["§5.1.9.5.6.1", "lane changes › what had come in before its lane was paused is answered*"],
  ["§5.1.9.5.10", "* › coalescing of single queues is back when their pairs are in use again"],
];

test("every bug that was found has its test", () => {
  const folder = mkdtempSync(join(tmpdir(), "vireo-tests-"));
  try {
    // Into a file: a process that ends at once may lose what it has written to a pipe.
    const path = join(folder, "tests.txt");
    const list = openSync(path, "w");
    const args = [RUNNER, "list", "test/unit", "test/hostile"];
    const env = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !name.startsWith("QEMU_TEST_HARNESS_")),
    );
    const { status } = spawnSync(process.execPath, args, { stdio: ["ignore", list, "pipe"], env });
    closeSync(list);
    assert.is(status, 0);
    const names = readFileSync(path, "utf8")
      .split("\n")
      .flatMap((line) => /^\S+\.test\.ts: (.* › .*)$/.exec(line)?.[1] ?? []);
    const problems: string[] = [];
    const links = FOUND.map(([id, name]) => ({ id, tests: [name], excused: undefined }));
    findTests(links, names, problems);
    assert.equal(problems, []);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the cases of the corpus: clean refusals, and traffic in the end", () => {
  const benches = new Benches(openModule(MODULE));
  const wrong = readCorpus(CORPUS).flatMap(({ path, case: one }) => {
    const { faults } = benches.run(one);
    return faults.length > 0 ? [`${path}: ${faults.join("; ")}`] : [];
  });
  assert.equal(wrong, []);
});

for (const [what, text, message] of [
  ["without a setup", "use 0 1 2 3\n", /bad.case:1: the first line is no setup/],
  ["with an unknown setup", "setup nowhere\n", /bad.case:1: the first line is no setup/],
  [
    "with an unknown attack",
    "setup plain\npray 0 1 2 3\n",
    /bad.case:2: there is no attack 'pray'/,
  ],
  ["with a word too few", "setup plain\nuse 0 1 2\n", /bad.case:2: an attack has 5 words/],
  ["with a word too many", "setup plain\nuse 0 1 2 3 4\n", /bad.case:2: an attack has 5 words/],
  ["with a bad number", "setup plain\nuse 0 1 x 3\n", /bad.case:2: 'x' is not 0 to 4294967295/],
  ["with a moment too late", "setup plain\nuse 401 1 2 3\n", /bad.case:2: '401' is not 0 to 400/],
  ["that is cut", "setup plain\nuse 0 1 2 3", /bad.case:2: the last line is cut/],
] as const) {
  test(`a corpus file ${what} is an error that names it`, (t) => {
    const folder = mkdtempSync(join(tmpdir(), "vireo-corpus-"));
    t.cleanup(() => rmSync(folder, { recursive: true }));
    writeFileSync(join(folder, "bad.case"), text);
    assert.throws(() => readCorpus(folder), message);
  });
}

test.run();
