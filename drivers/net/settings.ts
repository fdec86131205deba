/**
 * What the device was told on the control queue and said yes to. A reset makes it forget, and
 * then it is told again. Filled by kernel/control.ts; device.ts calls `restore` after DRIVER_OK.
 * virtio 1.4 §5.1.9.5
 *
 * Commands are kept as they were sent. Those with little data have a slot each:
 *
 *   slot    16 bytes  bytes 1 (0: never sent) | class 1 | command 1 | data up to 13
 */
import * as events from "../../kernel/events";
import { allocate } from "../../kernel/memory/arena";
import { copyMac } from "../../kernel/net/address";
import { GROUPS_MAX } from "../../kernel/net/addresses6";
import * as features from "../virtio/features";
import * as commands from "./commands";
import { CONTROL_DATA_BYTES, ControlQueue, ControlState } from "./control-queue";
import { HashParameters } from "./hash-report";
import { Rss } from "./rss";

const MAC_BYTES: u32 = 6;
/** Class 1, command 0. */
const MAC_TABLE_COMMAND: u16 = 1;
const SLOT_SHIFT: u32 = 4;
const VLANS: u32 = 4096;
/** Class, command and whether it is on. */
const RX_MODE_BYTES: u8 = 3;

/** Queues whose coalescing can be set one by one: those of 64 pairs. */
export const COALESCED_QUEUES_MAX: u32 = 128;

/** The slots, in the order in which they are told again. */
export enum Slot {
  Mac,
  /** Six of them, one a mode. */
  RxMode,
  Offloads = 7,
  RxCoalescing,
  TxCoalescing,
  /** COALESCED_QUEUES_MAX of them. They come after those for all queues, which undo them. */
  QueueCoalescing,
}

const SLOTS: u32 = Slot.QueueCoalescing + COALESCED_QUEUES_MAX;

export class Settings {
  readonly rss: Rss = new Rss();
  /** The hashes to report while `rss` is off. */
  readonly hash: HashParameters = new HashParameters();
  private readonly slots: usize = allocate(SLOTS << SLOT_SHIFT);
  private readonly macTable: usize = allocate(2 + CONTROL_DATA_BYTES);
  private macTableBytes: u32 = 0;
  private readonly groups: usize = allocate(GROUPS_MAX * MAC_BYTES);
  private groupCount: u32 = 0;
  /** A bit a VLAN: those that were told at all, and those of them that are to come in. */
  private readonly vlansTold: usize = allocate(VLANS >> 3);
  private readonly vlansOn: usize = allocate(VLANS >> 3);

  // ---- groups that the network stack hears ------------------------------------------------------

  /**
   * At boot: `count` Ethernet group addresses that the device must let in, whatever it filters. They are in every table that it is told. virtio 1.4 §5.1.9.5.2.2
   */
  setGroups(groups: usize, count: u32): void {
    this.groupCount = count;
    memory.copy(this.groups, groups, count * MAC_BYTES);
    if (count == 0) return;
    const table = this.macTable;
    store<u16>(table, MAC_TABLE_COMMAND);
    store<u32>(table, 0, 2);
    store<u32>(table, 0, 6);
    this.macTableBytes = 6 + this.addGroups(table + 6);
  }

  /**
   * Adds them to a list of addresses, a count before them, with room behind it. Answers the bytes
   * of all.
   */
  addGroups(list: usize): u32 {
    let count = load<u32>(list);
    for (let i: u32 = 0; i < this.groupCount; i++) {
      copyMac(list + 4 + MAC_BYTES * count++, this.groups + MAC_BYTES * i);
    }
    store<u32>(list, count);
    return 4 + MAC_BYTES * count;
  }

  // ---- the device said yes ----------------------------------------------------------------------

  /** Keeps the last command in a slot. */
  keep(control: ControlQueue, slot: u32): void {
    const to = this.slots + (slot << SLOT_SHIFT);
    store<u8>(to, <u8>control.bytes);
    memory.copy(to + 1, control.command, control.bytes);
  }

  keepMac(control: ControlQueue): void {
    this.keep(control, Slot.Mac);
  }

  /** The device has coalescing of all receive or transmit queues now: no queue has its own. */
  keepCoalescing(control: ControlQueue, slot: u32): void {
    this.keep(control, slot);
    const first: u32 = slot == Slot.RxCoalescing ? 0 : 1;
    for (let queue = first; queue < COALESCED_QUEUES_MAX; queue += 2) {
      store<u8>(this.slots + ((Slot.QueueCoalescing + queue) << SLOT_SHIFT), 0);
    }
  }

