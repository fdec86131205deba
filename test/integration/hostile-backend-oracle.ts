// What must hold of the guest's memory however a vhost-user device behaves: looked at from the
// device's side, which has all of it mapped. Used by hostile-backend-scene.ts.
//
//   - code and constants are as they were when the guest was ready
//   - canaries: below the first byte that the module uses, behind each part of each ring, and in
//     every packet buffer that the device was not shown
//   - the driver offers packet buffers only, each within its bounds
//
// The device itself writes to what it was shown only, so whatever else changes was changed by a
// driver that believed it.

import { readFileSync } from "node:fs";
import {
  type Area,
  type Chain,
  DESC_BYTES,
  type DeviceQueue,
  defaultImage,
  HarnessError,
  type VhostUserDevice,
} from "qemu-test-harness";

const CANARY = 0xa5;
/** Behind a part of a ring: the arena's alignment leaves at least so much to nobody. */
const GAP_BYTES = 16;
/** The arena of CPU 0 (docs/boot.md), and what lies there below the module's data. */
const NOBODYS: Area = { address: 0x20_0000, bytes: 1024 };
/** Packets beyond what the rings hold (drivers/net/queue-pair.ts). */
const SPARE_PACKETS = 128;
const PAGE_BYTES = 4096;
const F_INDIRECT = 4;

/** ELF64: offsets in the file's header, and in a program header. */
const PHOFF = 32;
const PHENTSIZE = 54;
const PT_LOAD = 1;
const PF_W = 2;

/** Where the image's code and constants are in physical memory. */
function constantAreas(): Area[] {
  const image = readFileSync(defaultImage());
  const start = Number(image.readBigUInt64LE(PHOFF));
  const bytes = image.readUInt16LE(PHENTSIZE);
  const headers = Array.from({ length: image.readUInt16LE(PHENTSIZE + 2) }, (_, i) =>
    image.subarray(start + i * bytes, start + (i + 1) * bytes),
  );
  const areas = headers
    .filter((header) => header.readUInt32LE(0) === PT_LOAD && (header.readUInt32LE(4) & PF_W) === 0)
    .map((header) => ({
      address: Number(header.readBigUInt64LE(24)),
      bytes: Number(header.readBigUInt64LE(40)),
    }));
  if (areas.length === 0) throw new HarnessError(`${defaultImage()} has no segment of constants`);
  return areas;
}

/** The packet buffers of one queue pair. */
interface Pool {
  readonly base: number;
  readonly stride: number;
  readonly count: number;
  /** The device was shown this one since `plant`. */
  readonly seen: Uint8Array;
}

export class MemoryOracle {
  /** What was found wrong since `plant`. */
  readonly faults: string[] = [];
  private readonly constants: readonly { area: Area; bytes: Buffer }[];
  private readonly pools: readonly Pool[];
  private gaps: readonly Area[] = [];

  /** For a guest at rest that has just started: every receive ring is full. */
  constructor(
    private readonly net: VhostUserDevice,
    pairs: number,
  ) {
    const { memory } = net;
    this.constants = constantAreas().map((area) => ({
      area,
      bytes: memory.copy(area.address, area.bytes),
    }));
    this.pools = Array.from({ length: pairs }, (_, pair) => this.findPool(pair));
    net.onTake = (queue, chain) => this.take(queue, chain);
    net.onStop = () => this.showAll();
  }

  private descriptors({ ring }: DeviceQueue): { address: number; bytes: number; flags: number }[] {
    if (ring === undefined) return [];
    const { memory } = this.net;
    const { desc, size } = ring.setup;
    const table = memory.copy(desc, DESC_BYTES * size);
    const flagsAt = ring.areas.driver.bytes === 4 ? 14 : 12;
    return Array.from({ length: size }, (_, i) => ({
      address: Number(table.readBigUInt64LE(DESC_BYTES * i)),
      bytes: table.readUInt32LE(DESC_BYTES * i + 8),
      flags: table.readUInt16LE(DESC_BYTES * i + flagsAt),
    }));
  }

  private findPool(pair: number): Pool {
    const buffers = this.descriptors(this.net.queue(2 * pair));
    const base = Math.min(...buffers.map(({ address }) => address));
    const stride = buffers[0]?.bytes ?? 0;
    const sizes = [2 * pair, 2 * pair + 1].map((index) => this.net.queue(index).size);
    const count = sizes.reduce((sum, size) => sum + size, SPARE_PACKETS);
    const whole = buffers.every(
      ({ address, bytes }) => bytes === stride && (address - base) % stride === 0,
    );
    if (!whole || base % PAGE_BYTES !== 0 || stride === 0) {
      throw new HarnessError(
        `the receive ring of pair ${pair} does not show where its pool begins`,
      );
    }
    return { base, stride, count, seen: new Uint8Array(count) };
  }

