/**
 * The packed virtqueue with the way from ring to ring: what one device has finished with is offered
 * to the other at once, for app=forward. rings.ts makes one. packed-ring.ts and packed-offer.ts know
 * what is where. virtio 1.4 §2.8
 */
import * as machine from "../../kernel/machine";
import { clearHeader } from "../net/header";
import { Packet } from "../net/packet";
import { ONE_DESCRIPTOR } from "./buffer-ids";
import { FLAGS_SHIFT, ID_SHIFT, META } from "./packed-offer";
import { MARKS_SHIFT, PackedRing, TURN_MASK } from "./packed-ring";
import { DESC_BYTES, DESC_F_WRITE, Ring } from "./ring";

export class PackedRelay extends PackedRing {
  relay(to: Ring, max: u32, least: u32, most: u32): u32 {
    return to instanceof PackedRelay ? this.move(<PackedRelay>to, max, least, most, 0) : 0;
  }

  giveTo(to: Ring, max: u32, bytes: u32): u32 {
    if (!(to instanceof PackedRelay)) return 0;
    (<PackedRelay>to).writableBytes = bytes;
    return this.move(<PackedRelay>to, max, 0, u32.MAX_VALUE, bytes);
  }

  /**
   * Moves buffers in runs for which neither ring wraps. `writable`: bytes that the device may write;
   * 0: they are to be read, as much of them as the device has written.
   */
  @inline
  private move(to: PackedRelay, max: u32, least: u32, most: u32, writable: u32): u32 {
    this.recycledBytes = 0;
    if (!this.ids.straight || !to.ids.straight || this.batchLeft != 0 || this.isAside) return 0;
    // A slot may be marked that was never offered, in every way as if it had been.
    const count = min(min(max, this.outstanding), to.free);
    let moved: u32 = 0;
    while (moved < count) {
      const run = min(count - moved, min(this.size - this.used, to.size - to.next));
      const done = this.moveRun(to, run, least, most, writable);
      moved += done;
      if (done < run) break;
    }
    this.countTurn(moved);
    return moved;
  }

  @inline
  private moveRun(to: PackedRelay, run: u32, least: u32, most: u32, writable: u32): u32 {
    const range = most - least;
    const flags: u32 = writable == 0 ? 0 : DESC_F_WRITE;
    const offered = (<u64>to.nextMarks) << FLAGS_SHIFT;
    const dma = this.dma;
    let from = this.desc + (this.used << 4) + META;
    let held = this.ids.held + (this.used << 3);
    let slot = to.desc + (to.next << 4);
    let own = to.shadow + (to.next << 4);
    let intoHeld = to.ids.held + (to.next << 3);
    // What the next used descriptor has in the upper half of its word: marks and id.
    let ours = (this.usedMarks << MARKS_SHIFT) | this.used;
    let kind = ((<u64>flags) << FLAGS_SHIFT) | ((<u64>to.next) << ID_SHIFT);
    let marks = offered;
    let word: u64 = 0;
    let bytes: u64 = 0;
    let count: u32 = 0;
    for (; count < run; count++) {
      word = machine.sharedRead64(from);
      const length = <u32>word;
      if ((<u32>(word >> 32) & TURN_MASK) != ours || length - least > range) break;
      const packet = changetype<Packet>(load<usize>(held));
      const buffer = packet.buffer;
      if (writable == 0) clearHeader(buffer);
      const whole = kind | (writable == 0 ? length : writable);
      if (count == 0) marks ^= to.openBatch(flags);
      store<u64>(intoHeld, changetype<usize>(packet) | ONE_DESCRIPTOR);
      store<u64>(own, dma + buffer);
      store<u64>(own, whole, META);
      store<u64>(slot, dma + buffer);
      store<u64>(slot, whole | marks, META);
      marks = offered;
      bytes += length;
      ours++;
      kind += (<u64>1) << ID_SHIFT;
      from += DESC_BYTES;
      held += 8;
      slot += DESC_BYTES;
      own += DESC_BYTES;
      intoHeld += 8;
    }
    if (count > 0) this.settle(to, count, bytes);
    if (count < run) this.judge(word);
    return count;
  }

  /** `count` buffers have changed from ring to ring, with `bytes` used bytes. */
  @inline
  private settle(to: PackedRelay, count: u32, bytes: u64): void {
    this.recycledBytes += bytes - <u64>count * this.headerBytes;
    // Buffers were written before the flags that say so; they are read after them.
    machine.acquire();
    this.free += this.passUsed(count);
    this.outstanding -= count;
    to.passOffered(count);
    to.free -= count;
    to.outstanding += count;
  }
}
