// The lab's kernel and first file system: Debian's own packages, downloaded and unpacked but not
// installed, and kept below build/lab. Called by lab.ts; the second time it only looks whether
// everything is there.
//
//   build/lab/packages/   the packages' files
//   build/lab/vmlinuz     the kernel
//   build/lab/initramfs   busybox, the modules, test/harness/lab/{init,linux-guest}.sh
//   build/lab/kernel      the release of both; written last

import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { EnvironmentError, HarnessError } from "../errors";
import { findProgram, runCommand } from "../processes";
import { MODE_DIRECTORY, MODE_FILE, MODE_PROGRAM, writeCpio } from "./cpio";
import { GUEST_MODULES, loadOrder, plainName, WANTED_MODULES } from "./modules";

export interface LabImage {
  /** As `uname -r` prints it in the lab. */
  readonly release: string;
  readonly kernel: string;
  readonly initramfs: string;
}

/** What goes into the first file system beside the modules. */
export interface LabScripts {
  /** The lab's first process. */
  readonly init: string;
  /** The first process of a Linux guest, to compare with. */
  readonly guest: string;
}

const KERNEL_PACKAGE = "linux-image-amd64";
const BUSYBOX_PACKAGE = "busybox-static";
const DOWNLOAD_TIMEOUT_MS = 180_000;
const UNPACK_TIMEOUT_MS = 60_000;
/** Most of the package, and nothing that a wanted module depends on. */
const LEFT_OUT = ["gpu", "media", "staging", "infiniband", "scsi", "iio", "usb", "isdn"];

/** Gets everything ready in `directory` (build/lab). Throws EnvironmentError when it cannot. */
export async function labImage(directory: string, scripts: LabScripts): Promise<LabImage> {
  const marker = join(directory, "kernel");
  const image = (release: string) => ({
    release,
    kernel: join(directory, "vmlinuz"),
    initramfs: join(directory, "initramfs"),
  });
  const recipe = createHash("sha256")
    .update(readFileSync(scripts.init))
    .update(readFileSync(scripts.guest))
    .update(WANTED_MODULES.join())
    .digest("hex");
  const [release, madeBy] = existsSync(marker)
    ? readFileSync(marker, "utf8").trim().split(" ")
    : [];
  if (release !== undefined && madeBy === recipe) return image(release);
  const made = await build(directory, scripts);
  writeFileSync(marker, `${made} ${recipe}\n`);
  return image(made);
}

async function build(directory: string, scripts: LabScripts): Promise<string> {
  for (const program of ["apt-get", "dpkg-deb", "tar"]) {
    if (findProgram(program) === undefined) {
      throw new EnvironmentError(`lab: needs ${program}, to get Debian's kernel`);
    }
  }
  const packages = join(directory, "packages");
  const files = join(directory, "unpacked");
  rmSync(files, { recursive: true, force: true });
  mkdirSync(files, { recursive: true });
  await download(packages);
  for (const name of readdirSync(packages).filter((name) => name.endsWith(".deb"))) {
    await unpack(join(packages, name), files);
  }
  const modules = join(files, "lib/modules");
  const release = readdirSync(modules)[0];
  if (release === undefined) throw new HarnessError(`lab: no modules below ${modules}`);
  writeInitramfs(directory, files, join(modules, release), scripts);
  copyFileSync(join(files, `boot/vmlinuz-${release}`), join(directory, "vmlinuz"));
  rmSync(files, { recursive: true });
  return release;
}

async function run(argv: readonly string[], timeoutMs: number, what: string): Promise<string> {
  const { status, stdout, stderr } = await runCommand(argv, { timeoutMs });
  if (status === 0) return stdout;
  throw new EnvironmentError(`lab: ${what}: ${stderr.trim().split("\n").at(-1)}`);
}

async function download(packages: string): Promise<void> {
  if (existsSync(packages)) return;
  const about = ["apt-cache", "depends", "--important", KERNEL_PACKAGE];
  const depends = await run(about, UNPACK_TIMEOUT_MS, `apt-cache knows no ${KERNEL_PACKAGE}`);
  const kernel = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (kernel === undefined) {
    throw new EnvironmentError(`lab: ${KERNEL_PACKAGE} is not in apt's lists: run apt-get update`);
  }
  const part = `${packages}.part`;
  rmSync(part, { recursive: true, force: true });
  mkdirSync(part, { recursive: true });
  // apt-get downloads into the directory it is in.
  const script = 'cd "$0" && exec apt-get download -qq "$@"';
  const command = ["sh", "-c", script, part, kernel, BUSYBOX_PACKAGE];
  await run(command, DOWNLOAD_TIMEOUT_MS, "the kernel cannot be downloaded");
  renameSync(part, packages);
}

async function unpack(file: string, into: string): Promise<void> {
  const kernel = basename(file).startsWith("linux-image");
  const wanted = kernel ? ["./boot/vmlinuz*", "./lib/modules/*/kernel"] : ["./bin/busybox"];
  const without = LEFT_OUT.map((name) => `--exclude=./lib/modules/*/kernel/drivers/${name}`);
  const script = 'dpkg-deb --fsys-tarfile "$0" | tar -x -C "$@"';
  const command = ["sh", "-c", script, file, into, ...without, "--wildcards", ...wanted];
  await run(command, UNPACK_TIMEOUT_MS, `${file} cannot be unpacked`);
}

function namesOf(order: ReadonlyMap<string, Buffer>): Buffer {
  return Buffer.from([...order.keys()].map((name) => `${name}\n`).join(""));
}

function writeInitramfs(
  directory: string,
  files: string,
  modules: string,
  scripts: LabScripts,
): void {
  const paths = new Map<string, string>();
  for (const entry of readdirSync(modules, { recursive: true, encoding: "utf8" })) {
    if (entry.endsWith(".ko")) paths.set(plainName(basename(entry, ".ko")), join(modules, entry));
  }
  const read = (name: string) => {
    const path = paths.get(name);
    return path === undefined ? undefined : readFileSync(path);
  };
  const order = loadOrder(WANTED_MODULES, read);
  const forGuest = loadOrder(GUEST_MODULES, read);
  const archive = writeCpio([
    { path: "bin", mode: MODE_DIRECTORY },
    { path: "bin/busybox", mode: MODE_PROGRAM, content: readFileSync(join(files, "bin/busybox")) },
    { path: "init", mode: MODE_PROGRAM, content: readFileSync(scripts.init) },
    { path: "linux-guest", mode: MODE_PROGRAM, content: readFileSync(scripts.guest) },
    { path: "modules", mode: MODE_DIRECTORY },
    ...[...order].map(([name, content]) => ({
      path: `modules/${name}.ko`,
      mode: MODE_FILE,
      content,
    })),
    { path: "modules/order", mode: MODE_FILE, content: namesOf(order) },
    { path: "modules/guest-order", mode: MODE_FILE, content: namesOf(forGuest) },
  ]);
  writeFileSync(join(directory, "initramfs"), archive);
}
