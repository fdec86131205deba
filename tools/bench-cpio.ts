/**
 * A folder as a cpio archive in the form that Linux takes as initramfs ("newc"). Used by
 * bench-linux.ts, so that nothing has to be installed for it.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

const MAGIC = "070701";
const TRAILER = "TRAILER!!!";
const ALIGNMENT = 4;

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & (ALIGNMENT - 1))]);
}

/** A header of 13 fields of 8 hexadecimal digits, the name, the contents. */
function entry(inode: number, mode: number, name: string, data: Buffer): Buffer {
  const nameBytes = Buffer.byteLength(name) + 1;
  const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, nameBytes, 0];
  const header = MAGIC + fields.map((field) => field.toString(16).padStart(8, "0")).join("");
  return Buffer.concat([padded(Buffer.from(`${header}${name}\0`)), padded(data)]);
}

/** The archive of all files and folders below `root`, owned by the superuser. */
export function archiveOf(root: string): Buffer {
  const names = readdirSync(root, { recursive: true, encoding: "utf8" }).sort();
  const entries = names.map((name, index) => {
    const status = statSync(join(root, name));
    const data = status.isDirectory() ? Buffer.alloc(0) : readFileSync(join(root, name));
    return entry(index + 1, status.mode, name, data);
  });
  return Buffer.concat([...entries, entry(0, 0, TRAILER, Buffer.alloc(0))]);
}
