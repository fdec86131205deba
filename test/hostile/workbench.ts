// Where hostile cases are carried out: a booted guest that is put back to the same state before each
// case, attacked, judged, and made to carry traffic again by a device that behaves. Used by the
// tests of this folder and by the fuzzer.

import type { GuestEvent } from "qemu-test-harness";
import { DriverError, ModelError } from "../model/errors";
import type { Guest } from "../model/guest";
import type { Live } from "../model/net/live";
import { Random } from "../model/random";
import { attack } from "./attacks";
import { ATTACKS_MAX, type Attack, type Case, type Setup } from "./cases";
import { anyCase } from "./generators";
import { Moments } from "./moments";
import { Oracle } from "./oracle";
import { makeSetup } from "./setups";
import { Snapshot } from "./snapshot";
import type { Target } from "./target";
import { usualFrames } from "./usual-frames";

/** Bounds: machine calls a step, steps until all is quiet, and time for a recovery. */
const CALLS_MAX = 400_000;
const STEPS_MAX = 2_000;
const RECOVERY_US = 12_000_000;
/** More lines than the guest's console keeps waiting. */
const RESETS_MAX = 16;
/** A waiting guest gets on quickly when nobody else has anything to do. */
const PAUSE_TICKS_MAX = 40_000_000;
const ECHO = Buffer.from("life goes on");
/** Every so many cases everything is put back, not only what usually changes. */
const FULL_RESTORE_CASES = 256;
const LEARNING_CASES = 40;

export interface Verdict {
  /** What is wrong with the driver; empty: nothing. */
  readonly faults: readonly string[];
  /** The guest ended, as it may with a device that cannot be used. */
  readonly ended: boolean;
  /** How often the driver reset the device of its own accord or because it was asked to. */
  readonly resets: number;
  readonly events: readonly GuestEvent[];
}

/** Carries out cases of one setup. */
export interface Bench {
  run(one: Case): Verdict;
  /** The memories of the guest that the last case ran on. */
  memories(): readonly Uint8Array[];
  /** Objects that were found changed though they had not been known to change. */
  readonly lapses: number;
  /** Guests that were booted. */
  readonly boots: number;
}

export class Workbench implements Bench, Target {
  readonly guest: Guest;
  readonly oracle: Oracle;
  readonly frames: readonly Buffer[];
  mayEnd = false;
  headersLie = false;
  wasTouched = false;
  waitUs = 0;
  lapses = 0;
  readonly boots = 1;
  private readonly snapshot: Snapshot;
  private readonly echo: Buffer;
  /** The device's configuration, and its configuration space, as they are when it behaves. */
  private readonly config: Buffer;
  private readonly space: Buffer;
  private cases = 0;
  private readonly moments = new Moments((one) => attack(this, one));

  constructor(
    readonly setup: Setup,
    private readonly module: WebAssembly.Module,
  ) {
    this.guest = this.boot();
    this.oracle = new Oracle(this.guest);
    this.frames = usualFrames(this.guest);
    this.echo = this.guest.peer.echoRequest(ECHO);
    this.config = Buffer.from(this.guest.nic.config);
    this.space = Buffer.from(this.guest.nic.pci.space.bytes);
    this.oracle.learnPools(this.guest.stats().queues);
    this.snapshot = this.keep();
    this.learn();
  }

  /** Has a lot happen, so that it is known what changes. */
  private learn(): void {
    const random = new Random(1);
    for (let i = 0; i < LEARNING_CASES; i++) {
      this.snapshot.restoreAll();
      this.carryOut(anyCase(random, this.setup));
    }
    this.snapshot.restoreAll();
  }

  private boot(): Guest {
    const guest = makeSetup(this.setup, this.module);
    guest.machine.callsMax = CALLS_MAX;
    guest.machine.pauseTicksMax = PAUSE_TICKS_MAX;
    guest.start();
    guest.settle();
    return guest;
  }

  private keep(): Snapshot {
    const { guest } = this;
    const skip = [...this.constants(), this];
    const snapshot = new Snapshot(guest.machine, [guest.nic, guest.peer, this.oracle], skip);
    this.reset();
    snapshot.restoreAll();
    return snapshot;
  }

  /** What is large, and is never written. */
  private constants(): object[] {
    const { cpus, mailbox } = this.guest.machine;
    return cpus.length > 1 ? this.frames.slice() : [...this.frames, mailbox];
  }

  memories(): readonly Uint8Array[] {
    return this.guest.machine.cpus.map(({ arena }) => arena.array);
  }

  /** Bytes of linear memory, from 0, that are put back; and objects. */
  get kept(): { readonly bytes: number; readonly all: number; readonly hot: number } {
    const bytes = this.snapshot.cpus.reduce((sum, { end }) => sum + end, 0);
    return { bytes, ...this.snapshot.objects };
  }

  // ---- a case ----------------------------------------------------------------------------------

  /**
   * Carries a case out. One that finds a fault, or that the model cannot play, is repeated on a state
   * that is whole for sure: what was left behind by another case would be no fault of the driver's.
   */
  run(one: Case): Verdict {
    if (++this.cases % FULL_RESTORE_CASES === 0) this.lapses += this.snapshot.restoreAll();
    else this.snapshot.restore(this.oracle.untouched());
    const verdict = this.tryOut(one);
    if (verdict?.faults.length === 0) return verdict;
    this.lapses += this.snapshot.restoreAll();
    return this.carryOut(one);
  }

