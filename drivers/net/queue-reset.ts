/**
 * RING_RESET: one queue that went wrong is taken from the device and given to it again, while all
 * others go on. Called by kernel/nic.ts on CPU 0; the queue's owner empties it in between.
 * virtio 1.4 §2.6.1
 */
import { NO_VECTOR } from "../../kernel/interrupts";
import * as features from "../virtio/features";
import { NO_MSIX_VECTOR } from "../virtio/transport";
import { NetDevice } from "./device";
import { PairRings, PairSetup } from "./pair-setup";

/** Takes a queue from the device; false if that cannot be, or the device does not let go of it. */
export function takeQueue(device: NetDevice, queue: u32): bool {
  if (!features.has(device.accepted, features.RING_RESET)) return false;
  return device.transport.resetQueue(queue);
}

/** Gives it again, empty, as at bring-up. False if the device does not take it. */
export function giveQueue(device: NetDevice, queue: u32, setup: PairSetup, rings: PairRings): bool {
  const transport = device.transport;
  const isRx = (queue & 1) == 0;
  const size = isRx ? setup.rxSize : setup.txSize;
  if (transport.queueSizeMax(queue) < size) return false;
  const entries = transport.msix.entries;
  const vector = isRx ? rings.rxVector : rings.txVector;
  if (entries != 0) {
    // Its MSI-X entry still leads to its owner; which entry it is was forgotten with the rest.
    const entry = vector == NO_VECTOR ? NO_MSIX_VECTOR : min(1 + queue, entries - 1);
    if (!transport.setQueueVector(queue, entry)) return false;
  }
  // virtio 1.4 §2.6.1.2.2: everything is said anew before the queue is turned on.
  if (isRx) transport.enableQueue(queue, size, rings.rxDesc, rings.rxDriver, rings.rxDevice);
  else transport.enableQueue(queue, size, rings.txDesc, rings.txDriver, rings.txDevice);
  return true;
}
