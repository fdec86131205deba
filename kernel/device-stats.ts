/**
 * Statistics that the device itself keeps: which types it has, then queue after queue those that
 * fit it, a `devstats` event each. Driven by control.ts. virtio 1.4 §5.1.9.5.11
 *
 * The answer for a queue is a row of replies, each
 *
 *   type 1 | reserved 1 | vq_index 2 | reserved 2 | size 2 | counters 8 each ...
 */
import * as events from "./events";
import * as machine from "./machine";
import * as commands from "../drivers/net/commands";
import { CONTROL_DATA_BYTES, ControlQueue } from "../drivers/net/control-queue";

/** Types of receive queues, of transmit queues and of the control queue, as masks. */
const RX_TYPES: u64 = 0xf;
const TX_TYPES: u64 = 0xf << 16;
const CONTROL_TYPES: u64 = (<u64>1) << 32;
const HEADER_BYTES: u32 = 8;

/** The counters of each type, by the number that a reply has. Others are passed over. */
const RX_BASIC: StaticArray<string> = [
  "notifications",
  "packets",
  "bytes",
  "interrupts",
  "drops",
  "drop_overruns",
];
const RX_CSUM: StaticArray<string> = ["csum_valid", "needs_csum", "csum_none", "csum_bad"];
const RX_GSO: StaticArray<string> = [
  "gso_packets",
  "gso_bytes",
  "gso_packets_coalesced",
  "gso_bytes_coalesced",
];
const SPEED: StaticArray<string> = ["packets_allowance_exceeded", "bytes_allowance_exceeded"];
const TX_BASIC: StaticArray<string> = [
  "notifications",
  "packets",
  "bytes",
  "interrupts",
  "drops",
  "drop_malformed",
];
const TX_CSUM: StaticArray<string> = ["csum_none", "needs_csum"];
const TX_GSO: StaticArray<string> = [
  "gso_packets",
  "gso_bytes",
  "gso_segments",
  "gso_segments_bytes",
  "gso_packets_noseg",
  "gso_bytes_noseg",
];
const CONTROL: StaticArray<string> = ["command_num", "ok_num"];

let supported: u64 = 0;
/** The queue that is asked next, how many of them are data queues, and which is for control. */
let queue: u32 = 0;
let dataQueues: u32 = 0;
let controlIndex: u32 = 0;
let asked: bool = false;

/** Asks first of all what there is. `data` data queues are in use. */
export function begin(control: ControlQueue, data: u32, controlQueue: u32): bool {
  supported = 0;
  queue = 0;
  dataQueues = data;
  controlIndex = controlQueue;
  asked = false;
  return commands.queryStatistics(control);
}

/** The device said yes: takes what it answered, and asks on. False when that was all. */
export function goOn(nic: u32, control: ControlQueue): bool {
  if (asked) {
    print(nic, control);
    queue++;
  } else if (control.resultBytes == commands.STATS_CAPABILITIES_BYTES) {
    supported = machine.sharedRead64(control.result);
    asked = true;
  }
  // virtio 1.4 §5.1.9.5.11.13: only types that the device has, and that fit the queue.
  while (queue <= dataQueues) {
    const types = supported & typesOf(queue);
    if (types != 0) return commands.getStatistics(control, index(), types, CONTROL_DATA_BYTES);
    queue++;
  }
  return false;
}

function index(): u32 {
  return queue == dataQueues ? controlIndex : queue;
}

function typesOf(queue: u32): u64 {
  if (queue == dataQueues) return CONTROL_TYPES;
  return (queue & 1) == 0 ? RX_TYPES : TX_TYPES;
}

function print(nic: u32, control: ControlQueue): void {
  events.begin("devstats");
  events.num("nic", nic);
  events.num("queue", index());
  events.text("kind", queue == dataQueues ? "control" : (queue & 1) == 0 ? "rx" : "tx");
  let at: u32 = 0;
  while (at + HEADER_BYTES <= control.resultBytes) {
    const reply = control.result + at;
    const size = machine.sharedRead16(reply + 6);
    // The size is the device's word: nothing beyond the answer is looked at.
    if (size < HEADER_BYTES || at + size > control.resultBytes) break;
    printReply(machine.sharedRead8(reply), reply + HEADER_BYTES, (size - HEADER_BYTES) >> 3);
    at += size;
  }
  events.end();
}

function printReply(type: u32, counters: usize, count: u32): void {
  if (type == 0) printCounters(RX_BASIC, counters, count);
  else if (type == 1) printCounters(RX_CSUM, counters, count);
  else if (type == 2) printCounters(RX_GSO, counters, count);
  else if (type == 3 || type == 19) printCounters(SPEED, counters, count);
  else if (type == 16) printCounters(TX_BASIC, counters, count);
  else if (type == 17) printCounters(TX_CSUM, counters, count);
  else if (type == 18) printCounters(TX_GSO, counters, count);
  else if (type == 32) printCounters(CONTROL, counters, count);
}

/** A later version may have more counters than we know. */
function printCounters(names: StaticArray<string>, counters: usize, count: u32): void {
  const known = min(count, <u32>names.length);
  for (let i: u32 = 0; i < known; i++) {
    events.num(names[i], machine.sharedRead64(counters + (i << 3)));
  }
}
