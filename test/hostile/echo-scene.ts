// Packets that come in and are sent back, as a scene for interleavings.ts: on rings of any format, so
// small that they run full, and if wanted just before their indices or counters wrap.

import { Guest, STATIC_IP } from "../model/guest";
import { MODULE } from "../model/machine/machine";
import type { FeatureName } from "../model/virtio/features";
import type { Scene } from "./interleavings";
import { openModule } from "./open-module";
import { type QueueSteps, ReceiveSteps, TransmitSteps } from "./queue-steps";

const MEMORY_MIB = 6;
const INDICES = 65_536;
const ETHERNET_BYTES = 14;

export interface SceneOptions {
  readonly features: readonly FeatureName[];
  /** Entries of each ring. */
  readonly size: number;
  readonly packets: number;
  /**
   * Packets that went through before: the rings begin there. A split ring's indices wrap after
   * 65,536 of them, a packed ring's counters after each lap.
   */
  readonly before: number;
  /** With in_order: the device gives back what it has as one, with one used entry. */
  readonly batches: boolean;
}

/** Where a split ring's indices wrap with the packet that comes next. */
export const NEAR_WRAP = INDICES - 1;

/** Has `count` packets pass through a guest's rings. */
function passThrough(guest: Guest, count: number): void {
  const frame = guest.peer.echoRequest(Buffer.alloc(18));
  const { peer, nic } = guest;
  for (let i = 0; i < count; i++) {
    nic.receive(frame);
    guest.until(() => peer.frames.length > 0, "a packet comes back");
    peer.frames.length = 0;
  }
  guest.settle();
}

export class EchoScene implements Scene {
  readonly guest: Guest;
  private readonly frames: readonly Buffer[];
  private transmit: TransmitSteps | undefined;

  constructor(private readonly options: SceneOptions) {
    const { before, features, packets, size } = options;
    this.guest = new Guest({
      commandLine: STATIC_IP,
      memoryMib: MEMORY_MIB,
      module: openModule(MODULE),
      net: { rxSize: size, txSize: size, features },
    }).start();
    this.guest.machine.log.enabled = false;
    this.guest.settle();
    passThrough(this.guest, before);
    this.frames = Array.from({ length: packets }, (_, i) =>
      this.guest.peer.echoRequest(Buffer.alloc(18, i + 1)),
    );
    this.guest.nic.paused.rx = true;
    this.guest.nic.paused.tx = true;
  }

  begin(): QueueSteps[] {
    const { nic } = this.guest;
    const { batches } = this.options;
    const receive = new ReceiveSteps(nic, nic.live("rx"), this.frames, batches);
    this.transmit = new TransmitSteps(nic, nic.live("tx"), batches);
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
