/**
 * What app=forward needs before its two NICs are brought up: features that both sides can carry,
 * as many lanes on each, one pool of packets a CPU for both, and all frames let in. Called by
 * nics.ts; the app itself is apps/forward.ts.
 */
import * as nics from "./nics";
import * as arena from "./memory/arena";
import { Nic } from "./nic";
import { RX_PROMISCUOUS } from "../drivers/net/commands";
import { RESERVE_BYTES, RING_SIZE_MIN } from "../drivers/net/device";
import { PLAIN_HEADER_BYTES, PacketPool } from "../drivers/net/packet";
import { PairSetup } from "../drivers/net/pair-setup";
import { QueuePair, packetsFor } from "../drivers/net/queue-pair";
import * as features from "../drivers/virtio/features";

const NICS: u32 = 2;

/** Brings both NICs up. Answers what went wrong, or null. */
export function bringUp(count: u32): string | null {
  if (count != NICS) return "app: forward is between two NICs, no more and no fewer";
  const a = nics.get(0);
  const b = nics.get(1);
  const fromA = a.device.acceptable();
  const fromB = b.device.acceptable();
  a.device.withheld = notCarriedBy(fromB);
  b.device.withheld = notCarriedBy(fromA);
  a.device.shares = NICS;
  b.device.shares = NICS;
  const problem = begin(a);
  if (problem != null) return problem;
  const other = begin(b);
  if (other != null) return other;
  const lanes = min(a.chooseLanes(), b.chooseLanes());
  a.lanesMax = lanes;
  b.lanesMax = lanes;
  if (!sharePool(a.device.setup, b.device.setup))
    return "too little memory for two devices' queues";
  const failed = a.complete();
  return failed != null ? failed : b.complete();
}

function begin(nic: Nic): string | null {
  const problem = nic.device.begin();
  if (problem == null) letAllIn(nic);
  return problem;
}

/** A forwarder takes frames to any address; the device filters only where it can be told. */
export function letAllIn(nic: Nic): void {
  const device = nic.device;
  // virtio 1.4 §5.1.9.5.1.2: with CTRL_RX only.
  if (features.has(device.accepted, features.CTRL_RX)) device.settings.presetRxMode(RX_PROMISCUOUS);
}

/**
 * What makes packets that a NIC with `accepted` could not send as they are: receive offloads, and
 * the longer header of hash reports.
 */
function notCarriedBy(accepted: u64): u64 {
  let missing: u64 = (<u64>1) << features.HASH_REPORT;
  if (!features.has(accepted, features.CSUM)) missing |= 1 << features.GUEST_CSUM;
  if (!features.has(accepted, features.HOST_TSO4)) missing |= 1 << features.GUEST_TSO4;
  if (!features.has(accepted, features.HOST_TSO6)) missing |= 1 << features.GUEST_TSO6;
  if (!features.has(accepted, features.HOST_ECN)) missing |= 1 << features.GUEST_ECN;
  if (!features.has(accepted, features.HOST_USO)) {
    missing |= ((<u64>1) << features.GUEST_USO4) | ((<u64>1) << features.GUEST_USO6);
  }
  return missing;
}

/** One pool a CPU, with buffers for the longer frames of the two. False if it does not fit. */
function sharePool(a: PairSetup, b: PairSetup): bool {
  const frameBytes = max(a.frameBytes, b.frameBytes);
  a.frameBytes = frameBytes;
  b.frameBytes = frameBytes;
  const available = <u32>arena.available();
  while (bytesOf(a, b) > available) {
    const longest = max(max(a.rxSize, a.txSize), max(b.rxSize, b.txSize));
    if (longest == RING_SIZE_MIN) return false;
    halve(a);
    halve(b);
  }
  // The pool is NIC 0's; lanes.ts gives it to the other one as well.
  a.packets = packetsFor(a) + packetsFor(b);
  b.packets = a.packets;
  return true;
}

function bytesOf(a: PairSetup, b: PairSetup): u32 {
  const packets = packetsFor(a) + packetsFor(b);
  const rings = QueuePair.ringsBytes(a) + QueuePair.ringsBytes(b);
  return PacketPool.bytes(packets, a.frameBytes + PLAIN_HEADER_BYTES) + rings + 2 * RESERVE_BYTES;
}

function halve(setup: PairSetup): void {
  setup.rxSize = max(setup.rxSize >> 1, RING_SIZE_MIN);
  setup.txSize = max(setup.txSize >> 1, RING_SIZE_MIN);
}
