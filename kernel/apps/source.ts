/**
 * app=source: sends UDP frames as fast as the device takes them. main.ts makes one for a queue pair
 * and calls step() again and again until it is done.
 *
 * A frame is built once, in a packet of its own for each descriptor that the source uses. After
 * that nothing touches it: a packet that comes back from the transmit ring is submitted again as
 * it is.
 *
 *   pool --build--> hand --submit--> transmit ring --reclaimInto--> hand
 *
 * The hand is a queue at least as long as the ring, so that with a device that works in order a packet
 * comes to the same descriptor every time, and to the same place in the hand. When all of them have
 * come round so (`align`) nothing is done for each packet any more: the ring's next descriptors are
 * offered again, and the hand is only counted. While the ring is full, what comes back is offered again in
 * the same pass over the ring (`resubmit`). Whatever somebody else sends, or a device that
 * overtakes, ends that for a lap of the ring at least.
 *
 * Other packets in the ring are the stack's own and its answers; they are known by their missing
 * mark and go to the pool.
 */
import * as config from "../config";
import * as events from "../events";
import { allocate } from "../memory/arena";
import { Burst, BURST_MAX, Packet } from "../../drivers/net/packet";
import { QueuePair } from "../../drivers/net/queue-pair";
import { copyMac } from "../net/address";
import { ETHERNET_BYTES } from "../net/ethernet";
import { isMarked, unmark } from "../net/interface";
import { Stack } from "../net/stack";
import { NEVER, deadlineIn } from "../time";
import { NOT_STRAIGHT, TURNFUL } from "../../drivers/virtio/ring";
import { isGroup6 } from "../net/address6";
import { buildFrame, gsoType, segmentsNeeded } from "./source-frame";

/** Descriptors left to the stack, at most. */
const SPARE_MAX: u32 = 8;

/** How often to look whether the last packets are sent; nothing asks for an interrupt then. */
const FINISHING_US: u64 = 1000;

/** How often to look whether an address of IPv6 is ours. */
const WAITING_US: u64 = 10_000;

enum State {
  /** There is no address yet, or the next hop has not said its MAC. */
  Waiting,
  Sending,
  /** All was submitted; the device has yet to send it. */
  Finishing,
  Done,
}

export class Source {
  private state: State = State.Waiting;
  private asked: bool = false;
  /** Where the frames go; six bytes. */
  private destination: usize = config.dst;
  /** Frames still to be submitted. */
  private left: u64 = u64.MAX_VALUE;
  private end: u64 = NEVER;

  /** Our packets, and those of them that are not in the ring. */
  private readonly packets: u32;
  private readonly hand: usize;
  private held: u32 = 0;
  /** Counts the packets taken out of the hand; below the mask it is the place of the next one. */
  private first: u32 = 0;
  private readonly handMask: u32;
  /** Descriptors left to the stack. */
  private readonly reserve: u32;
  /** Descriptors that a frame takes. */
  private slots: u32 = 1;
  /** The next descriptors of the ring hold what the hand holds, place by place, all around. */
  private aligned: bool = false;
  /** Packets that the queue has sent, if nobody else has sent any since then. */
  private sent: u64 = 0;
  /** Frames submitted since it was last found out whether they are aligned. */
  private unaligned: u32 = 0;
  private readonly burst: Burst = Burst.create();
  private readonly received: Burst = Burst.create();

  /** At boot only. */
  constructor(
    readonly pair: QueuePair,
    readonly stack: Stack,
    lane: u32,
    lanes: u32,
  ) {
    const size = pair.tx.ring.size;
    this.reserve = max<u32>(1, min(SPARE_MAX, size >> 2));
    // Of long frames there are as many as packets beyond the receive ring's, and the stack's few.
    const segments = segmentsNeeded(roomIn(pair));
    const spare = pair.pool.size - pair.rx.ring.size - BURST_MAX;
    this.packets = max<u32>(1, min(size, spare / segments));
    // A packed ring may have any size; the hand has a power of two.
    const places: u32 = (<u32>1) << (32 - clz(size - 1));
    this.handMask = places - 1;
    this.hand = allocate(places * sizeof<usize>());
    if (config.count != 0) {
      const share = config.count / lanes;
      this.left = share + (lane < <u32>(config.count % lanes) ? 1 : 0);
    }
  }

