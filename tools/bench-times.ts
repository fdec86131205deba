/**
 * Times and sizes beside the rates: a UDP echo's round trip through a tap, QEMU's start to the
 * first ARP answer, the image's size and the memory that QEMU takes; ours and a Linux guest's, with
 * the same QEMU options. Called by bench.ts.
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import { type StreamBackend, stream } from "../test/harness/src/backends/stream";
import { tap } from "../test/harness/src/backends/tap";
import { ARP_REPLY, ARP_REQUEST, buildArp } from "../test/harness/src/codec/arp";
import { buildEthernet, TYPE_ARP } from "../test/harness/src/codec/ethernet";
import { messageOf } from "../test/harness/src/errors";
import { mustRun } from "../test/harness/src/processes";
import { findQemu } from "../test/harness/src/qemu";
import { Program, pause, until } from "./bench-backend";
import { buildLinux, LINUX_MODULES_MEMORY_MIB, linuxUnavailable } from "./bench-linux";
import { median } from "./bench-run";

const PING_SOURCE = "test/bench/peers/udp-ping.c";
const PING = "build/bench/udp-ping";
const ECHOES = 5000;
const BOOTS = 5;
const GUEST_IP = "192.0.2.2";
const ECHO_PORT = 7;
const READY_TIMEOUT_MS = 60_000;
const PING_TIMEOUT_MS = 60_000;
const ASK_EVERY_MS = 1;
const ARP_OPERATION_AT = 14 + 6;

export interface LatencyRow {
  readonly name: string;
  readonly p50Us?: number;
  readonly p99Us?: number;
  readonly p999Us?: number;
  readonly lost?: number;
  readonly skipped?: string;
}

export interface BootRow {
  readonly name: string;
  readonly samplesMs: readonly number[];
  readonly medianMs: number;
  /** Of what QEMU loads. */
  readonly imageBytes: number;
  readonly guestMemoryMib: number;
  /** Of QEMU's process, when the guest has answered. */
  readonly residentMib: number;
  readonly skipped?: string;
}

export interface TimesResult {
  readonly latency: readonly LatencyRow[];
  readonly boot: readonly BootRow[];
}

interface Guest {
  readonly name: string;
  readonly memoryMib: number;
  readonly files: readonly string[];
  readonly load: readonly string[];
}

function vireo(words: string, name: string): Guest {
  const image = "build/vireo.elf";
  const append = `app=echo ip=${GUEST_IP}/24 ${words}`.trim();
  return { name, memoryMib: 64, files: [image], load: ["-kernel", image, "-append", append] };
}

function linux(): Guest {
  const { kernel, initramfs } = buildLinux.files;
  const append = "console=ttyS0 quiet mitigations=off panic=-1 bench=echo";
  return {
    name: "Linux guest",
    memoryMib: LINUX_MODULES_MEMORY_MIB,
    files: [kernel, initramfs],
    load: ["-kernel", kernel, "-initrd", initramfs, "-append", append],
  };
}

function command(guest: Guest, machine: string, netdev: readonly string[]): string[] {
  return [
    ...[findQemu().path, "-M", machine, "-accel", "tcg", "-cpu", "max", "-m"],
    ...[String(guest.memoryMib), "-nodefaults", "-no-user-config", "-display", "none"],
    ...["-no-reboot", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"],
    ...[...netdev, "-device", "virtio-net-pci,netdev=n0,romfile=", ...guest.load],
  ];
}

// ---- round trips --------------------------------------------------------------------------------

async function buildPing(): Promise<void> {
  if (existsSync(PING) && statSync(PING).mtimeMs > statSync(PING_SOURCE).mtimeMs) return;
  await mustRun(["gcc", "-O2", "-Wall", "-Werror", PING_SOURCE, "-o", PING]);
}

async function roundTrips(guest: Guest, cpu: number): Promise<LatencyRow> {
  const net = tap();
  const reason = await net.available();
  if (reason !== undefined) return { name: guest.name, skipped: reason };
  await net.start();
  let program: Program | undefined;
  try {
    const wrapper = ["taskset", "-c", String(cpu), ...net.wrapper];
    const running = new Program(guest.name, [
      ...wrapper,
      ...command(guest, "q35", net.netdev("n0")),
    ]);
    program = running;
    const ready = () => running.ended || running.lines.some((line) => /"ready"|^ready/.test(line));
    await until(ready, READY_TIMEOUT_MS, () => `${guest.name} is not ready:\n${running.tail()}`);
    running.check();
    const ping = [PING, GUEST_IP, String(ECHO_PORT), String(ECHOES)];
    const result = await net.exec(ping, { timeoutMs: PING_TIMEOUT_MS });
    if (result.status !== 0) throw new Error(`udp-ping ended with ${result.status}`);
    const [p50Us = 0, p99Us = 0, p999Us = 0, lost = 0] = result.stdout
      .trim()
      .split(" ")
      .map(Number);
    return { name: guest.name, p50Us, p99Us, p999Us, lost };
  } catch (error) {
    return { name: guest.name, skipped: `did not run: ${messageOf(error)}` };
  } finally {
    await program?.stop();
    await net.stop();
  }
}

// ---- boot ---------------------------------------------------------------------------------------

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
async function askUntilAnswered(net: StreamBackend, program: Program): Promise<void> {
  let answered = false;
  net.onFrame((frame) => {
    answered ||=
      frame.readUInt16BE(12) === TYPE_ARP && frame.readUInt16BE(ARP_OPERATION_AT) === ARP_REPLY;
  });
  const request = arpRequest();
  const end = performance.now() + READY_TIMEOUT_MS;
  while (!answered) {
    program.check();
    if (performance.now() > end) throw new Error(`no ARP answer:\n${program.tail()}`);
    await net.send(request);
    await pause(ASK_EVERY_MS);
  }
}

function residentMib(pid: number | undefined): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s*(\d+)/.exec(status)?.[1] ?? 0) / 1024;
}

