// Hostile cases for guests that live for a while: on other machines, with other apps, with two NICs,
// with NICs that come and go. What must hold is what boot-bench.ts says, and that the guest comes to
// rest, or to its end with a reason, after each attack. Used like workbench.ts.
//
// A case that lies before the boot, or chooses words of the command line, boots a guest of its own. All
// others begin where the same boot ends, so that one is kept and put back (snapshot.ts).

import { DriverError, GuestPanic, ModelError } from "../model/errors";
import type { Guest } from "../model/guest";
import { attack } from "./attacks";
import { ATTACKS_MAX, type Attack, type Case } from "./cases";
import { EARLY_KINDS } from "./kinds";
import { Moments } from "./moments";
import { Oracle } from "./oracle";
import { commandLineOf, makeSetup } from "./setups";
import { Snapshot } from "./snapshot";
import type { Target } from "./target";
import { usualFrames } from "./usual-frames";
import type { Bench, Verdict } from "./workbench";

const CALLS_MAX = 2_000_000;
const STEPS_MAX = 3_000;
const BOOT_US = 10_000_000;
const PAUSE_TICKS_MAX = 40_000_000;
/** How long a guest lives behind its last attack: until it has looked for NICs twice. */
const LIFE_US = 2_200_000;

/** Every so many cases on the kept guest it is seen to that all of its memory is as it was. */
const CLEAN_CASES = 128;

/** Lies about registers and answers, if they have no moment, come before the boot. */
const isEarly = ({ kind, moment }: Attack) => EARLY_KINDS.includes(kind) && moment === 0;

/** A guest that was booted once, and how it is put back. */
interface Kept {
  readonly target: Target;
  readonly snapshot: Snapshot;
}

export class LifeBench implements Bench {
  lapses = 0;
  boots = 0;
  private last: Guest | undefined;
  private kept: Kept | undefined;
  private keptCases = 0;

  constructor(
    private readonly setup: Case["setup"],
    private readonly module: WebAssembly.Module,
  ) {}

  memories(): readonly Uint8Array[] {
    return this.last?.machine.cpus.map(({ arena }) => arena.array) ?? [];
  }

  /** A fault on the kept guest counts only if a guest that was booted for the case shows one too. */
  run(one: Case): Verdict {
    const attacks = one.attacks.slice(0, ATTACKS_MAX);
    if (!attacks.some(isEarly)) {
      const target = this.putBack();
      const verdict = this.judge(target.guest, () => this.live(target, attacks));
      if (verdict.faults.length === 0) return verdict;
    }
    const target = this.prepare(commandLineOf(one));
    return this.judge(target.guest, () => {
      for (const early of attacks.filter(isEarly)) attack(target, early);
      const faults = this.boot(target.guest);
      return faults.length > 0 ? faults : this.live(target, attacks);
    });
  }

  /** A guest that is not booted yet. */
  private prepare(commandLine: string): Target {
    this.boots++;
    const guest = makeSetup(this.setup, this.module, commandLine);
    guest.machine.callsMax = CALLS_MAX;
    guest.machine.pauseTicksMax = PAUSE_TICKS_MAX;
    // What comes out is as wrong as what went in: nobody reads it.
    for (const { sender } of guest.nics) sender.isDiscarding = true;
    return {
      guest,
      oracle: new Oracle(guest),
      frames: usualFrames(guest),
      mayEnd: true,
      headersLie: true,
      wasTouched: true,
      waitUs: 0,
    };
  }

  /** The guest that is kept, as it was when its boot was over. */
  private putBack(): Target {
    if (this.kept === undefined) {
      const target = this.prepare(commandLineOf({ setup: this.setup, attacks: [] }));
      const faults = this.boot(target.guest);
      if (faults.length > 0) throw new ModelError(`${this.setup}: ${faults.join("; ")}`);
      const { guest, frames, oracle } = target;
      const snapshot = new Snapshot(guest.machine, [guest, oracle], [...frames]);
      this.kept = { target, snapshot };
    }
    const { snapshot, target } = this.kept;
    // NICs leave and come, so that any object may have changed; memory beyond its end, hardly ever.
    snapshot.restoreKnown();
    if (++this.keptCases % CLEAN_CASES === 0) this.lapses += snapshot.restoreAll();
    return { ...target };
  }

  private judge(guest: Guest, live: () => string[]): Verdict {
    this.last = guest;
    const faults = this.guarded(live);
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

  private guarded(live: () => string[]): string[] {
    try {
      return live();
    } catch (error) {
      // The device has lied about itself, and cannot follow what the driver made of that.
      if (error instanceof DriverError) return [];
      if (!(error instanceof ModelError)) throw error;
      return [error.message];
    }
  }

  /** Lies about registers and answers come before this, the rest when the guest runs. */
  private boot(guest: Guest): string[] {
    const { machine } = guest;
    const isOver = () => machine.ended !== undefined || this.isReady(guest);
    machine.boot();
    machine.run(isOver, { us: BOOT_US, steps: STEPS_MAX });
    return isOver() ? [] : [`it neither boots nor ends within ${BOOT_US} us`];
  }

  private live(target: Target, attacks: readonly Attack[]): string[] {
    const { machine } = target.guest;
    const moments = new Moments((one) => attack(target, one));
    machine.onAccess = () => moments.tick();
    const isOver = () => machine.ended !== undefined;
    for (const one of attacks.filter((each) => !isEarly(each))) {
      if (isOver()) return [];
      moments.launch(one);
      machine.run(isOver, { us: 1 + target.waitUs, steps: STEPS_MAX });
      target.waitUs = 0;
    }
    machine.run(isOver, { us: LIFE_US, steps: STEPS_MAX });
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
