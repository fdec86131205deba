// Keeps the whole state of a simulated machine and puts it back: linear memory, the module's
// globals, and every object of the model that can be reached. So a case starts from a booted guest
// without a boot, and leaves nothing behind for the next one. Used by workbench.ts.
//
// Of the model's objects some hundreds never change after boot. They are not looked at in every
// `restore`, but in every `restoreAll`, which tells when that was wrong.

import { ModelError } from "../model/errors";
import type { Machine } from "../model/machine/machine";
import { GLOBAL_PREFIX } from "./open-module";

const PAGE_BYTES = 4096;

/** Bytes of a linear memory from `start` on and below `end`. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** One object and what was in it. */
interface Kept {
  /** Puts it back; true if it had changed. */
  restore(): boolean;
}

class KeptObject implements Kept {
  private readonly keys: readonly string[];
  private readonly values: readonly unknown[];

  constructor(private readonly object: Record<string, unknown>) {
    this.keys = Object.keys(object);
    this.values = this.keys.map((key) => object[key]);
  }

  restore(): boolean {
    const { keys, object, values } = this;
    let changed = false;
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] ?? "";
      if (Object.is(object[key], values[i])) continue;
      object[key] = values[i];
      changed = true;
    }
    return changed;
  }
}

class KeptArray implements Kept {
  private readonly values: readonly unknown[];

  constructor(private readonly array: unknown[]) {
    this.values = [...array];
  }

  restore(): boolean {
    const { array, values } = this;
    let changed = array.length !== values.length;
    array.length = values.length;
    for (let i = 0; i < values.length; i++) {
      if (Object.is(array[i], values[i])) continue;
      array[i] = values[i];
      changed = true;
    }
    return changed;
  }
}

class KeptMap implements Kept {
  private readonly entries: readonly (readonly [unknown, unknown])[];

  constructor(private readonly map: Map<unknown, unknown>) {
    this.entries = [...map];
  }

  restore(): boolean {
    const { entries, map } = this;
    const same =
      map.size === entries.length && entries.every(([key, value]) => map.get(key) === value);
    if (same) return false;
    map.clear();
    for (const [key, value] of entries) map.set(key, value);
    return true;
  }
}

class KeptSet implements Kept {
  private readonly values: readonly unknown[];

  constructor(private readonly set: Set<unknown>) {
    this.values = [...set];
  }

  restore(): boolean {
    const { set, values } = this;
    if (set.size === values.length && values.every((value) => set.has(value))) return false;
    set.clear();
    for (const value of values) set.add(value);
    return true;
  }
}

class KeptBytes implements Kept {
  private readonly live: Buffer;
  private readonly copy: Buffer;

  constructor({ buffer, byteOffset }: ArrayBufferView, first: number, bytes: number) {
    this.live = Buffer.from(buffer as ArrayBuffer, byteOffset + first, bytes);
    this.copy = Buffer.from(this.live);
  }

  restore(): boolean {
    if (this.live.equals(this.copy)) return false;
    this.copy.copy(this.live);
    return true;
  }
}

/** In pages, for most of what is large is never written. */
function keepBytes(view: ArrayBufferView): Kept[] {
  const kept: Kept[] = [];
  for (let first = 0; first < view.byteLength; first += PAGE_BYTES) {
    kept.push(new KeptBytes(view, first, Math.min(PAGE_BYTES, view.byteLength - first)));
  }
  return kept;
}

/** All that can be reached from `root` through properties, elements and entries. */
function keepAll(root: object, skip: ReadonlySet<object>): Kept[] {
  const kept: Kept[] = [];
  const seen = new Set<unknown>(skip);
  const waiting: unknown[] = [root];
  for (let value = waiting.pop(); value !== undefined; value = waiting.pop()) {
    if (typeof value !== "object" || value === null || seen.has(value)) continue;
    seen.add(value);
    if (ArrayBuffer.isView(value)) {
      if (!(value instanceof DataView)) kept.push(...keepBytes(value));
    } else if (Array.isArray(value)) {
      kept.push(new KeptArray(value));
      waiting.push(...value.filter((one) => one !== undefined));
    } else if (value instanceof Map) {
      kept.push(new KeptMap(value));
      waiting.push(...value.keys(), ...value.values());
    } else if (value instanceof Set) {
      kept.push(new KeptSet(value));
      waiting.push(...value);
    } else if (!isForeign(value)) {
      kept.push(new KeptObject(value as Record<string, unknown>));
      waiting.push(...Object.values(value).filter((one) => one !== undefined));
    }
  }
  return kept;
}

