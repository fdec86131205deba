/**
 * virtio over PCI, modern interface: the common configuration, notification and device
 * configuration structures as method calls. Used by drivers/net/. virtio 1.4 §4.1
 */
import * as machine from "../../kernel/machine";
import { deadlineIn } from "../../kernel/time";
import { Msix } from "../pci/msix";
import { PciFunction } from "../pci/function";
import * as caps from "./capabilities";
import * as status from "./status";

/** Offsets in the common configuration structure. virtio 1.4 §4.1.4.3 */
const DEVICE_FEATURE_SELECT: u32 = 0;
const DEVICE_FEATURE: u32 = 4;
const DRIVER_FEATURE_SELECT: u32 = 8;
const DRIVER_FEATURE: u32 = 12;
const CONFIG_MSIX_VECTOR: u32 = 16;
const NUM_QUEUES: u32 = 18;
const DEVICE_STATUS: u32 = 20;
const CONFIG_GENERATION: u32 = 21;
const QUEUE_SELECT: u32 = 22;
const QUEUE_SIZE: u32 = 24;
const QUEUE_MSIX_VECTOR: u32 = 26;
const QUEUE_ENABLE: u32 = 28;
const QUEUE_NOTIFY_OFF: u32 = 30;
const QUEUE_DESC: u32 = 32;
const QUEUE_DRIVER: u32 = 40;
const QUEUE_DEVICE: u32 = 48;
const QUEUE_NOTIF_CONFIG_DATA: u32 = 56;
const QUEUE_RESET: u32 = 58;

/** What we need of the common structure; later fields come with features, and may be missing. */
const COMMON_BYTES: u32 = 56;
const COMMON_RESET_BYTES: u32 = 60;
const COMMON_MAP_BYTES: u32 = 64;
const NOTIFY_MAP_BYTES_MAX: u32 = 1 << 20;
const DEVICE_MAP_BYTES_MAX: u32 = 4096;

/** "No vector", in both directions. virtio 1.4 §4.1.5.1.2 */
export const NO_MSIX_VECTOR: u32 = 0xffff;

/** How long a reset may take before the device counts as dead. */
const RESET_TIMEOUT_US: u64 = 1000000;

/** How often a configuration read is repeated while the generation keeps changing. */
export const GENERATION_TRIES: u32 = 64;

export class VirtioPci {
  readonly pci: PciFunction;
  readonly msix: Msix;
  /** Why the function cannot be used as a virtio device, or null. */
  problem: string | null = null;
  /** Length of the device configuration; fields beyond it do not exist. */
  deviceBytes: u32 = 0;
  private common: u32 = 0;
  private commonBytes: u32 = 0;
  private notify: u32 = 0;
  private notifyBytes: u32 = 0;
  private notifyMultiplier: u32 = 0;
  private device: u32 = 0;
  private readonly commonPlace: caps.Structure = new caps.Structure();
  private readonly notifyPlace: caps.Structure = new caps.Structure();
  private readonly devicePlace: caps.Structure = new caps.Structure();

  constructor(pci: PciFunction) {
    this.pci = pci;
    pci.enable();
    this.msix = new Msix(pci);
    this.find();
  }

  /** The function is one that was plugged in later, in the place of the first one. */
  findAgain(): void {
    this.pci.enable();
    this.msix.find();
    this.find();
  }

  /** Finds and maps the structures. Sets `problem` if one that we need is missing. */
  private find(): void {
    const pci = this.pci;
    const common = this.commonPlace;
    const notify = this.notifyPlace;
    const device = this.devicePlace;
    caps.findStructure(pci, caps.COMMON_CFG, COMMON_BYTES, COMMON_MAP_BYTES, common);
    caps.findStructure(pci, caps.NOTIFY_CFG, 2, NOTIFY_MAP_BYTES_MAX, notify);
    caps.findStructure(pci, caps.DEVICE_CFG, 1, DEVICE_MAP_BYTES_MAX, device);
    this.problem = null;
    // virtio 1.4 §4.1.5.1.1.1: without the structures it is a legacy device; we give up on it.
    if (common.mapped == 0) {
      this.problem = "no common configuration structure: not a modern virtio device";
    } else if (notify.mapped == 0) {
      this.problem = "no usable notification structure";
    } else if (device.mapped == 0) {
      this.problem = "no usable device configuration structure";
    }
    this.common = common.mapped - 1;
    this.commonBytes = common.length;
    this.notify = notify.mapped - 1;
    this.notifyBytes = min(notify.length, NOTIFY_MAP_BYTES_MAX);
    this.notifyMultiplier = notify.multiplier;
    this.device = device.mapped - 1;
    this.deviceBytes = min(device.length, DEVICE_MAP_BYTES_MAX);
  }

