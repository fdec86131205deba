// The transmit side of the network device: takes what the guest sends, checks header and length,
// and hands the frames out. Owned by NetDevice. virtio 1.4 §5.1.9.2

import { DriverError } from "../errors";
import type { Chain } from "../virtio/chain";
import type { Queue } from "../virtio/queue";
import type { SplitRing } from "../virtio/split-ring";
import type { NetDevice } from "./net-device";
import { HEADER_BYTES } from "./net-receiver";

const FLAGS = 0;
const GSO_TYPE = 1;
const NUM_BUFFERS = 10;
const ETHERNET_BYTES = 14;
const MTU_DEFAULT = 1500;

export class NetSender {
  readonly frames: Buffer[] = [];
  /** Takes the frames instead of `frames`. */
  onTransmit: ((frame: Buffer) => void) | undefined;
  /** How many descriptors of the ring, and pieces, the last frame took. */
  lastDescriptors = 0;
  lastSegments = 0;
  /** A turn ended with its batch: there may be more. */
  private awake = false;

  constructor(private readonly device: NetDevice) {}

  start(): void {
    this.awake = false;
  }

  /** Takes a batch. True if there was anything. */
  turn(queue: Queue, ring: SplitRing): boolean {
    const { batch, polls } = this.device.options;
    if (!queue.kicked && !this.awake && !polls) return false;
    queue.kicked = false;
    ring.disableNotifications();
    let done = 0;
    while (done < batch && ring.available() > 0) {
      this.send(ring, ring.take());
      done++;
    }
    this.awake = ring.available() > 0;
    if (!this.awake && !polls) {
      ring.enableNotifications();
      this.awake = ring.available() > 0;
    }
    if (done > 0) this.device.publish(queue, ring);
    return done > 0;
  }

  private send(ring: SplitRing, chain: Chain): void {
    const content = chain.read();
    this.check(content);
    this.lastDescriptors = chain.descriptors.length;
    this.lastSegments = chain.segments.length;
    const frame = content.subarray(HEADER_BYTES);
    if (this.onTransmit === undefined) this.frames.push(frame);
    else this.onTransmit(frame);
    ring.give(chain, 0);
  }

  private check(content: Buffer): void {
    const { device } = this;
    const mtu = device.accepts("mtu") ? device.options.mtu : MTU_DEFAULT;
    const bytes = content.length - HEADER_BYTES;
    if (bytes < ETHERNET_BYTES || bytes > mtu + ETHERNET_BYTES) {
      throw new DriverError(`§5.1.4.2: a frame of ${bytes} bytes is sent, with an MTU of ${mtu}`);
    }
    const offloads = [content[FLAGS], content[GSO_TYPE], content.readUInt16LE(NUM_BUFFERS)];
    if (offloads.some((value) => value !== 0)) {
      throw new DriverError(`§5.1.9.2.1: flags, gso_type, num_buffers are ${offloads}, not 0`);
    }
  }
}
