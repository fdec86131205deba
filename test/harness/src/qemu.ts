// Finds QEMU and checks its version. Called before anything boots; its errors are one line each and
// say what to do.

import { spawnSync } from "node:child_process";
import { EnvironmentError } from "./errors";
import { findProgram } from "./processes";

export interface Qemu {
  readonly path: string;
  /** As QEMU prints it, for example `10.0.2`. */
  readonly version: string;
  readonly major: number;
  readonly minor: number;
}

const PROGRAM = "qemu-system-x86_64";
let found: Qemu | undefined;

/** The installed QEMU. Throws EnvironmentError when there is none or it does not answer. */
export function findQemu(): Qemu {
  if (found !== undefined) return found;
  const path = findProgram(PROGRAM);
  if (path === undefined) {
    throw new EnvironmentError(
      `${PROGRAM} not found: install it (Debian: apt install qemu-system-x86)`,
    );
  }
  const answer = spawnSync(path, ["--version"], { encoding: "utf8", timeout: 10_000 });
  found = parseVersion(path, answer.stdout ?? "");
  return found;
}

/** Reads the first line of `qemu-system-x86_64 --version`. */
export function parseVersion(path: string, output: string): Qemu {
  const match = /version (\d+)\.(\d+)(\.\d+)?/.exec(output);
  if (match === null) {
    throw new EnvironmentError(`${path} --version does not name a version: reinstall QEMU`);
  }
  const [, major = "0", minor = "0", patch = ""] = match;
  return { path, version: `${major}.${minor}${patch}`, major: Number(major), minor: Number(minor) };
}

/** Why this QEMU cannot be used with vhost-user, or undefined when it can. */
export function vhostUserUnavailable(qemu: Qemu): string | undefined {
  if (qemu.major > 8 || (qemu.major === 8 && qemu.minor >= 2)) return undefined;
  return (
    `QEMU ${qemu.version} may crash with vhost-user when a guest resets the device; 8.2 or newer ` +
    "is needed (Debian 12: apt install -t bookworm-backports qemu-system-x86)"
  );
}
