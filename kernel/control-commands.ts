/**
 * The console's commands for the device: words are checked, then laid out and sent. Nothing is
 * changed before the device says yes; then control.ts carries out what an order says. What is wrong
 * with a command is one `error` event.
 */
import { Crew } from "./crew";
import * as deviceStats from "./device-stats";
import * as events from "./events";
import * as rssWords from "./control-rss";
import * as words from "./words";
import * as address from "./net/address";
import { isText, number } from "./text";
import { noMore, wrong, wrongItem } from "./words";
import * as commands from "../drivers/net/commands";
import { ControlQueue } from "../drivers/net/control-queue";
import { NetDevice } from "../drivers/net/device";
import { HashParameters } from "../drivers/net/hash-report";
import { Rss } from "../drivers/net/rss";
import { COALESCED_QUEUES_MAX, Slot } from "../drivers/net/settings";
import * as features from "../drivers/virtio/features";

/** What has to be done when the device has said yes. */
export enum Order {
  /** Keep it in slot `value`. */
  Keep,
  Mac,
  MacTable,
  /** VLAN `value`, `on` or off. */
  Vlan,
  /** Not sent yet: use `value` pairs, once lanes beyond them are quiet. */
  Pairs,
  /** `rss` is what the device has now. */
  Rss,
  /** Coalescing of all receive queues if `on`, or of all transmit queues. */
  Coalescing,
  /** Print the coalescing that was read. */
  Answer,
  DeviceStats,
  /** Nothing was sent: announce our address. */
  Announce,
  /** Nothing was sent: reset the device and bring it up again. */
  Reset,
  /** Nothing was sent: reset queue `value` alone. */
  ResetQueue,
  /** Nothing was sent: `rss` is wanted once it is on. */
  Later,
  /** `hash` is what the device has now, or will have once rss is off. */
  Hash,
  HashLater,
}

export let order: Order = Order.Keep;
export let value: u32 = 0;
export let on: bool = false;
/** RSS as it will be, and the hashes to report without it. */
export let rss: Rss = changetype<Rss>(0);
export let hash: HashParameters = changetype<HashParameters>(0);
/** The lanes of the NIC that the command is for. */
let crew: Crew = changetype<Crew>(0);

/** At boot. */
export function prepare(): void {
  if (changetype<usize>(rss) != 0) return;
  rss = new Rss();
  hash = new HashParameters();
}

const VERBS: StaticArray<string> = [
  "rx",
  "mac",
  "vlan",
  "queues",
  "announce",
  "offloads",
  "rss",
  "coal",
  "devstats",
  "reset",
  "hash",
];
const OFF_ON: StaticArray<string> = ["off", "on"];
const RX_MODES: StaticArray<string> = [
  "promiscuous",
  "allmulti",
  "alluni",
  "nomulti",
  "nouni",
  "nobcast",
];
/** The first mode that takes CTRL_RX_EXTRA. */
const RX_MODE_EXTRA: i32 = 2;
/** Receive offloads: the bits of the features of the same name. virtio 1.4 §5.1.9.5.9 */
const OFFLOADS: u64 =
  (1 << features.GUEST_CSUM) |
  (1 << features.GUEST_TSO4) |
  (1 << features.GUEST_TSO6) |
  (1 << features.GUEST_ECN) |
  (1 << features.GUEST_UFO) |
  ((<u64>1) << features.GUEST_USO4) |
  ((<u64>1) << features.GUEST_USO6);

const VLAN_MAX: u64 = 4094;
const MAC_BYTES: u32 = 6;
const NOT_ON_OFF: string = "is neither on nor off";
const NO_LIST_MAC: string = "is no list of such addresses";

/** Whether the line's first word is a command of ours. */
export function isKnown(): bool {
  return words.name(0, VERBS) >= 0;
}

/** Begins the command in words.ts: sets `order`. False if it is wrong; then an event said why. */
export function begin(device: NetDevice, lanes: Crew): bool {
  crew = lanes;
  const verb = words.name(0, VERBS);
  if (verb == 4) return beginHere(Order.Announce);
  if (verb == 9) return words.count == 1 ? beginHere(Order.Reset) : beginQueueReset(device);
  const control = device.control;
  if (control == null) return needs(device, features.CTRL_VQ);
  if (verb == 0) return beginRx(device, control);
  if (verb == 1) return beginMac(device, control);
  if (verb == 2) return beginVlan(device, control);
  if (verb == 3) return beginQueues(device);
  if (verb == 5) return beginOffloads(device, control);
  if (verb == 6) return beginRss(device, control);
  if (verb == 7) return beginCoalescing(device, control);
  if (verb == 10) return beginHash(device, control);
  return beginDeviceStats(device, control);
}

/** What takes no command to the device. */
function beginHere(kind: Order): bool {
  order = kind;
  return noMore(1);
}

/** virtio 1.4 §2.6.1: one data queue that is in use. */
function beginQueueReset(device: NetDevice): bool {
  if (!needs(device, features.RING_RESET)) return false;
  if (!words.isNumber(1, 0, 2 * crew.active - 1)) return wrong(1, "is not a queue in use");
  order = Order.ResetQueue;
  value = <u32>number;
  return noMore(2);
}

