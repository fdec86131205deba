// What hostile cases have found in the driver, one test each, named after the clause; and the cases
// of the corpus, which found something once or reach what others do not.

import { assert, suite } from "qemu-test-harness";
import { MODULE } from "../model/machine/machine";
import { Benches } from "./benches";
import type { Attack, AttackKind, Setup } from "./cases";
import { openModule } from "./open-module";

const test = suite("hostile regressions", { timeoutMs: 60_000 });

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

test.run();