  /** All frames are sent, or the time is over and what was begun is sent. */
  get done(): bool {
    return this.state == State.Done;
  }

  /** This lane is paused: somebody else sends what is left of `count`. */
  yieldShare(): u64 {
    if (config.count == 0) return 0;
    const left = this.left;
    this.left = 0;
    return left;
  }

  takeShare(frames: u64): void {
    this.left += frames;
    if (this.state == State.Finishing || this.state == State.Done) this.state = State.Sending;
  }

  /** The device was reset and all packets are back in the pool: frames are built anew. */
  restart(): void {
    this.held = 0;
    this.aligned = false;
  }

  /** Submits a burst and serves the stack. False when there was nothing to do. */
  step(now: u64): bool {
    const worked = this.receive();
    if (this.state == State.Waiting) return this.prepare() || worked;
    if (this.state == State.Done) return worked;
    if (now >= this.end) this.left = 0;
    if (this.left != 0 && this.room() == 0 && this.isAligned(0)) {
      if (this.pair.shouldWait(this.pair.tx.ring, TURNFUL)) return worked;
      const again = this.resubmit();
      if (again != NOT_STRAIGHT) return worked || again > 0;
    }
    const reclaimed = this.isShort() || this.left == 0 ? this.reclaim() : 0;
    if (this.left == 0) {
      this.finish();
      return worked || reclaimed > 0;
    }
    if (this.held + this.pair.tx.ring.outstanding < this.packets) this.build();
    const count = <u32>min<u64>(min(min(config.burst, this.held), this.room()), this.left);
    if (count == 0) return worked || reclaimed > 0;
    this.submit(count);
    return true;
  }

  /**
   * The ring is as full as it gets, and aligned: what comes back is sent again without going through the
   * hand, which only turns. Answers how many frames.
   */
  private resubmit(): i32 {
    const frame = changetype<Packet>(load<usize>(this.hand + ((this.first & this.handMask) << 2)));
    const most = <u32>min<u64>(this.pair.tx.ring.size, this.left);
    const count = this.pair.resubmit(most, config.burst, frame.total);
    if (count <= 0) return count;
    this.first += count;
    this.sent += count;
    if (config.count != 0) this.left -= count;
    return count;
  }

  /** Frames that the ring has room for; the last few descriptors are the stack's. */
  private room(): u32 {
    const free = this.pair.txRoom();
    const usable = free > this.reserve ? free - this.reserve : 0;
    return this.slots == 1 ? usable : usable / this.slots;
  }

  /** Whether there are packets or descriptors for less than a burst. */
  private isShort(): bool {
    return this.held < config.burst || this.room() < config.burst;
  }

  // ---- the frames -------------------------------------------------------------------------------

  private submit(count: u32): void {
    const hand = this.hand;
    const mask = this.handMask;
    const first = this.first;
    this.first = first + count;
    this.held -= count;
    if (config.count != 0) this.left -= count;
    if (this.isAligned(count)) {
      const frame = changetype<Packet>(load<usize>(hand + ((first & mask) << 2)));
      this.pair.submitAgain(count, <u64>count * frame.total);
      this.sent += count;
      return;
    }
    const burst = this.burst;
    for (let i: u32 = 0; i < count; i++) {
      burst.put(i, changetype<Packet>(load<usize>(hand + (((first + i) & mask) << 2))));
    }
    burst.count = count;
    const link = this.stack.net.link;
    if (link.renamed) {
      for (let i: u32 = 0; i < count; i++) copyMac(burst.get(i).data + 6, link.mac);
    }
    this.pair.submit(burst);
    this.align(count);
  }

