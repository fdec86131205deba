// The layout of the common configuration structure, and the rule that a field is accessed in its
// own width. Used by common-config.ts. virtio 1.4 §4.1.4.3, §4.1.3.1
//
//   0 device_feature_select | 4 device_feature | 8 driver_feature_select | 12 driver_feature
//   16 config_msix_vector | 18 num_queues | 20 device_status | 21 config_generation
//   22 queue_select | 24 queue_size | 26 queue_msix_vector | 28 queue_enable
//   30 queue_notify_off | 32 queue_desc | 40 queue_driver | 48 queue_device
//   56 queue_notif_config_data | 58 queue_reset

import type { Width } from "../machine/bus";

export interface Register {
  readonly name: string;
  readonly offset: number;
  readonly width: Width;
  readonly writable: boolean;
}

/** 64-bit fields are two registers, `_low` and `_high`. */
export const COMMON_REGISTERS: readonly Register[] = [
  { name: "device_feature_select", offset: 0, width: 4, writable: true },
  { name: "device_feature", offset: 4, width: 4, writable: false },
  { name: "driver_feature_select", offset: 8, width: 4, writable: true },
  { name: "driver_feature", offset: 12, width: 4, writable: true },
  { name: "config_msix_vector", offset: 16, width: 2, writable: true },
  { name: "num_queues", offset: 18, width: 2, writable: false },
  { name: "device_status", offset: 20, width: 1, writable: true },
  { name: "config_generation", offset: 21, width: 1, writable: false },
  { name: "queue_select", offset: 22, width: 2, writable: true },
  { name: "queue_size", offset: 24, width: 2, writable: true },
  { name: "queue_msix_vector", offset: 26, width: 2, writable: true },
  { name: "queue_enable", offset: 28, width: 2, writable: true },
  { name: "queue_notify_off", offset: 30, width: 2, writable: false },
  { name: "queue_desc_low", offset: 32, width: 4, writable: true },
  { name: "queue_desc_high", offset: 36, width: 4, writable: true },
  { name: "queue_driver_low", offset: 40, width: 4, writable: true },
  { name: "queue_driver_high", offset: 44, width: 4, writable: true },
  { name: "queue_device_low", offset: 48, width: 4, writable: true },
  { name: "queue_device_high", offset: 52, width: 4, writable: true },
  { name: "queue_notif_config_data", offset: 56, width: 2, writable: false },
  { name: "queue_reset", offset: 58, width: 2, writable: true },
];

export const COMMON_BYTES = 60;

/** The register at an offset, if that is how it may be accessed. */
export function findRegister(
  registers: readonly Register[],
  offset: number,
  width: Width,
): Register | undefined {
  for (const register of registers) {
    if (register.offset === offset && register.width === width) return register;
  }
  return undefined;
}
