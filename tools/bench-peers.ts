/**
 * Builds the peers of the benchmark that are made from source: build/bench/bare-guest.elf, from
 * test/bench/peers/bare-*.c and the image's own boot objects. Called by bench.ts.
 */
import { copyFileSync, existsSync, mkdirSync, statSync } from "node:fs";
import { basename } from "node:path";
import { mustRun } from "../test/harness/src/processes";

const FOLDER = "test/bench/peers";
const SOURCES = ["bare-guest.c", "bare-split.c", "bare-packed.c"];
const HEADER = `${FOLDER}/bare-guest.h`;
const IMAGE_WORK = "build/vireo";
const WORK = "build/bench/bare-guest";
export const BARE_GUEST = "build/bench/bare-guest.elf";

/** As the image's ring 3 is compiled (build-image.ts). */
const COMPILE = [
  ...["-std=gnu11", "-O2", "-ffreestanding", "-fno-pic", "-fno-pie", "-mcmodel=small"],
  ...["-mno-red-zone", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"],
  ...["-fcf-protection=none", "-fno-tree-loop-distribute-patterns", "-Wall", "-Wextra", "-Werror"],
];

/** Builds it unless it is newer than its source and the image. */
export async function buildBareGuest(): Promise<string> {
  const sources = SOURCES.map((file) => `${FOLDER}/${file}`);
  const inputs = [...sources, HEADER, "build/vireo.elf"].map((path) => statSync(path).mtimeMs);
  if (existsSync(BARE_GUEST) && statSync(BARE_GUEST).mtimeMs > Math.max(...inputs)) {
    return BARE_GUEST;
  }
  mkdirSync(WORK, { recursive: true });
  const shared = ["entry.o", "traps.o", "ring0.o", "services.o", "unpack.o", "image.ld"];
  for (const file of shared) copyFileSync(`${IMAGE_WORK}/${file}`, `${WORK}/${file}`);
  const parts: string[] = [];
  for (const source of sources) {
    const part = `${basename(source, ".c")}.o`;
    await mustRun(["gcc", ...COMPILE, "-Iboot", "-c", source, "-o", `${WORK}/${part}`]);
    parts.push(part);
  }
  // The linker script knows ring 3's part by the name host.o.
  await mustRun(["env", "-C", WORK, "ld", "-r", "-o", "host.o", ...parts]);
  const objects = ["entry.o", "traps.o", "ring0.o", "services.o", "unpack.o", "host.o"];
  const link = [
    ...["ld", "-nostdlib", "-static", "--gc-sections", "-z", "max-page-size=4096"],
    ...["-z", "noexecstack", "--build-id=none", "--no-warn-rwx-segments", "-T", "image.ld"],
    ...["-o", "../bare-guest.elf", ...objects],
  ];
  await mustRun(["env", "-C", WORK, ...link]);
  return BARE_GUEST;
}
