// Neighbour discovery (RFC 4861) as bodies of ICMPv6 messages: all that follows the checksum.
//
//   0          4              20                        solicitation, advertisement
//   | flags    | target       | options
//   0          2              4           8            12            router advertisement
//   | hop, fl. | lifetime     | reachable | retransmit | options
//
//   an option: type 1 | length in 8 bytes 1 | data

import { HarnessError } from "../errors";
import { readMac, writeMac } from "./address";
import { readIpv6, writeIpv6 } from "./address6";

export const ND_TYPE = {
  routerSolicitation: 133,
  routerAdvertisement: 134,
  solicitation: 135,
  advertisement: 136,
} as const;

export const ND_OPTION = { sourceMac: 1, targetMac: 2, prefix: 3, mtu: 5 } as const;

export const ND_FLAG = { router: 0x80, solicited: 0x40, override: 0x20 } as const;

/** The hop limit that every message of neighbour discovery must have. */
export const ND_HOP_LIMIT = 255;

export interface NdOption {
  readonly type: number;
  /** Without type and length: 8 n - 2 bytes. */
  readonly data: Uint8Array;
}

/** A solicitation (flags 0) or an advertisement. */
export interface NeighbourMessage {
  readonly flags: number;
  readonly target: string;
  readonly options: readonly NdOption[];
}

export interface RouterAdvertisement {
  readonly hopLimit: number;
  /** Seconds; 0: no default router. */
  readonly lifetime: number;
  readonly options: readonly NdOption[];
}

export interface PrefixInformation {
  readonly prefix: string;
  readonly prefixLength: number;
  readonly onLink: boolean;
  readonly autonomous: boolean;
  /** In seconds; 0xffffffff: for ever. */
  readonly valid: number;
  readonly preferred: number;
}

export function buildNdOptions(options: readonly NdOption[]): Buffer {
  return Buffer.concat(
    options.map(({ type, data }) => Buffer.from([type, (data.length + 2) / 8, ...data])),
  );
}

/** Throws on an option that is cut or has no length. */
export function parseNdOptions(bytes: Buffer): NdOption[] {
  const options: NdOption[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = at + 2 > bytes.length ? 0 : 8 * bytes.readUInt8(at + 1);
    if (length === 0 || at + length > bytes.length) throw new HarnessError("ND: a bad option");
    options.push({ type: bytes.readUInt8(at), data: bytes.subarray(at + 2, at + length) });
    at += length;
  }
  return options;
}

export function macOption(type: number, mac: string): NdOption {
  const data = Buffer.alloc(6);
  writeMac(data, 0, mac);
  return { type, data };
}

/** The MAC in the option of this type, if it is there. */
export function macIn(options: readonly NdOption[], type: number): string | undefined {
  const data = options.find((option) => option.type === type)?.data;
  return data === undefined ? undefined : readMac(Buffer.from(data), 0);
}

export function prefixOption(fields: PrefixInformation): NdOption {
  const data = Buffer.alloc(30);
  data.writeUInt8(fields.prefixLength, 0);
  data.writeUInt8((fields.onLink ? 0x80 : 0) | (fields.autonomous ? 0x40 : 0), 1);
  data.writeUInt32BE(fields.valid, 2);
  data.writeUInt32BE(fields.preferred, 6);
  writeIpv6(data, 14, fields.prefix);
  return { type: ND_OPTION.prefix, data };
}

export function parsePrefixOption({ data }: NdOption): PrefixInformation {
  const bytes = Buffer.from(data);
  if (bytes.length !== 30) throw new HarnessError("ND: prefix information has 32 bytes");
  return {
    prefix: readIpv6(bytes, 14),
    prefixLength: bytes.readUInt8(0),
    onLink: (bytes.readUInt8(1) & 0x80) !== 0,
    autonomous: (bytes.readUInt8(1) & 0x40) !== 0,
    valid: bytes.readUInt32BE(2),
    preferred: bytes.readUInt32BE(6),
  };
}

export function buildNeighbour({ flags, target, options }: NeighbourMessage): Buffer {
  const fixed = Buffer.alloc(20);
  fixed.writeUInt8(flags, 0);
  writeIpv6(fixed, 4, target);
  return Buffer.concat([fixed, buildNdOptions(options)]);
}

export function parseNeighbour(body: Buffer): NeighbourMessage {
  if (body.length < 20) throw new HarnessError("ND: the message is cut");
  const options = parseNdOptions(body.subarray(20));
  return { flags: body.readUInt8(0), target: readIpv6(body, 4), options };
}

export function buildRouterAdvertisement(fields: RouterAdvertisement): Buffer {
  const fixed = Buffer.alloc(12);
  fixed.writeUInt8(fields.hopLimit, 0);
  fixed.writeUInt16BE(fields.lifetime, 2);
  return Buffer.concat([fixed, buildNdOptions(fields.options)]);
}

export function parseRouterAdvertisement(body: Buffer): RouterAdvertisement {
  if (body.length < 12) throw new HarnessError("ND: the router advertisement is cut");
  const options = parseNdOptions(body.subarray(12));
  return { hopLimit: body.readUInt8(0), lifetime: body.readUInt16BE(2), options };
}

/** A router solicitation has options only, behind four bytes. */
export function parseRouterSolicitation(body: Buffer): readonly NdOption[] {
  if (body.length < 4) throw new HarnessError("ND: the router solicitation is cut");
  return parseNdOptions(body.subarray(4));
}