  private poolOf(address: number): Pool | undefined {
    return this.pools.find(
      ({ base, count, stride }) => address >= base && address < base + count * stride,
    );
  }

  /** A buffer that the device is about to write to. */
  show({ segments }: Chain): void {
    for (const { address } of segments) this.showAt(address);
  }

  private showAt(address: number): void {
    const pool = this.poolOf(address);
    if (pool !== undefined) pool.seen[Math.floor((address - pool.base) / pool.stride)] = 1;
  }

  /** Addresses of the packet buffers that stand in a ring. */
  buffersIn(queue: DeviceQueue): number[] {
    const found = this.descriptors(queue).filter(({ address, bytes }) => {
      const pool = this.poolOf(address);
      return pool !== undefined && pool.stride === bytes && (address - pool.base) % bytes === 0;
    });
    return found.map(({ address }) => address);
  }

  /** The indirect tables that stand in a ring. */
  tablesIn(queue: DeviceQueue): Area[] {
    return this.descriptors(queue).filter(
      ({ address, bytes, flags }) =>
        (flags & F_INDIRECT) !== 0 && this.net.memory.has(address, bytes),
    );
  }

  /** Every buffer that stands in a ring: before and after whatever the device does amiss. */
  showAll(): void {
    const { memory } = this.net;
    for (const queue of this.net.queues) {
      for (const { address } of this.descriptors(queue)) this.showAt(address);
      for (const { address, bytes } of this.tablesIn(queue)) {
        const table = memory.copy(address, bytes);
        for (let at = 0; at + DESC_BYTES <= bytes; at += DESC_BYTES) {
          this.showAt(Number(table.readBigUInt64LE(at)));
        }
      }
    }
  }

  /** The device works with a buffer: it must be one. */
  private take({ name }: DeviceQueue, { segments }: Chain): void {
    for (const { address, bytes } of segments) {
      const pool = this.poolOf(address);
      const place = pool === undefined ? 0 : (address - pool.base) % pool.stride;
      if (pool === undefined || place + bytes > pool.stride) {
        this.fault(`${name}: 0x${address.toString(16)}, ${bytes} bytes, is no packet buffer`);
      }
      this.showAt(address);
    }
  }

  private fault(what: string): void {
    if (this.faults.length < 20) this.faults.push(what);
  }

  /** The guest is at rest and all rings run: canaries go to where nobody is. */
  plant(): void {
    const { memory } = this.net;
    this.faults.length = 0;
    const parts = this.net.running.flatMap(({ ring }) => Object.values(ring?.areas ?? {}));
    const behind = parts.map(({ address, bytes }) => ({
      address: address + bytes,
      bytes: GAP_BYTES,
    }));
    this.gaps = [NOBODYS, ...behind];
    for (const { address, bytes } of this.gaps) memory.bytes(address, bytes).fill(CANARY);
    for (const pool of this.pools) pool.seen.fill(0);
    this.showAll();
    for (const pool of this.pools) {
      for (const buffer of this.unseen(pool)) buffer.fill(CANARY);
    }
  }

  private unseen({ base, count, seen, stride }: Pool): Uint8Array[] {
    const { memory } = this.net;
    return Array.from({ length: count }, (_, index) => index)
      .filter((index) => seen[index] === 0)
      .map((index) => memory.bytes(base + index * stride, stride));
  }

  /** How many packet buffers have a canary in them. */
  get planted(): number {
    return this.pools.reduce((sum, { seen }) => sum + seen.filter((flag) => flag === 0).length, 0);
  }

  /** What is wrong since `plant`, one line each. */
  check(): readonly string[] {
    const { memory } = this.net;
    this.showAll();
    for (const { area, bytes } of this.constants) {
      if (bytes.equals(memory.bytes(area.address, area.bytes))) continue;
      this.fault(`constants at 0x${area.address.toString(16)} have changed`);
    }
    for (const { address, bytes } of this.gaps) {
      if (memory.bytes(address, bytes).every((byte) => byte === CANARY)) continue;
      this.fault(`memory at 0x${address.toString(16)} was written, and is nobody's`);
    }
    for (let written = this.writtenUnseen(); written > 0; written--) {
      this.fault("a packet buffer was written that the device was never shown");
    }
    return this.faults;
  }

  /** Packet buffers that were written and stand in no ring: not yet, if the guest is at it. */
  writtenUnseen(): number {
    this.showAll();
    return this.pools
      .map((pool) => {
        const canary = Buffer.alloc(pool.stride, CANARY);
        return this.unseen(pool).filter((buffer) => !canary.equals(buffer)).length;
      })
      .reduce((sum, count) => sum + count, 0);
  }
}