  // ---- status -----------------------------------------------------------------------------------

  status(): u32 {
    return machine.mmioRead8(this.common + DEVICE_STATUS);
  }

  /** Sets a status bit and keeps the others. virtio 1.4 §2.1.1 */
  addStatus(bit: u32): void {
    machine.mmioWrite8(this.common + DEVICE_STATUS, this.status() | bit);
  }

  /** Resets the device and waits until it says so. False if it does not. virtio 1.4 §2.4.2 */
  reset(): bool {
    machine.mmioWrite8(this.common + DEVICE_STATUS, status.RESET);
    const deadline = deadlineIn(RESET_TIMEOUT_US);
    // virtio 1.4 §4.1.4.3.2: not before status reads back as 0 may bring-up go on.
    while (this.status() != status.RESET) {
      if (machine.tsc() > deadline) return false;
      machine.pause();
    }
    return true;
  }

  // ---- features ---------------------------------------------------------------------------------

  /** Offered feature bits 64 * word to 64 * word + 63. */
  offered(word: u32): u64 {
    machine.mmioWrite32(this.common + DEVICE_FEATURE_SELECT, 2 * word);
    const low = machine.mmioRead32(this.common + DEVICE_FEATURE);
    machine.mmioWrite32(this.common + DEVICE_FEATURE_SELECT, 2 * word + 1);
    const high = machine.mmioRead32(this.common + DEVICE_FEATURE);
    return ((<u64>high) << 32) | low;
  }

  /** Accepts feature bits 0 to 63; the ones above stay as reset left them, not accepted. */
  accept(features: u64): void {
    machine.mmioWrite32(this.common + DRIVER_FEATURE_SELECT, 0);
    machine.mmioWrite32(this.common + DRIVER_FEATURE, <u32>features);
    machine.mmioWrite32(this.common + DRIVER_FEATURE_SELECT, 1);
    machine.mmioWrite32(this.common + DRIVER_FEATURE, <u32>(features >> 32));
  }

  // ---- device configuration ---------------------------------------------------------------------

  /** Reads 8 bits of the device configuration; 0 beyond its end. */
  config8(offset: u32): u32 {
    return offset < this.deviceBytes ? machine.mmioRead8(this.device + offset) : 0;
  }

  /** Reads 16 bits at an even offset; 0 beyond the end. virtio 1.4 §4.1.3.1 */
  config16(offset: u32): u32 {
    return offset + 2 <= this.deviceBytes ? machine.mmioRead16(this.device + offset) : 0;
  }

  /** Reads 32 bits at a multiple of 4; 0 beyond the end. */
  config32(offset: u32): u32 {
    return offset + 4 <= this.deviceBytes ? machine.mmioRead32(this.device + offset) : 0;
  }

  /** Changes whenever the device configuration did. virtio 1.4 §2.5.1 */
  generation(): u32 {
    return machine.mmioRead8(this.common + CONFIG_GENERATION);
  }

  // ---- queues -----------------------------------------------------------------------------------

  queueCount(): u32 {
    return machine.mmioRead16(this.common + NUM_QUEUES);
  }

  /** The most entries that queue `index` can have; 0 if there is no such queue. */
  queueSizeMax(index: u32): u32 {
    machine.mmioWrite16(this.common + QUEUE_SELECT, index);
    return machine.mmioRead16(this.common + QUEUE_SIZE);
  }

