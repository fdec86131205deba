/**
 * The Linux guest that the benchmark compares with: Debian's kernel and an initramfs of busybox, a
 * few modules and a script, made on the fly from Debian packages that are downloaded but not
 * installed. Used by bench-contenders.ts and bench-guests.ts.
 *
 * What the guest does is in its command line; test/bench/peers/linux-init.sh has the words.
 */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { findProgram, mustRun } from "../test/harness/src/processes";
import { archiveOf } from "./bench-cpio";

const WORK = "build/bench/linux";
/** Loaded at once; uio_pci_generic, for DPDK, is loaded in place of them. */
const MODULES = ["virtio_pci", "virtio_net", "pktgen"];
const DPDK_MODULES = ["uio_pci_generic"];
/** What testpmd is not linked to but told of. */
const LIBRARIES = "/lib/x86_64-linux-gnu";
const DPDK_PLUGINS = ["bus_pci", "bus_vdev", "mempool_ring", "net_virtio"];
const DOWNLOAD_TIMEOUT_MS = 180_000;
const UNPACK_TIMEOUT_MS = 60_000;
const SCRIPT = "test/bench/peers/linux-init.sh";
/** Programs of the guest, one C file each. */
const PROGRAMS = ["udp-echo", "gso-source"];
const sourceOf = (program: string) => `test/bench/peers/${program}.c`;

export const LINUX_MODULES_MEMORY_MIB = 512;

/** Why it cannot be made, or undefined. */
export function linuxUnavailable(): string | undefined {
  const needed = ["apt-get", "apt-cache", "dpkg-deb", "gcc"];
  const missing = needed.filter((program) => findProgram(program) === undefined);
  return missing.length > 0 ? `needs ${missing.join(", ")}` : undefined;
}

/** Makes the guest's kernel and initramfs, unless they are newer than their sources. */
export async function buildLinux(): Promise<void> {
  const { kernel, initramfs, initramfsDpdk } = buildLinux.files;
  const sources = [SCRIPT, ...PROGRAMS.map(sourceOf)].map((path) => statSync(path).mtimeMs);
  const isNew = existsSync(initramfs) && statSync(initramfs).mtimeMs > Math.max(...sources);
  if (isNew && existsSync(kernel) && existsSync(initramfsDpdk)) return;
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
  await addDpdk(`${WORK}/root`);
  writeFileSync(initramfsDpdk, archiveOf(`${WORK}/root`));
  rmSync(`${WORK}/unpacked`, { recursive: true });
}
/** Those who need no DPDK are not to boot with it. */
buildLinux.files = {
  kernel: `${WORK}/vmlinuz`,
  initramfs: `${WORK}/initramfs.cpio`,
  initramfsDpdk: `${WORK}/initramfs-dpdk.cpio`,
};

async function fillRoot(unpacked: string, version: string): Promise<void> {
  const root = `${WORK}/root`;
  for (const folder of ["bin", "modules", "proc", "sys", "dev"]) {
    mkdirSync(`${root}/${folder}`, { recursive: true });
  }
  copyFileSync(findBusybox(unpacked), `${root}/bin/busybox`);
  for (const name of PROGRAMS) {
    const compile = ["gcc", "-O2", "-static", "-Wall", "-Werror", sourceOf(name)];
    await mustRun([...compile, "-o", `${root}/bin/${name}`]);
  }
  copyFileSync(SCRIPT, `${root}/init`);
  const programs = ["busybox", ...PROGRAMS].map((name) => `bin/${name}`);
  for (const file of ["init", ...programs]) chmodSync(`${root}/${file}`, 0o755);
  const base = findModules(unpacked, version);
  addModules(root, base, "order", MODULES);
  addModules(root, base, "order-dpdk", DPDK_MODULES);
}

/** Modules with all that they need, and a list of them in the order of loading. */
function addModules(root: string, base: string, list: string, names: readonly string[]): void {
  const files = modulesWithDependencies(base, names);
  writeFileSync(`${root}/modules/${list}`, files.map((file) => `${basename(file)}\n`).join(""));
  for (const file of files) {
    copyFileSync(join(base, file), `${root}/modules/${basename(file)}`);
  }
}

/** testpmd and its plugins as they are on this machine, at the same places. */
async function addDpdk(root: string): Promise<void> {
  const program = findProgram("dpdk-testpmd");
  if (program === undefined) return;
  const libraries = readdirSync(LIBRARIES);
  const plugins = DPDK_PLUGINS.map((name) => {
    const found = libraries.find((file) => new RegExp(`^librte_${name}\\.so\\.\\d+$`).test(file));
    if (found === undefined) throw new Error(`DPDK's ${name} is not in ${LIBRARIES}`);
    return found;
  });
  // By name, for a plugin that is found in two places is loaded twice.
  writeFileSync(`${root}/modules/plugins`, plugins.map((file) => `-d ${file}\n`).join(""));
  const wanted = [program, ...plugins.map((file) => join(LIBRARIES, file))];
  const needed = new Set(wanted);
  for (const file of wanted) {
    const listed = await mustRun(["ldd", file]);
    for (const match of listed.matchAll(/(\/\S+) \(0x/g)) needed.add(match[1] ?? file);
  }
  for (const file of needed) {
    mkdirSync(dirname(`${root}${file}`), { recursive: true });
    copyFileSync(file, `${root}${file}`);
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
function modulesWithDependencies(base: string, names: readonly string[]): string[] {
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
  for (const name of names) add(name);
  if (chosen.length === 0) throw new Error(`no modules in ${base}`);
  return chosen;
}

/** The module's own list, in its section .modinfo: `depends=a,b`. */
function dependenciesOf(file: string): string[] {
  const match = /\0depends=([^\0]*)\0/.exec(readFileSync(file, "latin1"));
  return (match?.[1] ?? "").split(",").filter((name) => name !== "");
}
