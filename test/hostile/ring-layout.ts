// Where the parts of a ring lie, in either format, for those who write into them or read addresses out
// of them behind the driver's back: ring-attacks.ts and oracle.ts. virtio 1.4 §2.7, §2.8
//
//   split     desc 16 N | driver 6 + 2 N | device 6 + 8 N
//   packed    desc 16 N | driver 4       | device 4
//
// In both a descriptor begins with address 8 | length 4.

import type { Live } from "../model/net/live";

export const DESC_BYTES = 16;
export const F_WRITE = 2;
export const F_INDIRECT = 4;

export interface Part {
  /** Physical. */
  readonly start: number;
  readonly bytes: number;
}

/** The descriptors, what the driver writes, what the device writes, and the first descriptor. */
export function partsOf({ queue, ring }: Live): readonly Part[] {
  const { desc, device, driver, size } = queue;
  const { packed } = ring.options;
  return [
    { start: desc, bytes: DESC_BYTES * size },
    { start: driver, bytes: packed ? 4 : 6 + 2 * size },
    { start: device, bytes: packed ? 4 : 6 + 8 * size },
    { start: desc, bytes: DESC_BYTES },
  ];
}

/** What stands in a slot of the descriptors. */
export interface Descriptor {
  readonly address: number;
  readonly bytes: number;
  readonly flags: number;
}

/** The address that a descriptor begins with, without a bigint: this is done for every slot. */
export function addressAt(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 0x1_0000_0000 + view.getUint32(at, true);
}

export function descriptorAt({ cpu, queue, ring }: Live, slot: number): Descriptor {
  const { view } = cpu.arena;
  const at = queue.desc - cpu.arena.base + DESC_BYTES * slot;
  return {
    address: addressAt(view, at),
    bytes: view.getUint32(at + 8, true),
    flags: view.getUint16(at + (ring.options.packed ? 14 : 12), true),
  };
}
