// Hostile cases for a device that lies before it runs: its configuration space, capabilities,
// registers. Each boots a guest of its own. What must hold: no trap, bounded time, and either the
// guest is ready, or it ends with one error that says why, and with status 35. Used like
// workbench.ts, whose cases are a hundred times cheaper.

import { GuestPanic, ModelError } from "../model/errors";
import type { Guest } from "../model/guest";
import { attack } from "./attacks";
import { ATTACKS_MAX, type Case } from "./cases";
import { Oracle } from "./oracle";
import { makeSetup } from "./setups";
import type { Target } from "./target";
import type { Bench, Verdict } from "./workbench";

const CALLS_MAX = 2_000_000;
const STEPS_MAX = 3_000;
const BOOT_US = 10_000_000;
const PAUSE_TICKS_MAX = 40_000_000;

export class BootBench implements Bench {
  readonly lapses = 0;
  boots = 0;

  private last: Guest | undefined;

  constructor(private readonly module: WebAssembly.Module) {}

  memories(): readonly Uint8Array[] {
    return this.last?.machine.cpus.map(({ arena }) => arena.array) ?? [];
  }

  run({ attacks }: Case): Verdict {
    this.boots++;
    const guest = makeSetup("boot", this.module);
    this.last = guest;
    guest.machine.callsMax = CALLS_MAX;
    guest.machine.pauseTicksMax = PAUSE_TICKS_MAX;
    // There is no ring yet, so there is nothing of it to be known.
    const target: Target = {
      guest,
      oracle: new Oracle(guest),
      frames: [],
      mayEnd: true,
      headersLie: false,
      wasTouched: false,
      waitUs: 0,
    };
    for (const one of attacks.slice(0, ATTACKS_MAX)) attack(target, { ...one, moment: 0 });
    const faults = this.boot(guest);
    const { ended } = guest.machine;
    if (ended instanceof GuestPanic) faults.push(`the guest panicked: ${ended.message}`);
    else if (ended !== undefined) faults.push(...this.endFaults(guest));
    return {
      faults,
      ended: ended !== undefined,
      resets: guest.nic.pci.common.resets,
      events: guest.machine.console.events.slice(),
    };
  }

  private boot({ machine }: Guest): string[] {
    const isOver = () => machine.ended !== undefined || machine.console.find("ready") !== undefined;
    try {
      machine.boot();
      machine.run(isOver, { us: BOOT_US, steps: STEPS_MAX });
      return isOver() ? [] : [`it neither boots nor ends within ${BOOT_US} us`];
    } catch (error) {
      if (!(error instanceof ModelError)) throw error;
      return [error.message];
    }
  }

  private endFaults(guest: Guest): string[] {
    const errors = guest.errors();
    const faults = errors.length === 0 ? ["the run ended without an error"] : [];
    if (guest.exitStatus() !== 35) faults.push(`the run ended with status ${guest.exitStatus()}`);
    return faults;
  }
}
