// What a matrix has found so far, kept in a file after every boot, so that a run that ends early can
// be gone on with. It is of one image: with another one everything is found anew. Used by run.ts and
// command.ts.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { EnvironmentError, messageOf } from "../errors";
import type { CellResult } from "./boot";
import type { BackendName } from "./cells";

export interface BackendState {
  /** The kernel that ran the cells, and whether it was the lab's. */
  readonly kernel: string;
  readonly lab: boolean;
  readonly offered: readonly string[];
}

interface Content {
  readonly image: string;
  readonly qemu: string;
  readonly backends: Record<string, BackendState>;
  readonly results: Record<string, CellResult>;
}

export class MatrixState {
  private constructor(
    readonly path: string,
    private readonly content: Content,
  ) {}

  /** An empty state for the image, or with `resume` what the file has of the same image. */
  static open(path: string, image: string, qemu: string, resume: boolean): MatrixState {
    const hash = createHash("sha256").update(readFileSync(image)).digest("hex");
    const fresh: Content = { image: hash, qemu, backends: {}, results: {} };
    if (!resume || !existsSync(path)) return new MatrixState(path, fresh);
    const kept = read(path);
    return new MatrixState(path, kept.image === hash && kept.qemu === qemu ? kept : fresh);
  }

  get image(): string {
    return this.content.image;
  }

  get qemu(): string {
    return this.content.qemu;
  }

  result(id: string): CellResult | undefined {
    return this.content.results[id];
  }

  backend(name: BackendName): BackendState | undefined {
    return this.content.backends[name];
  }

  noteBackend(name: BackendName, state: BackendState): void {
    this.content.backends[name] = state;
    this.write();
  }

  note(results: readonly CellResult[]): void {
    for (const result of results) this.content.results[result.id] = result;
    this.write();
  }

  /** Takes over what another run, in the lab, has found. */
  merge(path: string): void {
    const other = read(path);
    if (other.image !== this.image) throw new EnvironmentError(`${path} is of another image`);
    Object.assign(this.content.backends, other.backends);
    this.note(Object.values(other.results));
  }

  private write(): void {
    mkdirSync(dirname(this.path), { recursive: true });
    writeFileSync(this.path, `${JSON.stringify(this.content, null, 1)}\n`);
  }
}

function read(path: string): Content {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Content;
  } catch (error) {
    throw new EnvironmentError(`${path} is no state of a matrix (${messageOf(error)}): remove it`);
  }
}
