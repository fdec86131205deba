// Hostile cases for guests that a case boots for itself and that then live for a while: on other
// machines, with other apps, with two NICs, with NICs that come and go. What must hold is what
// boot-bench.ts says, and that the guest comes to rest, or to its end with a reason, after each
// attack. Used like workbench.ts.

import { DriverError, GuestPanic, ModelError } from "../model/errors";
import type { Guest } from "../model/guest";
import { attack } from "./attacks";
import { ATTACKS_MAX, type Attack, type Case } from "./cases";
import { EARLY_KINDS } from "./kinds";
import { Moments } from "./moments";
import { Oracle } from "./oracle";
import { commandLineOf, makeSetup } from "./setups";
import type { Target } from "./target";
import { usualFrames } from "./usual-frames";
import type { Bench, Verdict } from "./workbench";

const CALLS_MAX = 2_000_000;
const STEPS_MAX = 3_000;
const BOOT_US = 10_000_000;
const PAUSE_TICKS_MAX = 40_000_000;
/** How long a guest lives behind its last attack: until it has looked for NICs twice. */
const LIFE_US = 2_200_000;

export class LifeBench implements Bench {
  readonly lapses = 0;
  private last: Guest | undefined;

  constructor(
    private readonly setup: Case["setup"],
    private readonly module: WebAssembly.Module,
  ) {}

  memories(): readonly Uint8Array[] {
    return this.last?.machine.cpus.map(({ arena }) => arena.array) ?? [];
  }

  run(one: Case): Verdict {
    const guest = makeSetup(this.setup, this.module, commandLineOf(one));
    this.last = guest;
    guest.machine.callsMax = CALLS_MAX;
    guest.machine.pauseTicksMax = PAUSE_TICKS_MAX;
    const target: Target = {
      guest,
      oracle: new Oracle(guest),
      frames: usualFrames(guest),
      mayEnd: true,
      headersLie: true,
      wasTouched: true,
      waitUs: 0,
    };
    // What comes out is as wrong as what went in: nobody reads it.
    for (const { sender } of guest.nics) sender.onTransmit = () => undefined;
    const faults = this.live(target, one.attacks.slice(0, ATTACKS_MAX));
    guest.machine.onAccess = undefined;
    const { ended } = guest.machine;
    if (ended instanceof GuestPanic) faults.push(`the guest panicked: ${ended.message}`);
    else if (ended !== undefined && ended.status !== 0) faults.push(...this.endFaults(guest));
    return {
      faults,
      ended: ended !== undefined,
      resets: guest.nic.pci.common.resets,
      events: guest.machine.console.events.slice(),
    };
  }

  /**
   * Lies about registers and answers come before the boot if they have no moment, the rest when the
   * guest runs.
   */
  private live(target: Target, attacks: readonly Attack[]): string[] {
    const { machine } = target.guest;
    const isEarly = ({ kind, moment }: Attack) => EARLY_KINDS.includes(kind) && moment === 0;
    for (const one of attacks.filter(isEarly)) attack(target, one);
    const moments = new Moments((one) => attack(target, one));
    machine.onAccess = () => moments.tick();
    const isOver = () => machine.ended !== undefined || this.isReady(target.guest);
    try {
      machine.boot();
      machine.run(isOver, { us: BOOT_US, steps: STEPS_MAX });
      if (!isOver()) return [`it neither boots nor ends within ${BOOT_US} us`];
      for (const one of attacks.filter((each) => !isEarly(each))) {
        if (machine.ended !== undefined) return [];
        moments.launch(one);
        machine.run(() => machine.ended !== undefined, {
          us: 1 + target.waitUs,
          steps: STEPS_MAX,
        });
        target.waitUs = 0;
      }
      machine.run(() => machine.ended !== undefined, { us: LIFE_US, steps: STEPS_MAX });
    } catch (error) {
      // The device has lied about itself, and cannot follow what the driver made of that.
      if (error instanceof DriverError) return [];
      if (!(error instanceof ModelError)) throw error;
      return [error.message];
    }
    return [];
  }

  private isReady({ machine, nics }: Guest): boolean {
    return machine.console.all("ready").length >= nics.length;
  }

  private endFaults(guest: Guest): string[] {
    const faults = guest.errors().length === 0 ? ["the run ended without an error"] : [];
    if (guest.exitStatus() !== 35) faults.push(`the run ended with status ${guest.exitStatus()}`);
    return faults;
  }
}
