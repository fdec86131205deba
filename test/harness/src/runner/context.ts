// What a test gets: virtual machines that are cleaned up after it, a way to skip, and files to keep
// when it fails. Made by the suite for each test.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Artifact } from "../backends/backend";
import { withDeadline } from "../deadline";
import { HarnessError, messageOf, SkipTest } from "../errors";
import { Vm } from "../vm";
import type { VmOptions } from "../vm-options";
import { report } from "./protocol";

const CLEANUP_TIMEOUT_MS = 15_000;

export class TestContext {
  private readonly vms: Vm[] = [];
  private readonly kept: Artifact[] = [];
  /** In the order in which things were started, virtual machines among them. */
  private readonly undo: (() => Promise<void> | void)[] = [];

  constructor(
    readonly suite: string,
    readonly name: string,
  ) {}

  /** Ends the test as skipped; the reason says what is missing. */
  skip(reason: string): never {
    throw new SkipTest(reason);
  }

  /** A line for the runner's log; also shows that a long test makes progress. */
  log(text: string): void {
    report({ type: "log", text: `${this.suite} › ${this.name}: ${text}` });
  }

  /**
   * Starts a VM that ends with the test. Skips the test when this machine cannot run one of its
   * backends.
   */
  async vm(options: VmOptions = {}): Promise<Vm> {
    for (const { backend } of options.nics ?? []) {
      const reason = await backend.available();
      if (reason !== undefined) this.skip(`${backend.name}: ${reason}`);
    }
    const vm = await Vm.start(options);
    this.vms.push(vm);
    this.cleanup(() => vm.kill());
    return vm;
  }

  /** Runs `undo` after the test, in reverse order. */
  cleanup(undo: () => Promise<void> | void): void {
    this.undo.push(undo);
  }

  /** Keeps a file among the artefacts if the test fails. */
  keep(name: string, content: string | Uint8Array): void {
    this.kept.push({ name, content });
  }

  /**
   * Ends everything the test has started. Throws when a VM had a problem that the test did not
   * notice.
   */
  async finish(): Promise<void> {
    const problems = this.vms.flatMap((vm) => vm.problem() ?? []);
    for (const step of this.undo.splice(0).reverse()) {
      try {
        await withDeadline(
          Promise.resolve(step()),
          CLEANUP_TIMEOUT_MS,
          () => "clean-up after the test",
        );
      } catch (error) {
        problems.push(messageOf(error));
      }
    }
    if (problems.length > 0) throw new HarnessError(problems.join("\n"));
  }

  /** Writes the artefacts into `root`/suite/test/ and returns their paths. */
  writeArtifacts(root: string): string[] {
    const directory = join(root, slug(this.suite), slug(this.name));
    const several = this.vms.length > 1;
    const files = this.vms.flatMap((vm, index) =>
      vm.artifacts().map(({ name, content }) => ({
        name: several ? `vm${index}-${name}` : name,
        content,
      })),
    );
    const paths: string[] = [];
    for (const { name, content } of [...files, ...this.kept]) {
      if (content.length === 0) continue;
      mkdirSync(directory, { recursive: true });
      const path = join(directory, name);
      writeFileSync(path, content);
      paths.push(path);
    }
    return paths;
  }
}

function slug(name: string): string {
  const plain = name.replace(/[^\w.]+/g, "-").replace(/^-+|-+$/g, "");
  return plain.slice(0, 100) || "unnamed";
}