  /**
   * Finds out once a lap whether the next descriptor holds what the hand holds next, and so on around
   * the ring: first those that are free and in the hand, then those that the device has.
   */
  private align(count: u32): void {
    const ring = this.pair.tx.ring;
    const size = ring.size;
    this.unaligned += count;
    if (this.unaligned < size || this.packets != size || this.handMask != size - 1) return;
    this.unaligned = 0;
    if (this.stack.net.link.renamed) return;
    for (let i: u32 = 0; i < size; i++) {
      const place = this.hand + (((this.first + i) & this.handMask) << 2);
      const packet = ring.nextHeld(i);
      if (packet == 0 || packet != load<usize>(place)) return;
      if (changetype<Packet>(packet).next != null) return;
    }
    this.aligned = true;
    this.sent = this.pair.tx.statistics.packets;
  }

  /**
   * Whether they are still aligned. `ahead` packets are on their way from the hand to the ring, or
   * the other way.
   */
  private isAligned(ahead: u32): bool {
    const tx = this.pair.tx;
    this.aligned =
      this.aligned &&
      this.sent == tx.statistics.packets &&
      this.held + ahead + tx.ring.outstanding == this.packets &&
      tx.ring.nextHeld(0) != 0 &&
      !this.stack.net.link.renamed;
    return this.aligned;
  }

  /** Waits until the ring is empty; then the packets go back to the pool. */
  private finish(): void {
    this.state = State.Finishing;
    if (this.pair.tx.ring.outstanding != 0) return;
    for (; this.held > 0; this.held--) {
      const next = this.hand + ((this.first++ & this.handMask) << 2);
      this.pair.pool.release(changetype<Packet>(load<usize>(next)));
    }
    this.state = State.Done;
  }

  /** Takes sent packets back into the hand; answers how many were sent. */
  private reclaim(): u32 {
    const burst = this.burst;
    burst.clear();
    const count = this.pair.reclaimInto(burst);
    if (count == 0) return 0;
    if (this.isAligned(count)) {
      this.held += count;
      return count;
    }
    const hand = this.hand;
    const mask = this.handMask;
    const first = this.first;
    let held = this.held;
    for (let i: u32 = 0; i < count; i++) {
      const packet = burst.get(i);
      if (isMarked(packet) && held < this.packets) {
        store<usize>(hand + (((first + held) & mask) << 2), changetype<usize>(packet));
        held++;
      } else {
        this.pair.pool.release(packet);
      }
    }
    this.held = held;
    return burst.count;
  }

  /**
   * Builds frames in packets of the pool, a burst of them at most: at the start, after a reset, and
   * when `stats` gave packets that were sent back to the pool.
   */
  private build(): void {
    const missing = this.packets - this.held - this.pair.tx.ring.outstanding;
    this.aligned = false;
    for (let i = min(missing, BURST_MAX); i > 0; i--) {
      const packet = this.takeChain();
      if (packet == null) return;
      buildFrame(packet, roomIn(this.pair), this.stack, this.destination);
      const place = this.hand + (((this.first + this.held) & this.handMask) << 2);
      store<usize>(place, changetype<usize>(packet));
      this.held++;
    }
  }

  /** A packet with as many segments as a frame takes, or null. */
  private takeChain(): Packet | null {
    const pool = this.pair.pool;
    const needed = segmentsNeeded(roomIn(this.pair));
    if (pool.free < needed) return null;
    const packet = pool.take();
    let last: Packet | null = packet;
    for (let i: u32 = 1; i < needed; i++) {
      const segment = pool.take();
      if (segment == null || last == null) return null;
      // Only the first buffer has a net header in front.
      segment.data = segment.buffer;
      last.next = segment;
      last = segment;
    }
    return packet;
  }

  // ---- before the first -------------------------------------------------------------------------