// ---- what is wrong ------------------------------------------------------------------------------

/** Whether the feature is there. No command is sent without its own. */
function needs(device: NetDevice, bit: u32): bool {
  if (features.has(device.accepted, bit)) return true;
  events.begin("error");
  events.beginText("message");
  events.textPartBytes(words.word(0), words.length(0));
  events.textPart(": the device has not agreed to ");
  const name = features.featureName(bit);
  if (name != null) events.textPart(name);
  events.endText();
  events.end();
  return false;
}

// ---- what comes in ------------------------------------------------------------------------------

/** virtio 1.4 §5.1.9.5.1.2 */
function beginRx(device: NetDevice, control: ControlQueue): bool {
  const mode = words.name(1, RX_MODES);
  if (mode < 0) return wrong(1, "is no receive mode");
  const state = words.name(2, OFF_ON);
  if (state < 0) return wrong(2, NOT_ON_OFF);
  if (!noMore(3)) return false;
  if (!needs(device, mode < RX_MODE_EXTRA ? features.CTRL_RX : features.CTRL_RX_EXTRA))
    return false;
  order = Order.Keep;
  value = Slot.RxMode + mode;
  return commands.setRxMode(control, mode, state == 1);
}

/** virtio 1.4 §5.1.9.5.2.2: no command of the class without CTRL_RX, whatever it is. */
function beginMac(device: NetDevice, control: ControlQueue): bool {
  if (!needs(device, features.CTRL_RX)) return false;
  if (words.is(1, "set")) {
    if (!needs(device, features.CTRL_MAC_ADDR)) return false;
    const mac = control.data;
    if (!address.parseMac(words.word(2), words.length(2), mac) || !isUnicastMac(mac)) {
      return wrong(2, "is not the address of a host");
    }
    order = Order.Mac;
    return noMore(3) && commands.setMac(control, mac);
  }
  if (!words.is(1, "table")) return wrong(1, "is neither set nor table");
  const unicast = parseMacs(2, control.data, false);
  if (unicast == 0) return wrong(2, NO_LIST_MAC);
  const multicast = parseMacs(3, control.data + unicast, true);
  if (multicast == 0) return wrong(3, NO_LIST_MAC);
  order = Order.MacTable;
  if (!noMore(4)) return false;
  const groups = device.settings.addGroups(control.data + unicast);
  return commands.setMacTable(control, unicast + groups);
}

function isUnicastMac(mac: usize): bool {
  return !address.isGroupMac(mac) && !address.isZeroMac(mac);
}

/** Writes a count and the addresses in a word, or no addresses for "-". Answers the bytes, or 0. */
function parseMacs(index: u32, to: usize, group: bool): u32 {
  let count: u32 = 0;
  if (words.length(index) == 0) return 0;
  if (!words.is(index, "-")) {
    words.openList(index);
    while (words.nextItem()) {
      const at = to + 4 + count * MAC_BYTES;
      if (!address.parseMac(words.item, words.itemBytes, at)) return 0;
      if (group ? !address.isGroupMac(at) : !isUnicastMac(at)) return 0;
      count++;
    }
  }
  store<u32>(to, count);
  return 4 + count * MAC_BYTES;
}

/** virtio 1.4 §5.1.9.5.3 */
function beginVlan(device: NetDevice, control: ControlQueue): bool {
  if (!needs(device, features.CTRL_VLAN)) return false;
  on = words.is(1, "add");
  if (!on && !words.is(1, "del")) return wrong(1, "is neither add nor del");
  if (!words.isNumber(2, 0, VLAN_MAX)) return wrong(2, "is not from 0 to 4094");
  order = Order.Vlan;
  value = <u32>number;
  return noMore(3) && commands.setVlan(control, value, on);
}

// ---- queues -------------------------------------------------------------------------------------

/** virtio 1.4 §5.1.9.5.6.1: at least 1, and only pairs that are set up. */
function beginQueues(device: NetDevice): bool {
  rss.copy(device.settings.rss);
  if (!rss.enabled && !needs(device, features.MQ)) return false;
  if (!words.isNumber(1, 1, crew.lanes)) return wrong(1, "is not a number of pairs set up at boot");
  order = Order.Pairs;
  value = <u32>number;
  rss.spread(value);
  return noMore(2);
}

/** Sends what beginQueues left out. The command that is sent last decides who steers: §5.1.9.5.5 */
export function sendPairs(control: ControlQueue): void {
  if (rss.enabled) rss.send(control);
  else commands.setPairs(control, value);
}

/** virtio 1.4 §5.1.9.5.7.2: a change of one parameter; all are sent. */
function beginRss(device: NetDevice, control: ControlQueue): bool {
  if (!needs(device, features.RSS)) return false;
  rss.copy(device.settings.rss);
  order = Order.Rss;
  const state = words.name(1, OFF_ON);
  if (state >= 0) {
    if (!noMore(2)) return false;
    if (state == 1 && device.config.tableMax == 0) return wrong(1, "needs a table, it has none");
    rss.enabled = state == 1;
    if (rss.enabled || !features.has(device.accepted, features.MQ)) return rss.send(control);
    return commands.setPairs(control, crew.active);
  }
  if (!rssWords.parse(rss, device.config, crew.active)) return false;
  if (!noMore(3)) return false;
  if (rss.enabled) return rss.send(control);
  order = Order.Later;
  return true;
}