  /**
   * Tells the coalescing of the next queue that has one of its own, from `queue` on and below `end`.
   * Answers the number after that queue's, or 0 when there is none.
   */
  tellCoalescing(control: ControlQueue, queue: u32, end: u32): u32 {
    const last = min(end, COALESCED_QUEUES_MAX);
    for (let next = queue; next < last; next++) {
      const slot = this.slots + ((Slot.QueueCoalescing + next) << SLOT_SHIFT);
      const bytes = load<u8>(slot);
      if (bytes != 0 && control.repeat(slot + 1, bytes)) return next + 1;
    }
    return 0;
  }

  keepMacTable(control: ControlQueue): void {
    this.macTableBytes = control.bytes;
    memory.copy(this.macTable, control.command, control.bytes);
  }

  keepVlan(vlan: u32, on: bool): void {
    setBit(this.vlansTold, vlan, true);
    setBit(this.vlansOn, vlan, on);
  }

  /** The receive offloads as they were set last; `negotiated` if they never were. */
  offloads(negotiated: u64): u64 {
    const slot = this.slots + (Slot.Offloads << SLOT_SHIFT);
    return load<u8>(slot) == 0 ? negotiated : load<u64>(slot + 3);
  }

  /** Nothing was ever said: for a device that is not the one that said yes. */
  forget(): void {
    memory.fill(this.slots, 0, SLOTS << SLOT_SHIFT);
    memory.fill(this.vlansTold, 0, VLANS >> 3);
    memory.fill(this.vlansOn, 0, VLANS >> 3);
    this.macTableBytes = 0;
  }

  /** A receive mode to be told from the next bring-up on, as if the device had said yes. */
  presetRxMode(mode: u32): void {
    const to = this.slots + ((Slot.RxMode + mode) << SLOT_SHIFT);
    store<u8>(to, RX_MODE_BYTES);
    store<u8>(to, <u8>commands.CLASS_RX, 1);
    store<u8>(to, <u8>mode, 2);
    store<u8>(to, 1, 3);
  }

  // ---- the device was reset ---------------------------------------------------------------------

  /**
   * Tells it all again, for a device of which the first `queues` queues are in use. False if it
   * does not answer; what it refuses, or has no feature for any more, is a warning.
   */
  restore(control: ControlQueue, queues: u32, accepted: u64): bool {
    const slots = <u32>Slot.QueueCoalescing + min(queues, COALESCED_QUEUES_MAX);
    for (let i: u32 = 0; i < slots; i++) {
      const slot = this.slots + (i << SLOT_SHIFT);
      const bytes = load<u8>(slot);
      if (bytes == 0 || !isPossible(slot + 1, accepted)) continue;
      // virtio 1.4 §5.1.9.5.9.2: no offload that is not negotiated now.
      if (i == Slot.Offloads) store<u64>(slot + 3, load<u64>(slot + 3) & accepted);
      control.repeat(slot + 1, bytes);
      if (!isAnswered(control)) return false;
    }
    if (this.macTableBytes != 0 && isPossible(this.macTable, accepted)) {
      control.repeat(this.macTable, this.macTableBytes);
      if (!isAnswered(control)) return false;
    }
    if (!features.has(accepted, features.CTRL_VLAN)) return true;
    for (let vlan: u32 = 0; vlan < VLANS; vlan++) {
      // Those that are not to come in as well: some devices begin with all of them.
      if (!hasBit(this.vlansTold, vlan)) continue;
      commands.setVlan(control, vlan, hasBit(this.vlansOn, vlan));
      if (!isAnswered(control)) return false;
    }
    return true;
  }
}

function hasBit(bits: usize, index: u32): bool {
  return ((load<u8>(bits + (index >> 3)) >> (index & 7)) & 1) != 0;
}

function setBit(bits: usize, index: u32, on: bool): void {
  const at = bits + (index >> 3);
  const bit: u32 = 1 << (index & 7);
  store<u8>(at, <u8>(on ? load<u8>(at) | bit : load<u8>(at) & ~bit));
}

function isAnswered(control: ControlQueue): bool {
  const state = control.wait();
  if (state == ControlState.Refused) {
    warn("after its reset the device refuses a command that it took before", control.command);
  }
  return state != ControlState.Failed;
}

/** Whether the device still has the feature of a command, which starts with class and command. */
function isPossible(command: usize, accepted: u64): bool {
  if (features.has(accepted, commands.featureOf(load<u8>(command), load<u8>(command, 1)))) {
    return true;
  }
  warn("after its reset the device lacks the feature of a command that it took before", command);
  return false;
}

function warn(message: string, command: usize): void {
  events.begin("warning");
  events.text("message", message);
  events.num("class", load<u8>(command));
  events.num("command", load<u8>(command, 1));
  events.end();
}
