// The `vhost-net` backend: a tap whose rings the host kernel itself reads and writes, in threads
// named after QEMU's process. The threads' own counters are the witness that it was they who did.

import { readdirSync, readFileSync } from "node:fs";
import { TapBackend, type TapOptions } from "./tap";

/** One of the kernel's vhost threads. */
export interface VhostWorker {
  readonly tid: number;
  /** Nanoseconds on a CPU. */
  readonly ranNs: number;
  /** How often it was given a CPU. */
  readonly slices: number;
}

export class VhostNetBackend extends TapBackend {
  override readonly name = "vhost-net";

  constructor(options: Omit<TapOptions, "vhost">) {
    super({ ...options, vhost: true });
  }

  /**
   * The vhost threads that work for QEMU's process `pid`. Kernels up to 6.3 have them as threads of
   * the kernel, later ones as threads of QEMU.
   */
  workers(pid: number): VhostWorker[] {
    const name = `vhost-${pid}`;
    const tasks = [...numbersIn("/proc"), ...numbersIn(`/proc/${pid}/task`)];
    const named = new Set(tasks.filter((tid) => read(`/proc/${tid}/comm`).trim() === name));
    return [...named].map((tid) => {
      const [ranNs = 0, , slices = 0] = read(`/proc/${tid}/schedstat`).split(" ").map(Number);
      return { tid, ranNs, slices };
    });
  }
}

function numbersIn(directory: string): number[] {
  try {
    return readdirSync(directory).map(Number).filter(Number.isInteger);
  } catch {
    return [];
  }
}

/** Empty for a thread that has just ended. */
function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** A new tap with vhost-net in a namespace of its own, for one VM. */
export function vhostNet(options: Omit<TapOptions, "vhost"> = {}): VhostNetBackend {
  return new VhostNetBackend(options);
}
