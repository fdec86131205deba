// Attacks that wait for their moment: a number of machine calls of the guest. Used by the benches.

import { type Attack, MOMENT_MAX } from "./cases";

export class Moments {
  private readonly waiting: { readonly attack: Attack; left: number }[] = [];

  constructor(private readonly carryOut: (attack: Attack) => void) {}

  /** Carries it out now, or when its moment comes. */
  launch(attack: Attack): void {
    const left = attack.moment % MOMENT_MAX;
    if (left === 0) this.carryOut(attack);
    else this.waiting.push({ attack, left });
  }

  /** The guest has called the machine: some attack's moment may have come. */
  tick(): void {
    const { waiting } = this;
    for (let i = 0; i < waiting.length; i++) {
      const one = waiting[i];
      if (one === undefined || --one.left > 0) continue;
      waiting.splice(i--, 1);
      this.carryOut(one.attack);
    }
  }

  clear(): void {
    this.waiting.length = 0;
  }
}
