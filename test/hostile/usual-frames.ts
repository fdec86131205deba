// Frames of the usual kinds, for attacks to send. Used by the benches.

import type { Guest } from "../model/guest";
import { PEER } from "../model/net/peer";

/** Frames that the guest answers, or looks at closely before it drops them. */
export function usualFrames({ nic, peer }: Guest): Buffer[] {
  const text = (bytes: number) => Buffer.alloc(bytes, "attack ");
  const broadcast = Buffer.from(peer.arpRequest());
  return [
    peer.echoRequest(text(18)),
    peer.echoRequest(text(1400)),
    peer.echoRequest(text(4000)),
    peer.ping(1, text(56)),
    broadcast,
    peer.echoRequest(text(100), 9),
    peer.echoRequest(text(18), 7, 1 + (nic.options.rxSize % 100)),
    Buffer.from(PEER.mac.replaceAll(":", "").padEnd(120, "0"), "hex"),
  ];
}
