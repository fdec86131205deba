/** The device status field. virtio 1.4 §2.1 */
export const RESET: u32 = 0;
export const ACKNOWLEDGE: u32 = 1;
export const DRIVER: u32 = 2;
export const DRIVER_OK: u32 = 4;
export const FEATURES_OK: u32 = 8;
export const DEVICE_NEEDS_RESET: u32 = 64;
export const FAILED: u32 = 128;
