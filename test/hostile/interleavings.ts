// Tries every order in which a guest and its device can do what the other one sees: between any two
// shared accesses of the driver the device's queues may go on by a step each, as often as they have
// something to do. Used by interleavings.test.ts.
//
// A run is a list of choices; it is played from a snapshot, and the next run changes the last choice
// that has another option left. Two runs that come to the same state are the same from there on,
// so the second is cut off. A state is told by what each side has read so far: the driver does the
// same whenever it reads the same, and so do the queues.
//
// Where that is too much, `turnsMax` limits how often the device gets its turn in the midst of the
// driver's steps: all orders with so many turns are tried. A race needs few.

import { ModelError } from "../model/errors";
import type { Guest } from "../model/guest";
import type { Machine, Meeting } from "../model/machine/machine";
import type { QueueSteps } from "./queue-steps";
import { Snapshot } from "./snapshot";

/** A run in which more choices than this are made does not end. */
const CHOICES_MAX = 5_000;
const RUNS_MAX = 500_000;
/** A driver that has polled so often in vain, with nobody else to go on, waits for ever. */
const VAIN_STEPS_MAX = 20;

/** Thrown out of a machine call of the guest to end a run that was seen before. */
class SeenBefore extends Error {}

export interface Exploration {
  /** Runs to the end, and those that came to a state that was known. */
  readonly runs: number;
  readonly cut: number;
  readonly states: number;
  /** What went wrong, with the choices that lead there. */
  readonly faults: readonly string[];
}

export interface Scene {
  readonly guest: Guest;
  /** Puts the device's queues to work: called at the start of each run. */
  begin(): readonly QueueSteps[];
  /** What is wrong when nobody can go on. */
  judge(): readonly string[];
}

/** Mixes a number into a hash of 53 bits, in two halves. */
class History {
  private low = 0x811c9dc5;
  private high = 0x1b873593;

  add(value: number): void {
    const word = ((value % 0x1_0000_0000) ^ Math.floor(value / 0x1_0000_0000)) >>> 0;
    this.low = Math.imul(this.low ^ word, 0x01000193) >>> 0;
    this.high = Math.imul((this.high ^ word ^ (this.low >>> 13)) >>> 0, 0x5bd1e995) >>> 0;
  }

  copy(): History {
    const copy = new History();
    copy.low = this.low;
    copy.high = this.high;
    return copy;
  }

  get value(): string {
    return `${this.low.toString(36)}.${this.high.toString(36)}`;
  }
}

export class Explorer implements Meeting {
  private readonly machine: Machine;
  private readonly snapshot: Snapshot;
  private readonly states = new Set<string>();
  private readonly faults: string[] = [];
  /** The choices of this run: what was chosen, of how many. */
  private choices: { chosen: number; readonly options: number }[] = [];
  private made = 0;
  private queues: readonly QueueSteps[] = [];
  private driver = new History();
  /** The same of the step under way; and of the last one, in one word. */
  private step = new History();
  private lastStep = "";

  /** Turns of the device within steps of the driver in this run, and who had the last turn. */
  private turns = 0;
  private isDriverNext = true;

  constructor(
    private readonly scene: Scene,
    private readonly turnsMax = Infinity,
  ) {
    const { guest } = scene;
    this.machine = guest.machine;
    this.snapshot = new Snapshot(guest.machine, [guest.nic, guest.peer]);
  }

  explore(): Exploration {
    let runs = 0;
    let cut = 0;
    do {
      if (runs + cut === RUNS_MAX) throw new ModelError(`more than ${RUNS_MAX} runs`);
      if (this.play()) runs++;
      else cut++;
    } while (this.next() && this.faults.length === 0);
    this.snapshot.restoreAll();
    return { runs, cut, states: this.states.size, faults: this.faults };
  }

  /** Plays one run. False if it was cut off. */
  private play(): boolean {
    this.snapshot.restoreKnown();
    this.made = 0;
    this.turns = 0;
    this.isDriverNext = true;
    this.driver = new History();
    this.lastStep = "";
    this.queues = this.scene.begin();
    this.machine.meeting = this;
    try {
      this.runToEnd();
    } catch (error) {
      if (error instanceof SeenBefore) return false;
      throw error;
    } finally {
      this.machine.meeting = undefined;
    }
    const found = this.scene.judge();
    if (found.length > 0) {
      this.faults.push(`${found.join("; ")}; choices ${this.choices.map((one) => one.chosen)}`);
    }
    return true;
  }

  /** The driver steps when it may; when it sleeps or polls in vain, only the queues can go on. */
  private runToEnd(): void {
    const { machine } = this;
    const cpu = machine.bootCpu;
    let vain = 0;
    for (let rounds = 0; machine.ended === undefined; rounds++) {
      if (rounds > CHOICES_MAX) throw new ModelError("a run that does not end");
      const isWaiting = cpu.sleeps || !this.stepDriver();
      vain = isWaiting ? vain + 1 : 0;
      if (!isWaiting) continue;
      const able = this.queues.filter((queue) => queue.isAble());
      if (able.length === 0 && (cpu.sleeps || vain > VAIN_STEPS_MAX)) return;
      if (able.length === 0) continue;
      able[this.choose(able.length, false)]?.step();
    }
  }

  /** One step. False when it read what the last one had read: nothing has changed, it polls. */
  private stepDriver(): boolean {
    const before = this.driver;
    this.driver = before.copy();
    this.step = new History();
    this.machine.step();
    const isNew = this.step.value !== this.lastStep;
    this.lastStep = this.step.value;
    if (!isNew) this.driver = before;
    return isNew;
  }

  // ---- choices ---------------------------------------------------------------------------------

  /** Before a shared access: none or any of the queues goes on, and then there is a choice again. */
  before(): void {
    this.isDriverNext = true;
    for (;;) {
      const able = this.queues.filter((queue) => queue.isAble());
      const mayTurn = !this.isDriverNext || this.turns < this.turnsMax;
      if (able.length === 0 || !mayTurn) break;
      const chosen = this.choose(1 + able.length, true);
      if (chosen === 0) break;
      if (this.isDriverNext) this.turns++;
      this.isDriverNext = false;
      able[chosen - 1]?.step();
    }
    // Which access it is follows from what was read; how many there were tells it apart.
    this.note(1);
  }

  private note(value: number): void {
    this.driver.add(value);
    this.step.add(value);
  }

  read(value: number): void {
    this.note(value + 2);
  }

  private choose(options: number, inside: boolean): number {
    if (this.made >= CHOICES_MAX) throw new ModelError("a run of too many choices");
    const known = this.choices[this.made];
    if (known !== undefined) {
      this.made++;
      return known.chosen;
    }
    const queues = this.queues.map((queue) => queue.state).join(" ");
    const key = `${inside} ${this.isDriverNext} ${this.turns} ${this.driver.value} ${queues}`;
    if (this.states.has(key)) throw new SeenBefore();
    this.states.add(key);
    this.choices.push({ chosen: 0, options });
    this.made++;
    return 0;
  }

  /** Changes the last choice that has another option; false when there is none. */
  private next(): boolean {
    for (let last = this.choices.pop(); last !== undefined; last = this.choices.pop()) {
      if (last.chosen + 1 === last.options) continue;
      this.choices.push({ chosen: last.chosen + 1, options: last.options });
      return true;
    }
    return false;
  }
}
