// Devices that do what they want, at random but the same in every run: model-based commands of
// fast-check, which cuts a failing case down to what is needed. What must hold is in oracle.ts. The
// long run of the same is `make fuzz`.

import fc from "fast-check";
import { assert, suite } from "qemu-test-harness";
import { MODULE } from "../model/machine/machine";
import { BootBench } from "./boot-bench";
import { isLife, SETUPS } from "./cases";
import { attacksOf, commandsOf, type Life } from "./generators";
import { LifeBench } from "./life-bench";
import { openModule } from "./open-module";
import { Workbench } from "./workbench";

const test = suite("hostile device", { timeoutMs: 120_000 });

const SEED = 20_261;
const RUNS = 600;
const RUNS_LARGE = 150;
const RUNS_BOOT = 150;
const RUNS_LIFE = 100;
const ATTACKS_BEFORE_BOOT_MAX = 4;

for (const setup of SETUPS) {
  if (setup === "boot" || isLife(setup)) continue;
  test(`${setup}: whatever it does, there is a clean refusal, and traffic in the end`, () => {
    const bench = new Workbench(setup, openModule(MODULE));
    const property = fc.property(commandsOf(setup), (commands) => {
      const model: Life = { alive: true };
      bench.beginWhole();
      fc.modelRun(() => ({ model, real: bench }), commands);
      assert.equal(bench.finish().faults, []);
    });
    fc.assert(property, { seed: SEED, numRuns: setup === "large" ? RUNS_LARGE : RUNS });
  });
}

for (const setup of SETUPS.filter(isLife)) {
  test(`${setup}: no panic, no hang, and an end only with its reason`, () => {
    const bench = new LifeBench(setup, openModule(MODULE));
    const attacks = fc.array(attacksOf(setup), { maxLength: ATTACKS_BEFORE_BOOT_MAX });
    const property = fc.property(attacks, (list) => {
      assert.equal(bench.run({ setup, attacks: list }).faults, []);
    });
    fc.assert(property, { seed: SEED, numRuns: RUNS_LIFE });
  });
}

test("boot: capabilities and registers that lie: ready, or one error and status 35", () => {
  const bench = new BootBench(openModule(MODULE));
  const attacks = fc.array(attacksOf("boot"), { maxLength: ATTACKS_BEFORE_BOOT_MAX });
  const property = fc.property(attacks, (list) => {
    assert.equal(bench.run({ setup: "boot", attacks: list }).faults, []);
  });
  fc.assert(property, { seed: SEED, numRuns: RUNS_BOOT });
});

test.run();
