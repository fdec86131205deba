// The host lab: a Debian kernel under QEMU's TCG, which emulates AMD's SVM, so that there are
// /dev/kvm, /dev/vhost-net and the kernel's Open vSwitch on any machine. Its root is the host's own
// file system (read over 9p, with a writable layer in memory), so every program and every test file
// is where it is outside. The runner runs test files in it, and `qemu-test-harness lab` anything.
//
//   host                                 lab
//   /            9p, read-only    ->     / (lower layer; what is written stays in memory)
//   build/       9p, both ways    <->    build/
//   our stdio    virtio console   <->    the job's terminal
//   build/lab/job-*/console.log   <-     the kernel's messages (COM1)

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { dirname, join, resolve } from "node:path";
import { delay } from "../deadline";
import { DeadlineError, EnvironmentError, HarnessError } from "../errors";
import { type ManagedProcess, startProcess } from "../processes";
import { findQemu } from "../qemu";
import { atExit, uniqueName } from "../run-scope";
import { type LabImage, labImage } from "./image";
import { WANTED_MODULES } from "./modules";

/** Set in the lab, to its kernel's release. */
export const LAB_VARIABLE = "QEMU_TEST_HARNESS_LAB";

const BUILD = "build";
const BOOT_TIMEOUT_MS = 180_000;
const POLL_MS = 50;
const MEMORY_MIB = 3072;
const LONGEST_COMMAND = 100_000;

export interface LabOptions {
  /** For the command; PATH, HOME and TERM are set. */
  readonly environment?: Readonly<Record<string, string>>;
  /** The command's terminal; our own standard input and output unless given. */
  readonly onOutput?: (chunk: Buffer) => void;
  /** From the command's start on; none unless given. */
  readonly timeoutMs?: number;
}

export interface LabResult {
  /** The command's, as a shell has it. */
  readonly status: number;
  readonly release: string;
  /** From the start of QEMU until the command began. */
  readonly bootMs: number;
}

/** What ran, in one line: for whoever reads a log later. */
export function describeLab({ release, bootMs }: LabResult): string {
  const seconds = (bootMs / 1000).toFixed(1);
  return `lab: Linux ${release}, up in ${seconds} s, with ${WANTED_MODULES.join(" ")}`;
}

/** True inside the lab. */
export function inLab(): boolean {
  return process.env[LAB_VARIABLE] !== undefined;
}

