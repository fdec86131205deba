// The transmit side of the network device: takes what the guest sends, has it checked, does what was
// left to the device, and hands the frames out. Owned by NetDevice. virtio 1.4 §5.1.9.2

import { DriverError } from "../errors";
import type { Chain } from "../virtio/chain";
import type { Live } from "./live";
import type { NetDevice } from "./net-device";
import { HEADER_BYTES, type NetHeader, PLAIN, parseHeader } from "./net-header";
import { finish } from "./offload-work";
import { checkTransmitted } from "./tx-check";

export class NetSender {
  readonly frames: Buffer[] = [];
  /** Takes the frames as they go out on the wire, and the pair they came from. */
  onTransmit: ((frame: Buffer, pair: number) => void) | undefined;
  /** Sees each frame as the driver handed it over, its header, and where it lies. */
  onHandedOver: ((header: NetHeader, frame: Buffer, chain: Chain) => void) | undefined;
  /** How many descriptors of the ring, and pieces, the last frame took; and its header. */
  lastDescriptors = 0;
  lastSegments = 0;
  lastHeader: NetHeader = PLAIN;

  /** Nobody wants the frames: they are judged, and not finished. */
  isDiscarding = false;

  constructor(private readonly device: NetDevice) {}

  /** Takes a batch. True if there was anything. */
  turn(live: Live, pair: number): boolean {
    const { batch, polls } = this.device.options;
    const { queue, ring } = live;
    if (!queue.kicked && !live.awake && !polls) return false;
    queue.kicked = false;
    ring.disableNotifications();
    let done = 0;
    while (done < batch && ring.available() > 0) {
      this.send(live, ring.take(), pair);
      done++;
    }
    live.awake = ring.available() > 0;
    if (!live.awake && !polls) {
      ring.enableNotifications();
      live.awake = ring.available() > 0;
    }
    if (done > 0) this.device.publish(live);
    return done > 0;
  }

  /** Does what was left to the device. */
  private handOut(header: NetHeader, frame: Buffer, pair: number): void {
    for (const piece of finish(header, frame)) {
      if (this.onTransmit === undefined) this.frames.push(piece);
      else this.onTransmit(piece, pair);
    }
  }

  private send(live: Live, chain: Chain, pair: number): void {
    const content = chain.read();
    const header = parseHeader(content);
    const { headerBytes } = this.device;
    const frame = content.subarray(headerBytes);
    if (content.subarray(HEADER_BYTES, headerBytes).some((byte) => byte !== 0)) {
      throw new DriverError("§5.1.9.2.1: there is a hash in a header to transmit");
    }
    checkTransmitted(header, frame, this.device);
    this.lastDescriptors = chain.descriptors.length;
    this.lastSegments = chain.segments.length;
    this.lastHeader = header;
    this.onHandedOver?.(header, frame, chain);
    if (this.device.active > 1) this.device.flows.sent(frame, pair);
    if (!this.isDiscarding) this.handOut(header, frame, pair);
    live.count(frame.length);
    live.ring.give(chain, 0);
  }
}
