/**
 * The Linux guest that the benchmark compares with: Debian's kernel and an initramfs of busybox, a
 * few modules and a script, made on the fly from Debian packages that are downloaded but not
 * installed. Used by bench-contenders.ts and bench-latency.ts.
 *
 * What the guest does is in its command line: `bench=pktgen size=N`, `bench=receive`, `bench=echo`.
 */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { findProgram, mustRun } from "../test/harness/src/processes";
import { archiveOf } from "./bench-cpio";

const WORK = "build/bench/linux";
const MODULES = ["virtio_pci", "virtio_net", "pktgen"];
const DOWNLOAD_TIMEOUT_MS = 180_000;
const UNPACK_TIMEOUT_MS = 60_000;
const SCRIPT = "test/bench/peers/linux-init.sh";
const ECHO = "test/bench/peers/udp-echo.c";

export const LINUX_MODULES_MEMORY_MIB = 256;

/** Why it cannot be made, or undefined. */
export function linuxUnavailable(): string | undefined {
  const needed = ["apt-get", "apt-cache", "dpkg-deb", "gcc"];
  const missing = needed.filter((program) => findProgram(program) === undefined);
  return missing.length > 0 ? `needs ${missing.join(", ")}` : undefined;
}

/** Makes the guest's kernel and initramfs, once; later calls take what is there. */
export async function buildLinux(): Promise<void> {
  const { kernel, initramfs } = buildLinux.files;
  if (existsSync(kernel) && existsSync(initramfs)) return;
  rmSync(WORK, { recursive: true, force: true });
  mkdirSync(`${WORK}/root`, { recursive: true });
  const depends = await mustRun(["apt-cache", "depends", "linux-image-amd64"], DOWNLOAD_TIMEOUT_MS);
  const image = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (image === undefined) throw new Error("apt knows no kernel: run 'apt-get update' first");
  const download = ["apt-get", "download", "-q", image, "busybox-static"];
  await mustRun(["env", "-C", WORK, ...download], DOWNLOAD_TIMEOUT_MS);
  for (const name of readdirSync(WORK).filter((file) => file.endsWith(".deb"))) {
    await mustRun(["dpkg-deb", "-x", join(WORK, name), `${WORK}/unpacked`], UNPACK_TIMEOUT_MS);
  }
  const version = image.replace("linux-image-", "");
  await fillRoot(`${WORK}/unpacked`, version);
  copyFileSync(`${WORK}/unpacked/boot/vmlinuz-${version}`, kernel);
  writeFileSync(initramfs, archiveOf(`${WORK}/root`));
  rmSync(`${WORK}/unpacked`, { recursive: true });
}
buildLinux.files = { kernel: `${WORK}/vmlinuz`, initramfs: `${WORK}/initramfs.cpio` };

async function fillRoot(unpacked: string, version: string): Promise<void> {
  const root = `${WORK}/root`;
  for (const folder of ["bin", "modules", "proc", "sys", "dev"]) {
    mkdirSync(`${root}/${folder}`, { recursive: true });
  }
  copyFileSync(findBusybox(unpacked), `${root}/bin/busybox`);
  await mustRun(["gcc", "-O2", "-static", "-Wall", "-Werror", ECHO, "-o", `${root}/bin/udp-echo`]);
  copyFileSync(SCRIPT, `${root}/init`);
  for (const file of ["init", "bin/busybox", "bin/udp-echo"]) chmodSync(`${root}/${file}`, 0o755);
  const base = findModules(unpacked, version);
  // In the order in which they have to be loaded.
  const files = modulesWithDependencies(base);
  writeFileSync(`${root}/modules/order`, files.map((file) => `${basename(file)}\n`).join(""));
  for (const file of files) {
    copyFileSync(join(base, file), `${root}/modules/${basename(file)}`);
  }
}

function findBusybox(unpacked: string): string {
  const places = ["bin/busybox", "usr/bin/busybox"].map((path) => `${unpacked}/${path}`);
  const found = places.find((path) => existsSync(path));
  if (found === undefined) throw new Error("the package busybox-static has no busybox in it");
  return found;
}

function findModules(unpacked: string, version: string): string {
  const places = ["lib/modules", "usr/lib/modules"].map((path) => `${unpacked}/${path}/${version}`);
  const found = places.find((path) => existsSync(path));
  if (found === undefined) throw new Error(`the kernel's package has no modules of ${version}`);
  return found;
}

/** Module files with all that they need in front of them. The package has no modules.dep. */
function modulesWithDependencies(base: string): string[] {
  const all = readdirSync(base, { recursive: true, encoding: "utf8" });
  const byName = new Map(
    all
      .filter((file) => file.endsWith(".ko"))
      .map((file) => [basename(file, ".ko").replaceAll("-", "_"), file]),
  );
  const chosen: string[] = [];
  const add = (name: string) => {
    const file = byName.get(name);
    // What is not a module is built into the kernel.
    if (file === undefined || chosen.includes(file)) return;
    for (const needed of dependenciesOf(join(base, file))) add(needed);
    chosen.push(file);
  };
  for (const name of MODULES) add(name);
  if (chosen.length === 0) throw new Error(`no modules in ${base}`);
  return chosen;
}

/** The module's own list, in its section .modinfo: `depends=a,b`. */
function dependenciesOf(file: string): string[] {
  const match = /\0depends=([^\0]*)\0/.exec(readFileSync(file, "latin1"));
  return (match?.[1] ?? "").split(",").filter((name) => name !== "");
}
