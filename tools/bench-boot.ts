/**
 * From QEMU's start to the first ARP answer, what is loaded for it, and the memory it takes: ours
 * and a Linux guest's, with the same QEMU options. Called by bench.ts.
 */
import { readFileSync, statSync } from "node:fs";
import { type StreamBackend, stream } from "../test/harness/src/backends/stream";
import { ARP_REPLY, ARP_REQUEST, buildArp } from "../test/harness/src/codec/arp";
import { buildEthernet, TYPE_ARP } from "../test/harness/src/codec/ethernet";
import { HarnessError, messageOf } from "../test/harness/src/errors";
import { Program, pause } from "./bench-backend";
import { GUEST_IP, type Guest, guestCommand, linuxGuest, vireoGuest } from "./bench-guests";
import { median } from "./bench-run";

const BOOTS = 5;
const ANSWER_TIMEOUT_MS = 60_000;
const ASK_EVERY_MS = 1;
/** Of the time passed: so often is asked later, so that questions do not fill QEMU's socket. */
const ASK_EVERY_PART = 0.01;
const ARP_OPERATION_AT = 14 + 6;
/** A guest with too little memory may hang; how much slower than usual one may be, and at least. */
const PATIENCE = 2;
const PATIENCE_MS = 3000;

export interface BootCase {
  readonly id: string;
  readonly machine: string;
  readonly guest: Guest;
}

export interface BootRow {
  readonly id: string;
  readonly name: string;
  readonly samplesMs: readonly number[];
  readonly medianMs: number;
  /** Of what QEMU loads. */
  readonly imageBytes: number;
  readonly guestMemoryMib: number;
  /** Of QEMU's process, when the guest has answered. */
  readonly residentMib: number;
  /** The least that it answers with. */
  readonly leastMemoryMib: number;
  readonly skipped?: string;
}

function bootCase(guest: Guest, name: string, machine: string): BootCase {
  const [short = machine] = machine.split(",");
  return { id: `${name}-${short}`, machine, guest: { ...guest, name: `${name}, ${short}` } };
}

const MACHINES = ["microvm,pcie=on", "q35"];
export const BOOT_CASES: readonly BootCase[] = [
  ...MACHINES.map((machine) => bootCase(vireoGuest("adaptive"), "vireo", machine)),
  ...MACHINES.map((machine) => bootCase(linuxGuest(), "linux", machine)),
];

function arpRequest(): Buffer {
  const sender = "02:00:00:00:00:01";
  const payload = buildArp({
    operation: ARP_REQUEST,
    senderMac: sender,
    senderIp: "192.0.2.1",
    targetMac: "00:00:00:00:00:00",
    targetIp: GUEST_IP,
  });
  const destination = "ff:ff:ff:ff:ff:ff";
  return buildEthernet({ destination, source: sender, type: TYPE_ARP, payload });
}

/** Asks again and again from the moment on that QEMU is there. */
async function askUntilAnswered(net: StreamBackend, program: Program, timeoutMs: number) {
  let answered = false;
  net.onFrame((frame) => {
    answered ||=
      frame.readUInt16BE(12) === TYPE_ARP && frame.readUInt16BE(ARP_OPERATION_AT) === ARP_REPLY;
  });
  const request = arpRequest();
  const begin = performance.now();
  while (!answered) {
    program.check();
    const passed = performance.now() - begin;
    if (passed > timeoutMs) throw new HarnessError(`no ARP answer:\n${program.tail()}`);
    await net.send(request);
    await pause(Math.max(ASK_EVERY_MS, passed * ASK_EVERY_PART));
  }
}

function residentMib(pid: number | undefined): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s*(\d+)/.exec(status)?.[1] ?? 0) / 1024;
}

interface Boot {
  readonly ms: number;
  readonly mib: number;
}

async function bootOnce(
  { guest, machine }: BootCase,
  memoryMib: number,
  timeoutMs: number,
): Promise<Boot> {
  const net = stream();
  await net.start();
  const command = guestCommand(guest, machine, net.netdev("n0"), memoryMib);
  const begin = performance.now();
  const program = new Program(guest.name, command);
  try {
    await askUntilAnswered(net, program, timeoutMs);
    return { ms: performance.now() - begin, mib: residentMib(program.process.child.pid) };
  } finally {
    await program.stop();
    await net.stop();
  }
}

/** Whether it boots with so little; that it does not is an answer here, not a failure. */
async function bootsWith(what: BootCase, memoryMib: number, timeoutMs: number): Promise<boolean> {
  try {
    await bootOnce(what, memoryMib, timeoutMs);
    return true;
  } catch {
    return false;
  }
}

/** The least memory in MiB that `works` says yes to; it does with `most`. */
export async function leastThatWorks(
  most: number,
  works: (mib: number) => Promise<boolean>,
): Promise<number> {
  let [low, high] = [0, most];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (await works(middle)) high = middle;
    else low = middle;
  }
  return high;
}

async function measureOne(what: BootCase, progress: (text: string) => void): Promise<BootRow> {
  const { guest } = what;
  const reason = await guest.unavailable();
  if (reason !== undefined) throw new HarnessError(reason);
  const boots: Boot[] = [];
  for (let i = 1; i <= BOOTS; i++) {
    progress(`boot: ${guest.name}, ${i} of ${BOOTS}`);
    boots.push(await bootOnce(what, guest.memoryMib, ANSWER_TIMEOUT_MS));
  }
  const samplesMs = boots.map(({ ms }) => ms);
  const patienceMs = PATIENCE_MS + PATIENCE * Math.max(...samplesMs);
  const least = await leastThatWorks(guest.memoryMib, (mib) => {
    progress(`boot: ${guest.name} with ${mib} MiB`);
    return bootsWith(what, mib, patienceMs);
  });
  return {
    ...{ id: what.id, name: guest.name, samplesMs, medianMs: median(samplesMs) },
    imageBytes: guest.files.reduce((sum, file) => sum + statSync(file).size, 0),
    guestMemoryMib: guest.memoryMib,
    residentMib: median(boots.map(({ mib }) => mib)),
    leastMemoryMib: least,
  };
}

export async function measureBoot(
  cases: readonly BootCase[],
  progress: (text: string) => void,
): Promise<BootRow[]> {
  const rows: BootRow[] = [];
  for (const what of cases) {
    try {
      rows.push(await measureOne(what, progress));
    } catch (error) {
      const none = { samplesMs: [], medianMs: 0, imageBytes: 0, residentMib: 0, leastMemoryMib: 0 };
      const { name, memoryMib: guestMemoryMib } = what.guest;
      rows.push({ ...none, id: what.id, name, guestMemoryMib, skipped: messageOf(error) });
    }
  }
  return rows;
}
