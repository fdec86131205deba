// Guest memory as a vhost-user device sees it: the regions that the front end has handed over,
// addressed by the guest's physical addresses. Used by vhost-user-device-session.ts and -rings.ts.
//
// Words that both sides use are read and written by `load*` and `store*`, each once and whole, in
// program order and with a full barrier after every store.

import { HarnessError } from "../errors";
import type { RegionTable } from "./vhost-user-device-protocol";
import type { Mapping, System } from "./vhost-user-device-system";

interface Region extends RegionTable {
  readonly mapping: Mapping;
  readonly array: Uint8Array;
  readonly words16: Uint16Array;
  readonly words32: Uint32Array;
  readonly words64: BigUint64Array;
}

export class GuestMemory {
  private mapped: readonly Region[] = [];

  constructor(private readonly system: System) {}

  /** Maps these regions instead of what was mapped before; `fds` are closed in any case. */
  replace(table: readonly RegionTable[], fds: readonly number[]): void {
    this.close();
    const regions: Region[] = [];
    this.mapped = regions;
    try {
      if (fds.length !== table.length) {
        throw new HarnessError(`vhost-user: ${table.length} regions, ${fds.length} descriptors`);
      }
      for (const [i, region] of table.entries()) regions.push(this.map(region, fds[i] ?? -1));
    } finally {
      for (const fd of fds) this.system.close(fd);
    }
  }

  private map(region: RegionTable, fd: number): Region {
    const mapping = this.system.map(fd, region.offset, region.bytes);
    const { buffer } = mapping;
    return {
      ...region,
      mapping,
      array: new Uint8Array(buffer),
      words16: new Uint16Array(buffer),
      words32: new Uint32Array(buffer),
      words64: new BigUint64Array(buffer),
    };
  }

  /** The regions, for whoever looks at memory as a whole. */
  get regions(): readonly RegionTable[] {
    return this.mapped;
  }

  /** Takes the mappings away; any access from here on throws. */
  close(): void {
    const regions = this.mapped;
    this.mapped = [];
    for (const { mapping } of regions) this.system.unmap(mapping);
  }

  private find(address: number, bytes: number): Region {
    for (const region of this.mapped) {
      if (address >= region.guest && address + bytes <= region.guest + region.bytes) return region;
    }
    throw new HarnessError(
      `vhost-user: no memory of the guest at 0x${address.toString(16)}, ${bytes} bytes`,
    );
  }

  has(address: number, bytes: number): boolean {
    return this.mapped.some(
      (region) => address >= region.guest && address + bytes <= region.guest + region.bytes,
    );
  }

  /** The guest's address of one of the front end's addresses. */
  fromUser(user: bigint): number {
    for (const region of this.mapped) {
      const offset = user - region.user;
      if (offset >= 0n && offset < BigInt(region.bytes)) return region.guest + Number(offset);
    }
    throw new HarnessError(`vhost-user: the front end's address 0x${user.toString(16)} is unknown`);
  }

  /**
   * The guest's bytes themselves, not a copy. Not to be kept: they are gone when the front end
   * changes its memory, goes away, or the device stops.
   */
  bytes(address: number, bytes: number): Uint8Array {
    const { array, guest } = this.find(address, bytes);
    return array.subarray(address - guest, address - guest + bytes);
  }

  /** A copy of the guest's bytes. */
  copy(address: number, bytes: number): Buffer {
    return Buffer.from(this.bytes(address, bytes));
  }

  write(address: number, data: Uint8Array): void {
    this.bytes(address, data.length).set(data);
  }

  load16(address: number): number {
    const { guest, words16 } = this.find(address, 2);
    return Atomics.load(words16, (address - guest) / 2);
  }

  store16(address: number, value: number): void {
    const { guest, words16 } = this.find(address, 2);
    Atomics.store(words16, (address - guest) / 2, value & 0xffff);
  }

  load32(address: number): number {
    const { guest, words32 } = this.find(address, 4);
    return Atomics.load(words32, (address - guest) / 4);
  }

  store32(address: number, value: number): void {
    const { guest, words32 } = this.find(address, 4);
    Atomics.store(words32, (address - guest) / 4, value >>> 0);
  }

  load64(address: number): bigint {
    const { guest, words64 } = this.find(address, 8);
    return Atomics.load(words64, (address - guest) / 8);
  }

  store64(address: number, value: bigint): void {
    const { guest, words64 } = this.find(address, 8);
    Atomics.store(words64, (address - guest) / 8, value);
  }
}