  /**
   * Gives queue `index` its memory (addresses as the device sees them) and turns it on.
   * virtio 1.4 §4.1.4.3.2: queue_enable comes last.
   */
  enableQueue(index: u32, size: u32, desc: u64, driver: u64, device: u64): void {
    machine.mmioWrite16(this.common + QUEUE_SELECT, index);
    machine.mmioWrite16(this.common + QUEUE_SIZE, size);
    this.write64(QUEUE_DESC, desc);
    this.write64(QUEUE_DRIVER, driver);
    this.write64(QUEUE_DEVICE, device);
    machine.mmioWrite16(this.common + QUEUE_ENABLE, 1);
  }

  /** Whether the structure is long enough for RING_RESET. */
  get hasQueueReset(): bool {
    return this.commonBytes >= COMMON_RESET_BYTES;
  }

  /**
   * Takes queue `index` back from the device, with RING_RESET. False if the device does not let go
   * of it in time. virtio 1.4 §2.6.1.1.2
   */
  resetQueue(index: u32): bool {
    machine.mmioWrite16(this.common + QUEUE_SELECT, index);
    machine.mmioWrite16(this.common + QUEUE_RESET, 1);
    const deadline = deadlineIn(RESET_TIMEOUT_US);
    // virtio 1.4 §4.1.4.3.2: not before queue_reset reads back as 0 is the queue ours.
    while (machine.mmioRead16(this.common + QUEUE_RESET) != 0) {
      if (machine.tsc() > deadline) return false;
      machine.pause();
    }
    return machine.mmioRead16(this.common + QUEUE_ENABLE) == 0;
  }

  /** virtio 1.4 §4.1.3.1: 64-bit fields are written as two aligned 32-bit halves. */
  private write64(offset: u32, value: u64): void {
    machine.mmioWrite32(this.common + offset, <u32>value);
    machine.mmioWrite32(this.common + offset + 4, <u32>(value >> 32));
  }

  /** Whether the structure goes as far as the field that NOTIF_CONFIG_DATA adds. */
  get hasNotifyNames(): bool {
    return this.commonBytes >= QUEUE_NOTIF_CONFIG_DATA + 2;
  }

  /**
   * What a notification of queue `index` says, in 16 bits: its index, or with NOTIF_CONFIG_DATA
   * (`named`) what the device wants. virtio 1.4 §4.1.5.2.1
   */
  notifyName(index: u32, named: bool): u32 {
    if (!named) return index;
    machine.mmioWrite16(this.common + QUEUE_SELECT, index);
    return machine.mmioRead16(this.common + QUEUE_NOTIF_CONFIG_DATA);
  }

  /**
   * The window address of queue `index`'s notification register plus 1, or 0 if its `bytes` bytes
   * would lie outside the notification structure or not at a multiple. virtio 1.4 §4.1.4.4
   */
  notifyAddress(index: u32, bytes: u32): u32 {
    machine.mmioWrite16(this.common + QUEUE_SELECT, index);
    const factor = machine.mmioRead16(this.common + QUEUE_NOTIFY_OFF);
    const offset = <u64>factor * this.notifyMultiplier;
    if (offset + bytes > this.notifyBytes) return 0;
    const address = this.notify + <u32>offset;
    return (address & (bytes - 1)) == 0 ? address + 1 : 0;
  }

  // ---- interrupts -------------------------------------------------------------------------------

  /** Binds configuration changes to an MSI-X entry. False if the device has no room for it. */
  setConfigVector(entry: u32): bool {
    machine.mmioWrite16(this.common + CONFIG_MSIX_VECTOR, entry);
    // virtio 1.4 §4.1.5.1.2.2: read back whether it took.
    return machine.mmioRead16(this.common + CONFIG_MSIX_VECTOR) == entry;
  }

  /** Binds queue `index` to an MSI-X entry, or to none with NO_MSIX_VECTOR. */
  setQueueVector(index: u32, entry: u32): bool {
    machine.mmioWrite16(this.common + QUEUE_SELECT, index);
    machine.mmioWrite16(this.common + QUEUE_MSIX_VECTOR, entry);
    return machine.mmioRead16(this.common + QUEUE_MSIX_VECTOR) == entry;
  }
}
