// The receive side of the network device: frames that wait for buffers, and how they are put into
// them, merged where that was agreed upon. Owned by NetDevice. virtio 1.4 §5.1.9.3, §5.1.9.4

import { DriverError } from "../errors";
import type { Chain } from "../virtio/chain";
import type { Queue } from "../virtio/queue";
import type { SplitRing } from "../virtio/split-ring";
import type { NetDevice } from "./net-device";

export const HEADER_BYTES = 12;
const NUM_BUFFERS = 10;
const ETHERNET_BYTES = 14;
/** §5.1.9.3.1: without MRG_RXBUF and offloads. */
const BUFFER_BYTES_MIN = 1526;

export class NetReceiver {
  /** Frames that the guest has not got yet. */
  readonly pending: Uint8Array[] = [];
  /** Frames that fit into no buffer, as a device drops them. */
  dropped = 0;
  /** Frames and buffers that went to the guest. */
  frames = 0;
  buffers = 0;
  /** Changes a header before it is written: how a device lies. */
  tamper: ((header: Buffer) => void) | undefined;
  /** Bytes that go into each buffer at most: a device may merge more than it has to. */
  spread = Infinity;
  /** The ring was empty: nothing is done before a notification comes. */
  private starved = false;

  constructor(private readonly device: NetDevice) {}

  start(): void {
    this.starved = false;
  }

  /** Hands over what it can. True if it did. */
  turn(queue: Queue, ring: SplitRing): boolean {
    const { batch, polls } = this.device.options;
    if (queue.kicked || polls) this.starved = false;
    queue.kicked = false;
    if (this.pending.length === 0 || this.starved) return false;
    ring.disableNotifications();
    let done = 0;
    while (done < batch && this.pending.length > 0 && this.deliverNext(ring)) done++;
    if (this.pending.length > 0 && done < batch && !polls) this.starve(ring);
    if (done > 0) this.device.publish(queue, ring);
    return done > 0;
  }

  /** Waits for a notification, unless buffers have come in the meantime. */
  private starve(ring: SplitRing): void {
    const before = ring.availIdx;
    ring.enableNotifications();
    this.starved = ring.availIdx === before;
  }

  private deliverNext(ring: SplitRing): boolean {
    const [frame] = this.pending;
    if (frame === undefined || !this.deliver(ring, frame)) return false;
    this.pending.shift();
    return true;
  }

  /** Puts one frame into buffers; false when there are too few. */
  private deliver(ring: SplitRing, frame: Uint8Array): boolean {
    const mergeable = this.device.accepts("mrg_rxbuf");
    const needed = HEADER_BYTES + frame.length;
    const chains: Chain[] = [];
    let room = 0;
    for (let left = ring.available(); room < needed; left--) {
      if (left === 0) {
        ring.untake(chains);
        return false;
      }
      const chain = ring.take();
      this.checkBuffer(chain, mergeable);
      chains.push(chain);
      room += mergeable ? Math.min(chain.bytes, this.spread) : chain.bytes;
      if (!mergeable) break;
    }
    if (room < needed) {
      ring.untake(chains);
      this.dropped++;
      return true;
    }
    this.fill(ring, chains, frame);
    return true;
  }

  private fill(ring: SplitRing, chains: readonly Chain[], frame: Uint8Array): void {
    const content = Buffer.allocUnsafe(HEADER_BYTES + frame.length);
    content.fill(0, 0, HEADER_BYTES);
    content.writeUInt16LE(chains.length, NUM_BUFFERS);
    this.tamper?.(content);
    content.set(frame, HEADER_BYTES);
    let at = 0;
    for (const chain of chains) {
      const written = chain.write(content.subarray(at, at + this.spread));
      ring.give(chain, written);
      at += written;
    }
    this.frames++;
    this.buffers += chains.length;
  }

  private checkBuffer(chain: Chain, mergeable: boolean): void {
    const { device } = this;
    const mtu = device.accepts("mtu") ? device.options.mtu : 0;
    const least = mergeable
      ? HEADER_BYTES
      : Math.max(BUFFER_BYTES_MIN, HEADER_BYTES + ETHERNET_BYTES + mtu);
    if (chain.bytes < least) {
      throw new DriverError(`§5.1.9.3.1: a receive buffer of ${chain.bytes} bytes, not ${least}`);
    }
  }
}