async function bootOnce(guest: Guest, machine: string): Promise<{ ms: number; mib: number }> {
  const net = stream();
  await net.start();
  const begin = performance.now();
  const program = new Program(guest.name, command(guest, machine, net.netdev("n0")));
  try {
    await askUntilAnswered(net, program);
    return { ms: performance.now() - begin, mib: residentMib(program.process.child.pid) };
  } finally {
    await program.stop();
    await net.stop();
  }
}

async function boots(guest: Guest, machine: string): Promise<BootRow> {
  const common = {
    name: `${guest.name}, ${machine.split(",")[0]}`,
    imageBytes: guest.files.reduce((sum, file) => sum + statSync(file).size, 0),
    guestMemoryMib: guest.memoryMib,
  };
  try {
    const samples: { ms: number; mib: number }[] = [];
    for (let i = 0; i < BOOTS; i++) samples.push(await bootOnce(guest, machine));
    const samplesMs = samples.map(({ ms }) => ms);
    const mib = median(samples.map((sample) => sample.mib));
    return { ...common, samplesMs, medianMs: median(samplesMs), residentMib: mib };
  } catch (error) {
    const skipped = `did not run: ${messageOf(error)}`;
    return { ...common, samplesMs: [], medianMs: 0, residentMib: 0, skipped };
  }
}

export async function measureTimes(
  cpu: number,
  progress: (text: string) => void,
): Promise<TimesResult> {
  await buildPing();
  const ours = [vireo("mode=adaptive", "vireo, adaptive"), vireo("mode=poll", "vireo, poll")];
  const reason = linuxUnavailable();
  if (reason === undefined) await buildLinux();
  const latency: LatencyRow[] = [];
  for (const guest of [...ours, ...(reason === undefined ? [linux()] : [])]) {
    progress(`UDP echo: ${guest.name}`);
    latency.push(await roundTrips(guest, cpu));
  }
  if (reason !== undefined) latency.push({ name: "Linux guest", skipped: reason });
  const boot: BootRow[] = [];
  const machines = ["microvm,pcie=on", "q35"];
  for (const machine of machines) {
    progress(`boot: vireo on ${machine}`);
    boot.push(await boots(vireo("", "vireo"), machine));
  }
  progress("boot: Linux");
  if (reason === undefined) boot.push(await boots(linux(), "q35"));
  return { latency, boot };
}

const us = (value: number | undefined) => (value ?? 0).toFixed(1).padStart(8);

export function timesTable({ latency, boot }: TimesResult): string {
  return [
    "UDP echo through a tap, TCG, microseconds (p50, p99, p99.9)",
    ...latency.map(({ name, p50Us, p99Us, p999Us, lost, skipped }) =>
      skipped === undefined
        ? `  ${name.padEnd(24)}${us(p50Us)} ${us(p99Us)} ${us(p999Us)}   ${lost} lost of ${ECHOES}`
        : `  ${name.padEnd(24)}skipped: ${skipped.split("\n")[0]}`,
    ),
    "",
    "QEMU's start to the first ARP answer, TCG; what is loaded; memory",
    ...boot.map((row) =>
      row.skipped === undefined
        ? `  ${row.name.padEnd(24)}${row.medianMs.toFixed(0).padStart(6)} ms  ` +
          `${(row.imageBytes / 1024).toFixed(0).padStart(6)} KiB  ` +
          `${row.guestMemoryMib} MiB given, ${row.residentMib.toFixed(0)} MiB resident in QEMU`
        : `  ${row.name.padEnd(24)}skipped: ${row.skipped.split("\n")[0]}`,
    ),
  ].join("\n");
}
