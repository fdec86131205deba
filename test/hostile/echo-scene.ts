// Packets that come in and are sent back, as a scene for interleavings.ts: on rings so small that they
// run full, and if wanted just before their 16-bit indices wrap.

import { Guest, STATIC_IP } from "../model/guest";
import { MODULE } from "../model/machine/machine";
import { USUAL_FEATURES } from "../model/net/net-device";
import type { Scene } from "./interleavings";
import { openModule } from "./open-module";
import { type QueueSteps, ReceiveSteps, TransmitSteps } from "./queue-steps";

const MEMORY_MIB = 6;
const INDICES = 65_536;
const ETHERNET_BYTES = 14;

/** Takes a guest's rings to `count` packets before their indices wrap. */
function nearWrap(guest: Guest, count: number): void {
  const frame = guest.peer.echoRequest(Buffer.alloc(18));
  const { peer, nic } = guest;
  const left = () => (INDICES - count - nic.live("rx").ring.usedIdx) & 0xffff;
  while (left() > 0) {
    const before = peer.frames.length;
    nic.receive(frame);
    guest.until(() => peer.frames.length > before, "a packet comes back");
    peer.frames.length = 0;
  }
  guest.settle();
}

export class EchoScene implements Scene {
  readonly guest: Guest;
  private readonly frames: readonly Buffer[];
  private transmit: TransmitSteps | undefined;

  constructor(size: number, packets: number, eventIdx: boolean, wraps: boolean) {
    const features = USUAL_FEATURES.filter((name) => eventIdx || name !== "event_idx");
    this.guest = new Guest({
      commandLine: STATIC_IP,
      memoryMib: MEMORY_MIB,
      module: openModule(MODULE),
      net: { rxSize: size, txSize: size, features },
    }).start();
    this.guest.machine.log.enabled = false;
    this.guest.settle();
    if (wraps) nearWrap(this.guest, 1);
    this.frames = Array.from({ length: packets }, (_, i) =>
      this.guest.peer.echoRequest(Buffer.alloc(18, i + 1)),
    );
    this.guest.nic.paused.rx = true;
    this.guest.nic.paused.tx = true;
  }

  begin(): QueueSteps[] {
    const { nic } = this.guest;
    const receive = new ReceiveSteps(nic, nic.live("rx"), this.frames);
    this.transmit = new TransmitSteps(nic, nic.live("tx"));
    return [receive, this.transmit];
  }

  judge(): string[] {
    const sent = this.transmit?.sent ?? [];
    const payload = (frame: Buffer) => frame.subarray(-18).toString("hex");
    const wanted = this.frames.map(payload).join();
    const got = sent.filter((frame) => frame.readUInt16BE(ETHERNET_BYTES - 2) === 0x0800);
    // The model sees buffers as unread before the interrupt that the device is about to send.
    this.guest.machine.violations.take(/lost wake-up/);
    const problems = this.guest.problems();
    if (got.map(payload).join() !== wanted) problems.push(`${got.length} packets came back`);
    const posted = this.guest.nic.live("rx").ring.available();
    const { size } = this.guest.nic.live("rx").queue;
    if (posted !== size) problems.push(`${posted} of ${size} receive buffers are there`);
    return problems;
  }
}
