// MAC and IPv4 addresses between text and bytes. Used by the rest of the codec.

import { HarnessError } from "../errors";

export const BROADCAST_MAC = "ff:ff:ff:ff:ff:ff";

/** Writes `52:54:00:12:34:56` as six bytes at `offset`. */
export function writeMac(target: Buffer, offset: number, mac: string): void {
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(mac)) throw new HarnessError(`not a MAC: '${mac}'`);
  target.write(mac.replaceAll(":", ""), offset, 6, "hex");
}

/** The six bytes at `offset` as lower-case text with colons. */
export function readMac(source: Buffer, offset: number): string {
  const digits = source.toString("hex", offset, offset + 6);
  return (digits.match(/../g) ?? []).join(":");
}

/** Writes `192.0.2.1` as four bytes at `offset`. */
export function writeIpv4(target: Buffer, offset: number, address: string): void {
  const parts = address.split(".").map(Number);
  const valid = parts.length === 4 && parts.every((p) => Number.isInteger(p) && p >= 0 && p < 256);
  if (!valid) throw new HarnessError(`not an IPv4 address: '${address}'`);
  target.set(parts, offset);
}

/** The four bytes at `offset` as dotted text. */
export function readIpv4(source: Buffer, offset: number): string {
  return source.subarray(offset, offset + 4).join(".");
}