/** What has no state of its own here: WebAssembly's objects and plain memory. */
function isForeign(value: object): boolean {
  return value instanceof ArrayBuffer || Object.prototype.toString.call(value).includes("WebAs");
}

/**
 * The state of one vCPU: its globals, and its memory up to `end`, behind which all is zero. Some of
 * what is behind may be in use and merely be zero yet; `restoreAll` moves the end when it sees that.
 */
class KeptCpu {
  private readonly globals: readonly (readonly [WebAssembly.Global, number | bigint])[];
  private readonly zeroes: Buffer;
  private copy: Uint8Array;

  constructor(
    private readonly memory: Uint8Array,
    exports: Readonly<Record<string, unknown>>,
  ) {
    const names = Object.keys(exports).filter((name) => name.startsWith(GLOBAL_PREFIX));
    if (names.length === 0) throw new ModelError("the module's globals are not visible");
    this.globals = names.map((name) => {
      const global = exports[name] as WebAssembly.Global;
      return [global, global.value] as const;
    });
    this.zeroes = Buffer.alloc(memory.length);
    this.copy = Uint8Array.from(memory.subarray(0, endOf(memory)));
  }

  /** Bytes that are put back. */
  get end(): number {
    return this.copy.length;
  }

  /** `clean`: ranges that are known to be as they were, in order. */
  restore(clean: readonly Range[]): void {
    let from = 0;
    for (const { start, end } of clean) {
      if (start > from) this.memory.set(this.copy.subarray(from, start), from);
      from = end;
    }
    this.memory.set(this.copy.subarray(from), from);
    for (const [global, value] of this.globals) global.value = value;
  }

  /** Clears what lies behind the end; true if there was something. */
  clearRest(): boolean {
    const rest = this.memory.subarray(this.end);
    if (this.zeroes.subarray(0, rest.length).equals(rest)) return false;
    const end = endOf(this.memory);
    rest.fill(0);
    this.copy = Uint8Array.from(this.memory.subarray(0, end));
    return true;
  }
}

/** Where nothing but zeroes follows, to a page. */
function endOf(memory: Uint8Array): number {
  let end = memory.length;
  while (end > 0 && memory[end - 1] === 0) end--;
  return Math.min(memory.length, (end + PAGE_BYTES - 1) & -PAGE_BYTES);
}

export class Snapshot {
  private readonly all: readonly Kept[];
  private hot: Kept[] = [];
  private cold: Kept[];
  readonly cpus: readonly KeptCpu[];

  /** `roots`: what holds the model's state; `skip`: what is constant, and large. */
  constructor(machine: Machine, roots: readonly object[], skip: readonly object[] = []) {
    // Linear memory is not the model's: it is kept beside its objects.
    const memories = machine.cpus.map(({ arena }) => arena.array);
    this.all = keepAll([machine, ...roots], new Set([machine.module, ...memories, ...skip]));
    this.cold = [...this.all];
    this.cpus = machine.cpus.map((cpu) => new KeptCpu(cpu.arena.array, cpu.exports));
  }

  /** How many objects are kept, and how many of them change. */
  get objects(): { readonly all: number; readonly hot: number } {
    return { all: this.all.length, hot: this.hot.length };
  }

  /**
   * Puts back memory, globals, and the objects that are known to change. `clean`: what of each CPU's memory
   * is known to be as it was, which is most of it.
   */
  restore(clean: readonly (readonly Range[])[] = []): void {
    for (const kept of this.hot) kept.restore();
    for (const [index, cpu] of this.cpus.entries()) cpu.restore(clean[index] ?? []);
  }

  /** Puts back memory, globals, and all objects, for runs that end in the midst of something. */
  restoreKnown(): void {
    for (const kept of this.all) kept.restore();
    for (const cpu of this.cpus) cpu.restore([]);
  }

  /**
   * Puts back everything. Answers how many objects or memories had changed that `restore` would have left as
   * they were; from now on it will not.
   */
  restoreAll(): number {
    this.restore();
    const changed = this.cold.filter((kept) => kept.restore());
    const grown = this.cpus.filter((cpu) => cpu.clearRest());
    if (changed.length > 0) {
      const known = new Set(changed);
      this.hot = [...this.hot, ...changed];
      this.cold = this.cold.filter((kept) => !known.has(kept));
    }
    return changed.length + grown.length;
  }
}
