/**
 * The split virtqueue with the way from ring to ring: what one device has finished with is offered
 * to the other at once, for app=forward. rings.ts makes one. split-ring.ts and split-offer.ts know
 * what is where. virtio 1.4 §2.7
 */
import * as machine from "../../kernel/machine";
import { clearHeader } from "../net/header";
import { Packet } from "../net/packet";
import { DESC_F_WRITE, Ring } from "./ring";
import { META } from "./split-offer";
import { SplitRing } from "./split-ring";

export class SplitRelay extends SplitRing {
  relay(to: Ring, max: u32, least: u32, most: u32): u32 {
    return to instanceof SplitRelay ? this.move(<SplitRelay>to, max, least, most, 0) : 0;
  }

  giveTo(to: Ring, max: u32, bytes: u32): u32 {
    const meta = <u64>bytes | ((<u64>DESC_F_WRITE) << 32);
    return to instanceof SplitRelay ? this.move(<SplitRelay>to, max, 0, u32.MAX_VALUE, meta) : 0;
  }

  /**
   * Moves buffers in runs for which neither ring wraps. `meta`: length and flags of their descriptors;
   * 0: they are to be read, as much of them as the device has written.
   */
  @inline
  private move(to: SplitRelay, max: u32, least: u32, most: u32, meta: u64): u32 {
    this.recycledBytes = 0;
    if (!this.ids.straight || !to.ids.straight || this.batchLeft != 0 || this.isAside) return 0;
    const count = min(min(this.ready(), max), to.free);
    let moved: u32 = 0;
    while (moved < count) {
      const here = this.size - (this.usedIdx & this.mask);
      const there = to.size - (to.availIdx & to.mask);
      const run = min(count - moved, min(here, there));
      const done = this.moveRun(to, run, least, most, meta);
      moved += done;
      if (done < run) break;
    }
    this.recycled += moved;
    return moved;
  }

  @inline
  private moveRun(to: SplitRelay, run: u32, least: u32, most: u32, meta: u64): u32 {
    const range = most - least;
    const start = this.usedIdx & this.mask;
    const into = to.availIdx & to.mask;
    let element = this.used + 4 + (start << 3);
    let held = this.ids.held + (start << 3);
    let intoHeld = to.ids.held + (into << 3);
    let intoMeta = to.descShadow + (into << 4) + META;
    let bytes: u64 = 0;
    let place = start;
    for (const end = start + run; place < end; place++) {
      const word = machine.sharedRead64(element);
      const length = word >> 32;
      if (<u32>word != place || <u32>length - least > range) {
        this.setAside(word);
        break;
      }
      const packet = changetype<Packet>(load<usize>(held));
      if (meta == 0) clearHeader(packet.buffer);
      // A used length counts the net header, as that of a descriptor does.
      const whole = meta == 0 ? length : meta;
      const isSame = load<usize>(intoHeld) == changetype<usize>(packet);
      if (!isSame || load<u64>(intoMeta) != whole) to.offerAt(into + place - start, packet, whole);
      bytes += length;
      element += 8;
      held += 8;
      intoHeld += 8;
      intoMeta += 16;
    }
    const count = place - start;
    this.recycledBytes += bytes - <u64>count * this.headerBytes;
    this.retire(count, count);
    to.advance(count);
    return count;
  }
}
