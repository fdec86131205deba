// A bench for each setup, made when it is first needed. Used by hostile.test.ts and by the fuzzer's
// workers.

import { BootBench } from "./boot-bench";
import type { Case, Setup } from "./cases";
import { type Bench, type Verdict, Workbench } from "./workbench";

export class Benches {
  private readonly benches = new Map<Setup, Bench>();

  /** `module`: with its globals visible (open-module.ts). */
  constructor(private readonly module: WebAssembly.Module) {}

  of(setup: Setup): Bench {
    const known = this.benches.get(setup);
    if (known !== undefined) return known;
    const bench = setup === "boot" ? new BootBench(this.module) : new Workbench(setup, this.module);
    this.benches.set(setup, bench);
    return bench;
  }

  run(one: Case): Verdict {
    return this.of(one.setup).run(one);
  }
}