/** virtio 1.4 §5.1.9.5.6.4: with rss on its types are reported, and a command would turn it off. */
function beginHash(device: NetDevice, control: ControlQueue): bool {
  if (!needs(device, features.HASH_REPORT)) return false;
  hash.copyParameters(device.settings.hash);
  if (!rssWords.parseHash(hash, device.config) || !noMore(3)) return false;
  order = device.settings.rss.enabled ? Order.HashLater : Order.Hash;
  return order == Order.HashLater || hash.sendHash(control);
}

/** Automatic steering begins without hashes: whoever turned to it says again which ones. */
export function sendHashAgain(device: NetDevice, control: ControlQueue): bool {
  const turned = order == Order.Pairs || order == Order.Rss;
  if (!turned || !device.reportsHash || device.settings.rss.enabled) return false;
  return device.settings.hash.sendHash(control);
}

// ---- offloads, coalescing, statistics -----------------------------------------------------------

/** virtio 1.4 §5.1.9.5.9.2: nothing is turned on that was not negotiated. */
function beginOffloads(device: NetDevice, control: ControlQueue): bool {
  if (!needs(device, features.CTRL_GUEST_OFFLOADS)) return false;
  const negotiated = device.accepted & OFFLOADS;
  let wanted = device.settings.offloads(negotiated);
  if (words.length(1) == 0) return wrong(1, "is no list of offloads");
  words.openList(1);
  while (words.nextItem()) {
    const bit = offloadBit(negotiated);
    if (bit == 0) return wrongItem("is no offload that was agreed upon, with + or -");
    wanted = load<u8>(words.item) == 0x2b ? wanted | bit : wanted & ~bit;
  }
  // Offloads depend on each other as their features do.
  if ((features.closed(wanted) & OFFLOADS) != wanted) {
    return wrong(1, "leaves an offload without one that it needs");
  }
  order = Order.Keep;
  value = Slot.Offloads;
  return noMore(2) && commands.setOffloads(control, wanted);
}

/** The bit of the item, +name or -name, among those that were negotiated; or 0. */
function offloadBit(negotiated: u64): u64 {
  const sign: u32 = words.itemBytes > 1 ? load<u8>(words.item) : 0;
  if (sign != 0x2b && sign != 0x2d) return 0;
  for (let bit: u32 = 0; bit < 64; bit++) {
    const name = features.featureName(bit);
    if (!features.has(negotiated, bit) || name == null) continue;
    if (isText(words.item + 1, words.itemBytes - 1, name)) return (<u64>1) << bit;
  }
  return 0;
}

function beginCoalescing(device: NetDevice, control: ControlQueue): bool {
  if (words.is(1, "vq")) return beginQueueCoalescing(device, control);
  on = words.is(1, "rx");
  if (!on && !words.is(1, "tx")) return wrong(1, "is not rx, tx or vq");
  // virtio 1.4 §5.1.9.5.10.5
  if (!needs(device, features.NOTF_COAL)) return false;
  if (!words.isNumber(2, 0, u32.MAX_VALUE)) return wrong(2, "is no time in us");
  const usecs = <u32>number;
  if (!words.isNumber(3, 0, u32.MAX_VALUE)) return wrong(3, "is no number of packets");
  order = Order.Coalescing;
  value = on ? Slot.RxCoalescing : Slot.TxCoalescing;
  return noMore(4) && commands.setCoalescing(control, on, usecs, <u32>number);
}

/** virtio 1.4 §5.1.9.5.10.5: only of a data queue that is in use. */
function beginQueueCoalescing(device: NetDevice, control: ControlQueue): bool {
  if (!needs(device, features.VQ_NOTF_COAL)) return false;
  const queues = min(2 * crew.active, COALESCED_QUEUES_MAX);
  if (!words.isNumber(2, 0, queues - 1)) return wrong(2, "is not a queue in use");
  const queue = <u32>number;
  if (words.count == 3) {
    order = Order.Answer;
    return commands.getQueueCoalescing(control, queue);
  }
  if (!words.isNumber(3, 0, u32.MAX_VALUE)) return wrong(3, "is no time in us");
  const usecs = <u32>number;
  if (!words.isNumber(4, 0, u32.MAX_VALUE)) return wrong(4, "is no number of packets");
  order = Order.Keep;
  value = Slot.QueueCoalescing + queue;
  return noMore(5) && commands.setQueueCoalescing(control, queue, usecs, <u32>number);
}

function beginDeviceStats(device: NetDevice, control: ControlQueue): bool {
  if (!needs(device, features.DEVICE_STATS) || !noMore(1)) return false;
  order = Order.DeviceStats;
  return deviceStats.begin(control, 2 * crew.active, 2 * device.config.pairsMax);
}
