// Boots the image behind each kind of backend, with all that QEMU can be made to offer there, and
// answers what was offered and accepted. Used by features.ts and by its integration test.

import { spawnSync } from "node:child_process";
import type { Backend, DeviceOptions } from "../test/harness/src/backends/backend";
import { stream } from "../test/harness/src/backends/stream";
import { tap } from "../test/harness/src/backends/tap";
import { user } from "../test/harness/src/backends/user";
import { vhostUser } from "../test/harness/src/backends/vhost-user";
import { findProgram } from "../test/harness/src/processes";
import { Vm } from "../test/harness/src/vm";
import { type Column, columnOf, skippedColumn } from "./features-table";

/** What QEMU only offers when it is told to. */
const EVERYTHING: DeviceOptions = {
  packed: true,
  in_order: true,
  guest_rsc_ext: true,
  host_mtu: 1500,
  speed: 1000,
  duplex: "full",
};
/** With several queues, and a backend in QEMU's own process. */
const STEERING: DeviceOptions = { rss: true, hash: true };

interface Question {
  readonly name: string;
  readonly make: () => Backend;
  readonly options: DeviceOptions;
}

const QUESTIONS: readonly Question[] = [
  { name: "user", make: () => user(), options: EVERYTHING },
  { name: "stream", make: () => stream(), options: EVERYTHING },
  { name: "tap", make: () => tap({ queues: 2 }), options: { ...EVERYTHING, ...STEERING } },
  {
    name: "vhost-user",
    make: () => vhostUser({ mode: "rxonly", queues: 2, deviceArguments: "tso=1" }),
    options: { ...EVERYTHING, mq: true, vectors: 6 },
  },
];

/** Why Open vSwitch cannot be asked on this machine. */
function withoutOpenVswitch(): string {
  const path = findProgram("ovs-vswitchd");
  if (path === undefined) return "needs Open vSwitch with DPDK; ovs-vswitchd is not installed";
  const { stdout } = spawnSync(path, ["--version"], { encoding: "utf8", timeout: 10_000 });
  return /DPDK/.test(stdout)
    ? "its vhost-user ports are DPDK's, which the column vhost-user shows"
    : "has no vhost-user ports: it was built without DPDK";
}

async function ask({ name, make, options }: Question, image?: string): Promise<Column> {
  const backend = make();
  const reason = await backend.available();
  if (reason !== undefined) return skippedColumn(name, reason);
  const vm = await Vm.start({
    ...(image === undefined ? {} : { image }),
    append: "app=idle",
    cpus: 2,
    memoryMib: 128,
    nics: [{ backend, options }],
    // A backend has less than QEMU was asked for, which QEMU says.
    stderrAllowed: [/warning: /],
  });
  try {
    const device = await vm.waitFor("device", { timeoutMs: 30_000 });
    const features = await vm.waitFor("features", { timeoutMs: 30_000 });
    await vm.waitFor("ready", { timeoutMs: 30_000 });
    await vm.stop();
    return columnOf(name, device, features);
  } finally {
    await vm.kill();
  }
}

/** A column for each backend, one after the other. */
export async function askAll(image?: string): Promise<Column[]> {
  const columns: Column[] = [];
  for (const question of QUESTIONS) columns.push(await ask(question, image));
  columns.push(skippedColumn("Open vSwitch", withoutOpenVswitch()));
  return columns;
}