  private tryOut(one: Case): Verdict | undefined {
    try {
      return this.carryOut(one);
    } catch {
      return undefined;
    }
  }

  private carryOut({ attacks }: Case): Verdict {
    this.begin();
    for (const one of attacks.slice(0, ATTACKS_MAX)) if (!this.attack(one)) break;
    return this.finish();
  }

  /** For cases that are carried out step by step: `begin`, then attacks, then `finish`. */
  beginWhole(): void {
    this.lapses += this.snapshot.restoreAll();
    this.begin();
  }

  private begin(): void {
    this.mayEnd = false;
    this.headersLie = false;
    this.wasTouched = false;
    this.waitUs = 0;
    this.oracle.begin();
    this.guest.machine.onAccess = () => this.moments.tick();
  }

  /** One attack, and what the guest makes of it. False when the run has ended. */
  attack(one: Attack): boolean {
    this.moments.launch(one);
    this.rest("after an attack");
    return this.guest.machine.ended === undefined;
  }

  /** Judges, and has the device behave again. */
  finish(): Verdict {
    const { machine } = this.guest;
    machine.onAccess = undefined;
    this.moments.clear();
    this.oracle.afterAttacks(this);
    if (machine.ended === undefined) this.recover();
    return this.verdict();
  }

  /** Runs until all is quiet, and for as long as an attack said. */
  private rest(what: string): void {
    const { machine } = this.guest;
    try {
      if (this.waitUs > 0) machine.run(() => false, { us: this.waitUs, steps: STEPS_MAX });
      this.waitUs = 0;
      for (let left = STEPS_MAX; machine.step(); left--) {
        if (left > 0) continue;
        if (this.isFull()) return;
        this.oracle.late(`${what}: not quiet after ${STEPS_MAX} steps`);
        return;
      }
    } catch (error) {
      this.catch(what, error);
    }
  }

  /** A guest that cannot answer, because the device takes nothing from a full ring, may poll it. */
  private isFull(): boolean {
    const { pairs } = this.guest.nic;
    return pairs.some(({ tx }) => {
      const full = tx.queue.size;
      return ((outstandingIn(tx) + tx.audit.unread()) & 0xffff) >= full;
    });
  }

  /** The model gave up on the guest: that is a verdict as well. Other errors are the model's own. */
  private catch(what: string, error: unknown): void {
    if (!(error instanceof ModelError)) throw error;
    this.oracle.late(`${what}: ${error.message}`);
  }

  private recover(): void {
    this.behave();
    try {
      this.reset();
      this.oracle.checkPools(this.guest.stats().queues);
    } catch (error) {
      this.catch("recovery", error);
    }
    this.oracle.afterRecovery();
  }

  /** The device is as it was before, but for what it has done to the rings. */
  private behave(): void {
    const { nic } = this.guest;
    nic.pci.tamper = undefined;
    nic.pci.isSilent = false;
    nic.receiver.tamper = undefined;
    nic.receiver.pending.length = 0;
    for (const { rx } of nic.pairs) rx.waiting.length = 0;
    nic.control.tamper = undefined;
    nic.control.refuses = undefined;
    nic.control.delayUs = 0;
    nic.paused.rx = false;
    nic.paused.tx = false;
    this.config.copy(nic.config);
    this.space.copy(nic.pci.space.bytes);
  }

  /** The device asks for a reset; then a packet must come back. */
  private reset(): void {
    const { guest } = this;
    const { common } = guest.nic.pci;
    const before = common.resets;
    const limits = { us: RECOVERY_US, steps: STEPS_MAX };
    guest.nic.pci.needReset();
    guest.until(() => common.resets > before && common.isLive, "it resets the device", limits);
    // What went wrong before the reset is not the new life's.
    guest.machine.violations.list.length = 0;
    guest.peer.frames.length = 0;
    // A `reset` that waits on the console takes away what is under way, as it was asked to.
    for (let left = RESETS_MAX; !this.passes(limits); left--) {
      if (left === 0) throw new ModelError(`it is reset more than ${RESETS_MAX} times`);
    }
    guest.settle();
  }

  /** Sends a packet, which must come back. False when the device was reset again before. */
  private passes(limits: { readonly us: number; readonly steps: number }): boolean {
    const { nic, peer } = this.guest;
    const { common } = nic.pci;
    this.guest.until(() => common.isLive, "the device runs", limits);
    const { resets } = common;
    // It may have been given another address on the control queue.
    this.echo.write((nic.state.mac ?? nic.options.mac).replaceAll(":", ""), "hex");
    nic.receive(this.echo);
    const isBack = () => peer.frames.some((frame) => frame.includes(ECHO));
    this.guest.until(() => isBack() || common.resets > resets, "a packet comes back", limits);
    return isBack();
  }

  private verdict(): Verdict {
    const { guest, oracle } = this;
    return {
      faults: [...oracle.faults],
      ended: guest.machine.ended !== undefined,
      resets: guest.nic.pci.common.resets,
      events: guest.machine.console.events.slice(),
    };
  }
}

/** What the driver has offered and not got back; a ring that makes no sense any more is full. */
function outstandingIn(live: Live): number {
  if (!live.ring.options.packed) return (live.split.availIdx - live.split.usedIdx) & 0xffff;
  try {
    return live.ring.held();
  } catch (error) {
    if (!(error instanceof DriverError)) throw error;
    return live.queue.size;
  }
}
