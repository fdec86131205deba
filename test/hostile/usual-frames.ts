// Frames of the usual kinds, for attacks to send. Used by the benches.

import { PROTOCOL_DESTINATION_OPTIONS, paddingOptions } from "qemu-test-harness";
import type { Guest } from "../model/guest";
import { PEER } from "../model/net/peer";
import { Peer6 } from "../model/net/peer6";

/** Frames that the guest answers, or looks at closely before it drops them. */
export function usualFrames(guest: Guest): Buffer[] {
  const { nic, peer } = guest;
  const text = (bytes: number) => Buffer.alloc(bytes, "attack ");
  const broadcast = Buffer.from(peer.arpRequest());
  const peer6 = new Peer6(guest);
  const extensions = [paddingOptions(PROTOCOL_DESTINATION_OPTIONS, 16)];
  return [
    peer.echoRequest(text(18)),
    peer.echoRequest(text(1400)),
    peer.echoRequest(text(4000)),
    peer.ping(1, text(56)),
    broadcast,
    peer.echoRequest(text(100), 9),
    peer.echoRequest(text(18), 7, 1 + (nic.options.rxSize % 100)),
    Buffer.from(PEER.mac.replaceAll(":", "").padEnd(120, "0"), "hex"),
    peer6.echoRequest(text(100)),
    peer6.echoRequest(text(100), { extensions }),
    peer6.solicitation(peer6.guestLink),
    peer.echoRequest(text(8900)),
  ];
}
