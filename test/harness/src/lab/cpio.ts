// Writes a cpio archive of the kind that the kernel unpacks as its first file system ("newc").
// Called by image.ts.
//
//   entry:  "070701" | 13 numbers of 8 hex digits | name, 0 | pad to 4 | content | pad to 4
//   end:    an entry named TRAILER!!!

export interface CpioEntry {
  /** Without a leading slash. */
  readonly path: string;
  /** File type and permissions, as stat's st_mode. */
  readonly mode: number;
  /** Nothing for a directory. */
  readonly content?: Uint8Array;
}

export const MODE_DIRECTORY = 0o040755;
export const MODE_PROGRAM = 0o100755;
export const MODE_FILE = 0o100644;

const ALIGNMENT = 4;

function aligned(parts: readonly Uint8Array[]): Buffer {
  const joined = Buffer.concat(parts);
  const padding = (ALIGNMENT - (joined.length % ALIGNMENT)) % ALIGNMENT;
  return padding === 0 ? joined : Buffer.concat([joined, Buffer.alloc(padding)]);
}

function entryBytes({ path, mode, content }: CpioEntry, inode: number): Buffer[] {
  const size = content?.length ?? 0;
  const name = Buffer.from(`${path}\0`);
  // ino, mode, uid, gid, nlink, mtime, filesize, device (2), special device (2), namesize, check
  const numbers = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.length, 0];
  const head = numbers.map((number) => number.toString(16).padStart(8, "0")).join("");
  return [aligned([Buffer.from(`070701${head}`), name]), aligned(content ? [content] : [])];
}

/** The archive's bytes; directories must come before what is in them. */
export function writeCpio(entries: readonly CpioEntry[]): Buffer {
  const all = [...entries, { path: "TRAILER!!!", mode: 0 }];
  return Buffer.concat(all.flatMap((entry, index) => entryBytes(entry, index + 1)));
}
