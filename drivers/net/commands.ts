/**
 * What is said on the control queue: a function a command, each of which lays out its data and sends
 * it. Called by device.ts and by kernel/control.ts. virtio 1.4 §5.1.9.5
 */
import { ControlQueue, ControlState } from "./control-queue";

const CLASS_ANNOUNCE: u32 = 3;
const ANNOUNCE_ACK: u32 = 0;
const CLASS_MQ: u32 = 4;
const MQ_VQ_PAIRS_SET: u32 = 0;

/** Uses the first `pairs` queue pairs from now on; waits for the answer. §5.1.9.5.6 */
export function setPairs(control: ControlQueue, pairs: u32): ControlState {
  store<u16>(control.data, <u16>pairs);
  return control.execute(CLASS_MQ, MQ_VQ_PAIRS_SET, 2);
}

/** Says that the announcement that the device asked for is on its way. §5.1.9.5.4 */
export function acknowledgeAnnounce(control: ControlQueue): bool {
  return control.send(CLASS_ANNOUNCE, ANNOUNCE_ACK, 0, 0);
}
