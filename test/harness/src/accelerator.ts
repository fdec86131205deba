// Decides between KVM and TCG by booting the image under KVM with a deadline. Asked by the VM
// ('auto'), by `make run` and by `qemu-test-harness probe`.
//
// The existence of /dev/kvm proves nothing: where virtual machines are nested in software, an
// ordinary guest may take minutes to its first instruction. The probe is the image itself, started
// with no network card: by its contract it then reports that no virtio-net device was found and
// ends with status 35, which shows that it booted.

import { accessSync, constants, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { dirname } from "node:path";
import { messageOf } from "./errors";
import { parseEvent } from "./events";
import { inLab } from "./lab/lab";
import { runCommand } from "./processes";
import { findQemu } from "./qemu";

export interface Choice {
  readonly accelerator: "kvm" | "tcg";
  /** A sentence for people. */
  readonly reason: string;
}

interface Remembered extends Choice {
  readonly key: string;
  readonly imageTime: number;
}

const PROBE_TIMEOUT_MS = 10_000;
const CACHE = inLab() ? "build/lab/accelerator.json" : "build/accelerator.json";
const DEVICE = "/dev/kvm";
const STATUS_FAILURE = 35;

/**
 * The accelerator to use for `image` on this machine. Remembered until the machine, its kernel or
 * QEMU changes.
 */
export async function chooseAccelerator(image: string): Promise<Choice> {
  const deviceTime = modificationTime(DEVICE);
  if (deviceTime === undefined) {
    return { accelerator: "tcg", reason: `${DEVICE} does not exist, so QEMU emulates (TCG).` };
  }
  if (!usable(DEVICE)) {
    const reason = `this user may not open ${DEVICE} (its group may), so QEMU emulates (TCG).`;
    return { accelerator: "tcg", reason };
  }
  const key = [bootId(), release(), findQemu().version, deviceTime].join(" ");
  const imageTime = modificationTime(image) ?? 0;
  const known = readCache();
  // A refusal may have been the image's fault, so it is tried again with every new image.
  const stillTrue = known?.accelerator === "kvm" || known?.imageTime === imageTime;
  if (known !== undefined && known.key === key && stillTrue) return known;
  const choice = await probe(image);
  mkdirSync(dirname(CACHE), { recursive: true });
  writeFileSync(CACHE, `${JSON.stringify({ key, imageTime, ...choice }, null, 2)}\n`);
  return choice;
}

function modificationTime(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs;
}

function usable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return "unknown boot";
  }
}

function readCache(): Remembered | undefined {
  try {
    return JSON.parse(readFileSync(CACHE, "utf8")) as Remembered;
  } catch {
    return undefined;
  }
}

async function probe(image: string): Promise<Choice> {
  const command = [
    findQemu().path,
    ...["-M", "q35", "-accel", "kvm", "-cpu", "host,arch-capabilities=off", "-m", "64"],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
    ...["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"],
    ...["-kernel", image, "-append", "app=idle"],
  ];
  const begin = Date.now();
  try {
    const result = await runCommand(command, { timeoutMs: PROBE_TIMEOUT_MS });
    const seconds = ((Date.now() - begin) / 1000).toFixed(1);
    return judge(result.status, result.stdout, result.stderr, seconds);
  } catch (error) {
    return {
      accelerator: "tcg",
      reason: `KVM is not usable here (${messageOf(error)}); using TCG.`,
    };
  }
}

function judge(status: number | null, stdout: string, stderr: string, seconds: string): Choice {
  const events = stdout.split("\n").map((line) => parseEvent(line.trim()));
  const refusal = events.find((event) => event?.event === "error");
  if (status === STATUS_FAILURE && /virtio-net/.test(String(refusal?.message))) {
    return { accelerator: "kvm", reason: `KVM works: the image booted under it in ${seconds} s.` };
  }
  const said = stderr.trim().split("\n")[0] || `status ${status} after ${seconds} s`;
  return { accelerator: "tcg", reason: `KVM did not boot the image (${said}); using TCG.` };
}
