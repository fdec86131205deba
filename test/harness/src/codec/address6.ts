// IPv6 addresses between text and bytes (RFC 4291, written as RFC 5952 wants), and those that are
// made from others. Used by the rest of the codec.

import { isIPv6 } from "node:net";
import { HarnessError } from "../errors";
import { writeMac } from "./address";

export const UNSPECIFIED_IPV6 = "::";
export const ALL_NODES = "ff02::1";
export const ALL_ROUTERS = "ff02::2";
const GROUPS = 8;

/** Writes `2001:db8::1` as sixteen bytes at `offset`. */
export function writeIpv6(target: Buffer, offset: number, address: string): void {
  if (!isIPv6(address) || /[.%]/.test(address)) {
    throw new HarnessError(`not an IPv6 address: '${address}'`);
  }
  const [front = "", back] = address.split("::");
  const groupsOf = (text: string) => (text === "" ? [] : text.split(":"));
  const before = groupsOf(front);
  const after = back === undefined ? [] : groupsOf(back);
  const zeros = Array<string>(GROUPS - before.length - after.length).fill("0");
  [...before, ...zeros, ...after].forEach((group, i) => {
    target.writeUInt16BE(Number.parseInt(group, 16), offset + 2 * i);
  });
}

/** The sixteen bytes at `offset` as text. */
export function readIpv6(source: Buffer, offset: number): string {
  const groups = Array.from({ length: GROUPS }, (_, i) => source.readUInt16BE(offset + 2 * i));
  const text = groups.map((group) => group.toString(16)).join(":");
  // The longest run of zeros, the first of equals, from two on.
  const runs = [...text.matchAll(/\b0(:0)+\b/g)];
  const longest = Math.max(0, ...runs.map(([run]) => run.length));
  const run = runs.find(([found]) => found.length === longest);
  if (run === undefined) return text;
  const before = text.slice(0, run.index).replace(/:$/, "");
  const after = text.slice(run.index + run[0].length).replace(/^:/, "");
  return `${before}::${after}`;
}

export function ipv6Bytes(address: string): Buffer {
  const bytes = Buffer.alloc(16);
  writeIpv6(bytes, 0, address);
  return bytes;
}

/** The address with the prefix's first 64 bits that a host with this MAC makes. RFC 4291 A */
export function eui64Address(prefix: string, mac: string): string {
  const bytes = ipv6Bytes(prefix);
  const six = Buffer.alloc(6);
  writeMac(six, 0, mac);
  six.copy(bytes, 8, 0, 3);
  bytes.writeUInt16BE(0xfffe, 11);
  six.copy(bytes, 13, 3);
  bytes.writeUInt8(bytes.readUInt8(8) ^ 2, 8);
  return readIpv6(bytes, 0);
}

export function linkLocalAddress(mac: string): string {
  return eui64Address("fe80::", mac);
}

/** The group that an address' neighbours ask. RFC 4291 2.7.1 */
export function solicitedNode(address: string): string {
  const bytes = ipv6Bytes("ff02::1:ff00:0");
  ipv6Bytes(address).copy(bytes, 13, 13);
  return readIpv6(bytes, 0);
}

/** The Ethernet address of a group. RFC 2464 7 */
export function groupMac(group: string): string {
  const last = ipv6Bytes(group).toString("hex", 12);
  return `33:33:${last.replace(/..\B/g, "$&:")}`;
}
