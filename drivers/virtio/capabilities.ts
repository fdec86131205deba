/**
 * The virtio structures of a PCI function: where its capability list says they are, checked before
 * they are believed. Used by transport.ts. virtio 1.4 §4.1.4
 *
 * A virtio capability in configuration space:
 *
 *   0 id 9 | 1 next | 2 cap_len | 3 cfg_type | 4 bar | 5 id | 8 offset | 12 length | 16 ...
 */
import { PciFunction } from "../pci/function";

const CAPABILITY_VENDOR: u32 = 0x09;
const CAPABILITY_BYTES: u32 = 16;
const NOTIFY_CAPABILITY_BYTES: u32 = 20;
const CONFIG_SPACE_BYTES: u32 = 256;
const CAPABILITIES_MAX: u32 = 48;

export const COMMON_CFG: u32 = 1;
export const NOTIFY_CFG: u32 = 2;
export const DEVICE_CFG: u32 = 4;

/** A structure's place: a window address plus 1 (0: not found) and how long it is said to be. */
export class Structure {
  mapped: u32 = 0;
  length: u32 = 0;
  /** notify_off_multiplier, of the notification structure only. */
  multiplier: u32 = 0;
}

/**
 * Finds the first usable structure of a type: in a memory BAR, wholly inside it, aligned, and at
 * least `needed` bytes long. Of a longer one only `mapMax` bytes are mapped. Capabilities of other
 * types, with reserved BAR numbers, or that lie about their place, are passed over.
 */
export function findStructure(
  pci: PciFunction,
  type: u32,
  needed: u32,
  mapMax: u32,
  found: Structure,
): void {
  found.mapped = 0;
  found.length = 0;
  found.multiplier = 0;
  let capability = pci.findCapability(CAPABILITY_VENDOR, 0);
  for (let i: u32 = 0; i < CAPABILITIES_MAX && capability != 0; i++) {
    if (readStructure(pci, capability, type, needed, mapMax, found)) return;
    capability = pci.findCapability(CAPABILITY_VENDOR, capability);
  }
}

function readStructure(
  pci: PciFunction,
  capability: u32,
  type: u32,
  needed: u32,
  mapMax: u32,
  found: Structure,
): bool {
  // virtio 1.4 §4.1.4.1: a cap_len beyond what we know is no error, one below it is.
  const bytes = type == NOTIFY_CFG ? NOTIFY_CAPABILITY_BYTES : CAPABILITY_BYTES;
  if (capability + bytes > CONFIG_SPACE_BYTES) return false;
  if (pci.read8(capability + 2) < bytes || pci.read8(capability + 3) != type) return false;
  const bar = pci.read8(capability + 4);
  const offset = pci.read32(capability + 8);
  const length = pci.read32(capability + 12);
  const alignment: u32 = type == NOTIFY_CFG ? 2 : 4;
  if (length < needed || (offset & (alignment - 1)) != 0) return false;
  if (!pci.barHolds(bar, offset, length)) return false;
  const mapped = pci.mapBar(bar, offset, min(length, mapMax));
  if (mapped == 0) return false;
  found.mapped = mapped;
  found.length = length;
  if (type == NOTIFY_CFG) found.multiplier = pci.read32(capability + 16);
  return true;
}
