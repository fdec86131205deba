/**
 * Packets and the pool they come from. A packet is a buffer that the device can reach and, apart
 * from it, a private record that it cannot. The driver's queues, the network stack and the apps
 * pass records around; nobody copies a frame.
 *
 * A buffer (PacketPool.stride bytes, an odd number of cache lines, so that equal offsets in
 * neighbouring buffers do not fall into the same cache sets):
 *
 *   0             12 (20 with HASH_REPORT)              stride
 *   | virtio      | Ethernet frame ...                  |
 *   | net header  |                                     |
 *   buffer        frame
 *
 * In the second and later buffers of a merged packet, data starts at `buffer`.
 */
import { allocate, allocateUncleared } from "../../kernel/memory/arena";

/** Bytes of struct virtio_net_hdr: 12, and with HASH_REPORT 20. virtio 1.4 §5.1.9 */
export const PLAIN_HEADER_BYTES: u32 = 12;
export const HASH_HEADER_BYTES: u32 = 20;

/** Bytes of the Ethernet header that a frame begins with. */
export const ETHERNET_BYTES: u32 = 14;

/** The most packets that one call of a queue takes or gives. */
export const BURST_MAX: u32 = 64;

const CACHE_LINE: u32 = 64;
const PACKET_BYTES: u32 = 32;

/**
 * What the driver knows of a packet, in private memory.
 *
 *   0 buffer | 4 data | 8 length | 12 total | 16 next | 20 csumOffset | 22 mark |
 *   24 header | 32
 */
@unmanaged
export class Packet {
  /** The buffer, where the net header is. */
  buffer: usize = 0;
  /** The first byte of the frame (first segment) or of its continuation (other segments). */
  data: usize = 0;
  /** Bytes of the frame in this segment. */
  length: u32 = 0;
  /** Bytes of the whole frame, without the net header; valid in the first segment. */
  total: u32 = 0;
  /** The next segment of a merged packet, or null. */
  next: Packet | null = null;
  /** Offset of the checksum behind csum_start, with `header`. */
  csumOffset: u16 = 0;
  /** For whoever has the packet; the driver leaves it alone. */
  mark: u16 = 0;
  /** The cleaned first eight bytes of the net header (header.ts); 0: no offload. */
  header: u64 = 0;

  /** Makes it a frame of one segment, `length` bytes behind a header that says nothing. */
  @inline
  receive(headerBytes: u32, length: u32): void {
    this.data = this.buffer + headerBytes;
    this.length = length;
    this.total = length;
    this.next = null;
    this.header = 0;
  }
}

/**
 * Up to BURST_MAX packets, in order, and for each the used length that a ring reported with it.
 *
 *   0 count | 4 packets, 4 bytes each | 4 + 4 * 64 used lengths, 4 bytes each
 */
@unmanaged
export class Burst {
  count: u32 = 0;

  /** A new, empty burst. At boot only. */
  static create(): Burst {
    return changetype<Burst>(allocate(LENGTHS + BURST_MAX * 4, CACHE_LINE));
  }

  @inline
  get(index: u32): Packet {
    return changetype<Packet>(load<usize>(changetype<usize>(this) + (index << 2), PACKETS));
  }

  @inline
  push(packet: Packet): void {
    this.put(this.count, packet);
    this.count++;
  }

  /** For loops that keep the count themselves; they set `count` at their end. */
  @inline
  put(index: u32, packet: Packet): void {
    store<usize>(changetype<usize>(this) + (index << 2), changetype<usize>(packet), PACKETS);
  }

  @inline
  putUsed(index: u32, bytes: u32): void {
    store<u32>(changetype<usize>(this) + (index << 2), bytes, LENGTHS);
  }

  /**
   * What the ring reported with packet `index`, in bytes; of received ones only it says anything.
   */
  @inline
  used(index: u32): u32 {
    return load<u32>(changetype<usize>(this) + (index << 2), LENGTHS);
  }

  @inline
  clear(): void {
    this.count = 0;
  }
}

const PACKETS: usize = 4;
const LENGTHS: usize = 4 + 64 * 4;