  /** Waits for the address and the next hop's MAC. True once it can send. */
  private prepare(): bool {
    const stack = this.stack;
    if (events.isEnded() || !stack.ready || !stack.net.link.linkUp) return false;
    const wrong = this.whatCannotBeSent();
    if (wrong != null) {
      events.fatal(wrong);
      return false;
    }
    // Like DHCP's, an address of IPv6 may have to be waited for.
    if (config.isDst6 && stack.net.six.sourceFor(config.dstIp6) < 0) return false;
    if (this.asksNeighbour() && stack.hopMac == 0) return this.ask();
    if (this.asksNeighbour()) this.destination = stack.hopMac;
    this.slots = this.pair.tx.ring.descriptorsFor(segmentsNeeded(roomIn(this.pair)));
    this.state = State.Sending;
    if (config.duration != 0) this.end = deadlineIn(<u64>config.duration * 1_000_000);
    return true;
  }

  private asksNeighbour(): bool {
    if (config.hasDst || !config.hasDstIp) return false;
    return !config.isDst6 || !isGroup6(config.dstIp6);
  }

  /** Asks for the next hop's MAC, once. True: there was something to do. */
  private ask(): bool {
    if (this.asked) return false;
    this.asked = true;
    const stack = this.stack;
    if (config.isDst6) return this.ask6();
    const hop = stack.net.nextHop(config.dstIp);
    if (hop == 0) events.fatal("dstip: not in the network of ip=, and there is no gateway");
    else stack.arp.resolve(hop);
    return hop != 0;
  }

  private ask6(): bool {
    const six = this.stack.six;
    // Another CPU's lane is told: it knows no router.
    if (six.relays) return false;
    const hop = six.nextHop(config.dstIp6);
    if (hop == 0) events.fatal("dstip: not in the network of ip6=, and there is no router");
    else six.nd.resolve(hop);
    return hop != 0;
  }

  /** What is wrong with `size` or `gso` for this device, or null. */
  private whatCannotBeSent(): string | null {
    const offloads = this.pair.offloads;
    if (config.gso == config.Gso.None) {
      const fits = config.size <= this.stack.net.link.mtu + ETHERNET_BYTES;
      return fits ? null : "size: more than the device's MTU and an Ethernet header";
    }
    const gso = gsoType();
    if (!offloads.csum || !(offloads.hostGso & (1 << gso))) {
      return "gso: the device does not offer this segmentation";
    }
    const segments = segmentsNeeded(roomIn(this.pair));
    return this.pair.tx.ring.descriptorsFor(segments) != 0
      ? null
      : "size: more segments than the transmit ring has descriptors";
  }

  // ---- the other direction ----------------------------------------------------------------------

  /** Keeps the receive ring going; the stack sees what comes if it has an address. */
  private receive(): bool {
    const pair = this.pair;
    if (!this.stack.listens) return pair.discard(BURST_MAX) > 0;
    const received = this.received;
    received.clear();
    if (pair.take(received, BURST_MAX) == 0) return false;
    const count = received.count;
    let left: u32 = 0;
    for (let i: u32 = 0; i < count; i++) {
      const packet = received.get(i);
      if (packet.next == null && this.answer(packet)) continue;
      received.put(left++, packet);
    }
    received.count = left;
    pair.giveBack(received);
    return true;
  }

  /** Sends the stack's answer if a descriptor is free; send() must not reclaim our packets. */
  private answer(packet: Packet): bool {
    if (!this.stack.receive(packet)) return false;
    if (this.pair.txRoom() == 0) return false;
    unmark(packet);
    return this.pair.send(packet);
  }

  /** When step() is due without any packet. */
  deadline(): u64 {
    if (this.state == State.Sending) return this.end;
    // An address of IPv6 becomes ours without a packet.
    if (this.state == State.Waiting) return config.isDst6 ? deadlineIn(WAITING_US) : NEVER;
    return this.state == State.Finishing ? deadlineIn(FINISHING_US) : NEVER;
  }
}

/** Bytes of a frame that each buffer takes. */
function roomIn(pair: QueuePair): u32 {
  return pair.pool.room;
}