/** This package's directory, also when its code has been bundled. */
export function packageDirectory(): string {
  const require = createRequire(join(process.cwd(), "package.json"));
  return dirname(require.resolve("qemu-test-harness/package.json"));
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/** Gets the lab's kernel and first file system ready; says in an EnvironmentError why it cannot. */
export function prepareLab(): Promise<LabImage> {
  const script = (name: string) => join(packageDirectory(), "lab", name);
  const scripts = { init: script("init.sh"), guest: script("linux-guest.sh") };
  return labImage(join(resolve(BUILD), "lab"), scripts);
}

/** Boots the lab, runs `argv` in it in this directory, and turns it off. */
export async function runInLab(
  argv: readonly string[],
  options: LabOptions = {},
): Promise<LabResult> {
  const image = await prepareLab();
  const job = join(resolve(BUILD), "lab", `job-${uniqueName()}`);
  mkdirSync(job, { recursive: true });
  const forget = atExit(() => rmSync(job, { recursive: true, force: true }));
  // What is read by a program wants no live lines.
  const terminal: Record<string, string> = options.onOutput === undefined ? {} : { TERM: "dumb" };
  const environment = { ...terminal, ...options.environment };
  const exports = Object.entries(environment).map(
    ([name, value]) => `export ${name}=${quoted(value)}\n`,
  );
  const script = `${exports.join("")}exec ${argv.map(quoted).join(" ")}\n`;
  if (script.length > LONGEST_COMMAND) throw new HarnessError("lab: the command is too long");
  writeFileSync(join(job, "job"), script);
  const begin = performance.now();
  const machine = startMachine(image, job, options.onOutput);
  try {
    await awaitBoot(machine, job, begin);
    const bootMs = Math.round(performance.now() - begin);
    const status = await awaitEnd(machine, job, options.timeoutMs);
    return { status, release: image.release, bootMs };
  } finally {
    await machine.stop();
    forget();
    rmSync(job, { recursive: true, force: true });
  }
}

function startMachine(
  image: LabImage,
  job: string,
  onOutput: ((chunk: Buffer) => void) | undefined,
): ManagedProcess {
  const [program = "", ...args] = labCommand(findQemu().path, image, job);
  const inherited = onOutput === undefined;
  const machine = startProcess(program, args, {
    stdio: inherited ? "inherit" : ["ignore", "pipe", "pipe"],
  });
  if (onOutput !== undefined) {
    machine.child.stdout?.on("data", onOutput);
    machine.child.stderr?.on("data", onOutput);
  }
  return machine;
}

/** QEMU's command line for the lab. */
export function labCommand(qemuPath: string, image: LabImage, job: string): string[] {
  const directory = process.cwd();
  const build = resolve(BUILD);
  const places = {
    LAB_HARNESS: packageDirectory(),
    LAB_DIRECTORY: directory,
    LAB_BUILD: build,
    LAB_JOB: job,
  };
  for (const path of Object.values(places)) {
    if (/[\s,"]/.test(path)) {
      throw new EnvironmentError(`lab: '${path}' has a space, comma or quote: move the project`);
    }
  }
  const words = Object.entries(places).map(([name, path]) => `${name}=${path}`);
  // Nothing here defends anybody; and a kernel under emulation should not check its clocks.
  const kernel = ["console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on nokaslr"];
  const clock = ["tsc=reliable nowatchdog rcupdate.rcu_expedited=1 audit=0"];
  const share = "security_model=none,multidevs=remap";
  return [
    qemuPath,
    ...["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,+svm"],
    ...["-smp", String(Math.min(4, Math.max(2, cpus().length))), "-m", String(MEMORY_MIB)],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-kernel", image.kernel, "-initrd", image.initramfs],
    ...["-append", [...kernel, ...clock, ...words].join(" ")],
    ...["-chardev", `file,id=messages,path=${join(job, "console.log")}`],
    ...["-serial", "chardev:messages"],
    ...["-device", "virtio-serial-pci", "-chardev", "stdio,id=terminal,signal=off"],
    ...["-device", "virtconsole,chardev=terminal"],
    ...["-virtfs", `local,path=/,mount_tag=host,readonly=on,${share}`],
    ...["-virtfs", `local,path=${build},mount_tag=build,${share}`],
  ];
}

async function awaitBoot(machine: ManagedProcess, job: string, begin: number): Promise<void> {
  while (!existsSync(join(job, "up"))) {
    if (!machine.running) throw new HarnessError(`the lab has ended while it booted${tail(job)}`);
    if (performance.now() - begin > BOOT_TIMEOUT_MS) {
      throw new DeadlineError(`the lab is not up within ${BOOT_TIMEOUT_MS} ms${tail(job)}`);
    }
    await delay(POLL_MS);
  }
}

async function awaitEnd(
  machine: ManagedProcess,
  job: string,
  timeoutMs: number | undefined,
): Promise<number> {
  let expired = false;
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          expired = true;
          machine.kill();
        }, timeoutMs);
  await machine.exited;
  clearTimeout(timer);
  if (expired) throw new DeadlineError(`the lab's job exceeds ${timeoutMs} ms${tail(job)}`);
  const path = join(job, "status");
  if (!existsSync(path)) throw new HarnessError(`the lab has ended before its job${tail(job)}`);
  return Number(readFileSync(path, "utf8"));
}

/** The kernel's last words. */
function tail(job: string): string {
  const path = join(job, "console.log");
  const lines = existsSync(path) ? readFileSync(path, "utf8").trimEnd().split("\n") : [];
  const shown = lines.slice(-15).filter((line) => line !== "");
  return shown.length === 0 ? "" : `; its kernel says:\n${shown.join("\n")}`;
}
