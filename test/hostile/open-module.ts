// Makes the globals of a module visible, so that a guest's whole state can be kept and put back:
// the mutable ones are added to its exports as `global:0`, `global:1` and so on. Nothing else of
// the module is touched: its code is the code that ships. Used by snapshot.ts and workbench.ts.
//
//   module   \0asm 1 | sections: id 1, bytes LEB, content

import { readFileSync } from "node:fs";
import { ModelError } from "../model/errors";

const HEADER_BYTES = 8;
const SECTION = { import: 2, global: 6, export: 7 } as const;
const KIND_GLOBAL = 3;
const OP = { globalGet: 0x23, i32: 0x41, i64: 0x42, f32: 0x43, f64: 0x44, end: 0x0b } as const;

/** What every name of an exported global begins with. */
export const GLOBAL_PREFIX = "global:";

/** Reads a module's bytes from front to back. */
class Reader {
  at = 0;

  constructor(readonly bytes: Uint8Array) {}

  byte(): number {
    const value = this.bytes[this.at];
    if (value === undefined) throw new ModelError(`the module ends at byte ${this.at}`);
    this.at++;
    return value;
  }

  /** An unsigned LEB128 number. */
  number(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw new ModelError(`no number at byte ${this.at} of the module`);
  }

  skipNumber(): void {
    while (this.byte() >= 0x80);
  }
}

interface Section {
  readonly id: number;
  readonly content: Uint8Array;
}

function sectionsOf(bytes: Uint8Array): Section[] {
  const reader = new Reader(bytes);
  reader.at = HEADER_BYTES;
  const sections: Section[] = [];
  while (reader.at < bytes.length) {
    const id = reader.byte();
    const length = reader.number();
    sections.push({ id, content: bytes.subarray(reader.at, reader.at + length) });
    reader.at += length;
  }
  return sections;
}

/** The indices of the mutable globals; the module imports functions only. */
function mutableGlobals(content: Uint8Array): number[] {
  const reader = new Reader(content);
  const count = reader.number();
  const found: number[] = [];
  for (let index = 0; index < count; index++) {
    reader.byte();
    if (reader.byte() === 1) found.push(index);
    skipExpression(reader);
  }
  return found;
}

function skipExpression(reader: Reader): void {
  for (let code = reader.byte(); code !== OP.end; code = reader.byte()) {
    if (code === OP.f32) reader.at += 4;
    else if (code === OP.f64) reader.at += 8;
    else if (code === OP.i32 || code === OP.i64 || code === OP.globalGet) reader.skipNumber();
    else throw new ModelError(`a global begins with instruction 0x${code.toString(16)}`);
  }
}

function leb(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest & 0x7f) | 0x80);
  return [...bytes, rest];
}

function withGlobals(content: Uint8Array, globals: readonly number[]): Uint8Array {
  const reader = new Reader(content);
  const count = reader.number();
  const entries = globals.flatMap((index, i) => {
    const name = Buffer.from(`${GLOBAL_PREFIX}${i}`, "latin1");
    return [...leb(name.length), ...name, KIND_GLOBAL, ...leb(index)];
  });
  const old = content.subarray(reader.at);
  return Buffer.concat([Buffer.from(leb(count + globals.length)), old, Buffer.from(entries)]);
}

/** The module's bytes with its mutable globals exported. */
export function exportGlobals(bytes: Uint8Array): Uint8Array {
  const sections = sectionsOf(bytes);
  const content = sections.find(({ id }) => id === SECTION.global)?.content;
  const globals = content === undefined ? [] : mutableGlobals(content);
  const parts = sections.flatMap((section) => {
    const isExport = section.id === SECTION.export;
    const body = isExport ? withGlobals(section.content, globals) : section.content;
    return [Buffer.from([section.id, ...leb(body.length)]), body];
  });
  return Buffer.concat([bytes.subarray(0, HEADER_BYTES), ...parts]);
}

const opened = new Map<string, WebAssembly.Module>();

/** The module in a file with its globals visible, compiled once a process. */
export function openModule(path: string): WebAssembly.Module {
  const known = opened.get(path);
  if (known !== undefined) return known;
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch {
    throw new ModelError(`${path} is not there: build it with 'make image'`);
  }
  const module = new WebAssembly.Module(exportGlobals(bytes));
  opened.set(path, module);
  return module;
}
