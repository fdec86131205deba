// Boots the image behind each kind of backend, with all that QEMU can be made to offer there, and
// answers what was offered and accepted. Used by features.ts and by its integration test.

import type { Backend, DeviceOptions } from "../test/harness/src/backends/backend";
import { ovs } from "../test/harness/src/backends/ovs-switch";
import { stream } from "../test/harness/src/backends/stream";
import { tap } from "../test/harness/src/backends/tap";
import { user } from "../test/harness/src/backends/user";
import { vhostNet } from "../test/harness/src/backends/vhost-net";
import { vhostUser } from "../test/harness/src/backends/vhost-user";
import { whatIsMissing } from "../test/harness/src/runner/requirements";
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

/** With a back end in another process, on two queue pairs. */
const ELSEWHERE: DeviceOptions = { ...EVERYTHING, mq: true, vectors: 6 };

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
    options: ELSEWHERE,
  },
  { name: "vhost-net", make: () => vhostNet({ queues: 2 }), options: ELSEWHERE },
];

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

/** A port of a switch of its own. The kernel's datapath ends in vhost-net, which has a column. */
async function askOpenVswitch(image?: string): Promise<Column> {
  const name = "Open vSwitch";
  const missing = whatIsMissing(["ovs-dpdk"]);
  if (missing !== undefined) return skippedColumn(name, missing.reason);
  const bridge = ovs({ datapath: "userspace" });
  try {
    await bridge.start();
    const make = () => bridge.port({ queues: 2 });
    return await ask({ name, make, options: ELSEWHERE }, image);
  } finally {
    await bridge.stop();
  }
}

/** A column for each backend, one after the other. */
export async function askAll(image?: string): Promise<Column[]> {
  const columns: Column[] = [];
  for (const question of QUESTIONS) columns.push(await ask(question, image));
  columns.push(await askOpenVswitch(image));
  return columns;
}
