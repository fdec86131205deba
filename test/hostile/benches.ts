// A bench for each setup, made when it is first needed. Used by hostile.test.ts and by the fuzzer's
// workers.

import { BootBench } from "./boot-bench";
import { type Case, isLife, type Setup } from "./cases";
import { LifeBench } from "./life-bench";
import { type Bench, type Verdict, Workbench } from "./workbench";

export class Benches {
  private readonly benches = new Map<Setup, Bench>();

  /** `module`: with its globals visible (open-module.ts). */
  constructor(private readonly module: WebAssembly.Module) {}

  of(setup: Setup): Bench {
    const known = this.benches.get(setup);
    if (known !== undefined) return known;
    const bench = this.make(setup);
    this.benches.set(setup, bench);
    return bench;
  }

  private make(setup: Setup): Bench {
    if (setup === "boot") return new BootBench(this.module);
    return isLife(setup) ? new LifeBench(setup, this.module) : new Workbench(setup, this.module);
  }

  run(one: Case): Verdict {
    return this.of(one.setup).run(one);
  }
}
