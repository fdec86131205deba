/**
 * Frames that reach another CPU's queue but are CPU 0's business: DHCP's messages, answers to ARP,
 * and neighbour discovery but for questions that can be answered here. They are rare and short, so
 * they are copied into the mail. Called by the stack.
 */
import * as machine from "../machine";
import * as mail from "../mail";
import { completeChecksum } from "./checksum";
import { Packet } from "../../drivers/net/packet";

/**
 * Leaves the frame that came in through `nic` for CPU 0 and wakes it. Answers false: the packet is
 * done with.
 */
export function relay(packet: Packet, nic: u32): bool {
  // What does not fit or comes too fast is lost, as on a busy wire: all protocols ask again. The
  // net header is not copied, so nothing may be left to do.
  const left =
    packet.next == null &&
    completeChecksum(packet) &&
    mail.leaveFrame(machine.cpuIndex(), nic, packet.data, packet.length);
  if (left) machine.wake(mail.state(mail.State.ApicId));
  return false;
}
