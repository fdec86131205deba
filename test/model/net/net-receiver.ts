// The receive side of the network device: frames that wait for buffers, to which queue they go, and
// how they are put into buffers, merged where that was agreed upon. Owned by NetDevice. virtio 1.4
// §5.1.9.3, §5.1.9.4

import { DriverError } from "../errors";
import type { Chain } from "../virtio/chain";
import type { DeviceRing } from "../virtio/device-ring";
import type { Live } from "./live";
import type { NetDevice } from "./net-device";
import { HASH_HEADER_BYTES, type NetHeader, PLAIN, writeHash, writeHeader } from "./net-header";

const ETHERNET_BYTES = 14;
/** §5.1.9.3.1: without MRG_RXBUF; and with large receives. */
const BUFFER_FRAME_BYTES_MIN = 1514;
const LARGE_FRAME_BYTES_MIN = 65_589;

/** A frame from the network, and what is to stand before it. */
export interface Arrival {
  readonly frame: Uint8Array;
  readonly header: Partial<NetHeader>;
}

export class NetReceiver {
  /** Frames that have not come to a queue yet. */
  readonly pending: Arrival[] = [];
  /** Frames that fit into no buffer, as a device drops them. */
  dropped = 0;
  /** Frames and buffers that went to the guest. */
  frames = 0;
  buffers = 0;
  /** Sees each buffer that a frame was put into. */
  onFilled: ((chain: Chain) => void) | undefined;
  /** Changes a header before it is written: how a device lies. */
  tamper: ((header: Buffer) => void) | undefined;
  /** Bytes that go into each buffer at most: a device may merge more than it has to. */
  spread = Infinity;

  constructor(private readonly device: NetDevice) {}

  /** Takes back what waits at the queues: they are about to go, or to be others. */
  collect(queues: readonly Live[]): void {
    for (const { waiting } of [...queues].reverse()) this.pending.unshift(...waiting.splice(0));
  }

  /** Leads each pending frame to a queue. */
  distribute(queues: readonly Live[]): void {
    for (const arrival of this.pending.splice(0)) {
      const pair = this.device.pairFor(Buffer.from(arrival.frame));
      if (pair !== undefined) queues[pair]?.waiting.push(arrival);
    }
  }

  /** Hands over what it can. True if it did. */
  turn(live: Live): boolean {
    const { batch, polls } = this.device.options;
    const { queue, ring, waiting } = live;
    if (queue.kicked || polls) live.starved = false;
    queue.kicked = false;
    if (waiting.length === 0 || live.starved) return false;
    ring.disableNotifications();
    let done = 0;
    while (done < batch && waiting.length > 0 && this.deliverNext(live)) done++;
    if (waiting.length > 0 && done < batch && !polls) this.starve(live);
    if (done > 0) this.device.publish(live);
    return done > 0;
  }

  /** Waits for a notification, unless buffers have come in the meantime. */
  private starve(live: Live): void {
    const before = live.ring.available();
    live.ring.enableNotifications();
    live.starved = live.ring.available() === before;
  }

  private deliverNext(live: Live): boolean {
    const [arrival] = live.waiting;
    if (arrival === undefined || !this.deliver(live, arrival)) return false;
    live.waiting.shift();
    return true;
  }

  /** Puts one frame into buffers; false when there are too few. */
  private deliver(live: Live, arrival: Arrival): boolean {
    const { ring } = live;
    const mergeable = this.device.accepts("mrg_rxbuf");
    const needed = this.device.headerBytes + arrival.frame.length;
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
      live.drops++;
      return true;
    }
    this.fill(ring, chains, arrival);
    live.count(arrival.frame.length);
    return true;
  }

  private fill(ring: DeviceRing, chains: readonly Chain[], { frame, header }: Arrival): void {
    const { headerBytes } = this.device;
    const content = Buffer.allocUnsafe(headerBytes + frame.length);
    writeHeader(content, { ...PLAIN, numBuffers: chains.length, ...header });
    if (headerBytes === HASH_HEADER_BYTES) {
      writeHash(content, this.device.hashOf(Buffer.from(frame)));
    }
    this.tamper?.(content);
    content.set(frame, headerBytes);
    let at = 0;
    for (const chain of chains) {
      const written = chain.write(content.subarray(at, at + this.spread));
      ring.give(chain, written);
      this.onFilled?.(chain);
      at += written;
    }
    this.frames++;
    this.buffers += chains.length;
  }

  private checkBuffer(chain: Chain, mergeable: boolean): void {
    const { device } = this;
    const mtu = device.accepts("mtu") ? device.mtu : 0;
    const usual = device.receivesLarge ? LARGE_FRAME_BYTES_MIN : BUFFER_FRAME_BYTES_MIN;
    const room = mergeable ? 0 : Math.max(usual, ETHERNET_BYTES + mtu);
    const least = device.headerBytes + room;
    if (chain.bytes < least) {
      throw new DriverError(`§5.1.9.3.1: a receive buffer of ${chain.bytes} bytes, not ${least}`);
    }
  }
}