/** All packets of one queue pair, and the stack of those that nobody holds. */
export class PacketPool {
  /** Bytes from one buffer to the next; all of them may be written by the device. */
  readonly stride: u32;
  readonly size: u32;
  /** Bytes of the net header in front of a frame, as negotiated with the device at hand. */
  headerBytes: u32 = PLAIN_HEADER_BYTES;
  /** How many are free. Back at its value after boot when nothing has leaked. */
  free: u32;
  private stack: usize;
  private records: usize;

  /**
   * `count` packets whose buffers hold a header, the longest that there is, and at least
   * `frameBytes` bytes. At boot only.
   */
  constructor(count: u32, frameBytes: u32) {
    const lines = (HASH_HEADER_BYTES + frameBytes + CACHE_LINE - 1) / CACHE_LINE;
    this.stride = (lines | 1) * CACHE_LINE;
    this.size = count;
    this.free = 0;
    this.stack = allocate(count * sizeof<usize>(), CACHE_LINE);
    const buffers = allocateUncleared(count * this.stride, 4096);
    const records = allocate(count * PACKET_BYTES, CACHE_LINE);
    for (let i = count; i > 0; i--) {
      const packet = changetype<Packet>(records + (i - 1) * PACKET_BYTES);
      packet.buffer = buffers + (i - 1) * this.stride;
    }
    this.records = records;
    this.reset();
  }

  /** Bytes of a frame that a buffer takes. */
  get room(): u32 {
    return this.stride - this.headerBytes;
  }

  /** Makes every packet free, whoever had it: after a device was reset and owns nothing. */
  reset(): void {
    this.free = 0;
    for (let i = this.size; i > 0; i--) {
      this.give(changetype<Packet>(this.records + (i - 1) * PACKET_BYTES));
    }
  }

  /** How much memory the pool of these sizes takes, in bytes, rounding included. */
  static bytes(count: u32, frameBytes: u32): u32 {
    const lines = (HASH_HEADER_BYTES + frameBytes + CACHE_LINE - 1) / CACHE_LINE;
    return count * ((lines | 1) * CACHE_LINE + PACKET_BYTES + 4) + 4096 + 2 * CACHE_LINE;
  }

  /** A free packet with an empty first segment, or null. */
  @inline
  take(): Packet | null {
    if (this.free == 0) return null;
    const packet = changetype<Packet>(load<usize>(this.stack + (--this.free << 2)));
    packet.data = packet.buffer + this.headerBytes;
    packet.length = 0;
    packet.total = 0;
    packet.next = null;
    packet.header = 0;
    return packet;
  }

  /**
   * Moves `count` free packets into an empty burst, at most BURST_MAX and what is free, in the order
   * in which they were given back, their segments' fields as they were. A burst that was received
   * and given back so comes to the same descriptors again, and the ring need not be written.
   */
  @inline
  takeBurst(burst: Burst, count: u32): void {
    const free = this.free - count;
    const from = this.stack + (free << 2);
    for (let i: u32 = 0; i < count; i++) {
      burst.put(i, changetype<Packet>(load<usize>(from + (i << 2))));
    }
    burst.count = count;
    this.free = free;
  }

  /** Gives one segment back. */
  @inline
  give(packet: Packet): void {
    store<usize>(this.stack + (this.free++ << 2), changetype<usize>(packet));
  }

  /** Gives a packet back with all its segments. */
  @inline
  release(packet: Packet): void {
    let segment: Packet | null = packet;
    while (segment != null) {
      const next: Packet | null = segment.next;
      this.give(segment);
      segment = next;
    }
  }

  /** Gives all packets of a burst back, each with all its segments. The burst stays as it is. */
  releaseBurst(burst: Burst): void {
    const stack = this.stack;
    const count = burst.count;
    let free = this.free;
    for (let i: u32 = 0; i < count; i++) {
      const packet = burst.get(i);
      if (packet.next != null) {
        this.free = free;
        this.release(packet);
        free = this.free;
      } else {
        store<usize>(stack + (free << 2), changetype<usize>(packet));
        free++;
      }
    }
    this.free = free;
  }
}
