/**
 * Frames that reach another CPU's queue but are CPU 0's business: DHCP's messages and answers to
 * ARP. They are rare and short, so they are copied into the mail. Called by the stack.
 */
import * as machine from "../machine";
import * as mail from "../mail";
import { Packet } from "../../drivers/net/packet";

/** Leaves the frame that came in through `nic` for CPU 0 and wakes it. Answers false: the packet is done with. */
export function relay(packet: Packet, nic: u32): bool {
  // What does not fit or comes too fast is lost, as on a busy wire: both protocols ask again.
  const left =
    packet.next == null && mail.leaveFrame(machine.cpuIndex(), nic, packet.data, packet.length);
  if (left) machine.wake(mail.state(mail.State.ApicId));
  return false;
}
