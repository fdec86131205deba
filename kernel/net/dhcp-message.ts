/**
 * DHCP messages as bytes: RFC 2131 figure 1, options of RFC 2132. Called by dhcp.ts.
 *
 *   0 op | 1 htype | 2 hlen | 3 hops | 4 xid | 8 secs | 10 flags | 12 ciaddr | 16 yiaddr
 *   20 siaddr | 24 giaddr | 28 chaddr 16 | 44 sname 64 | 108 file 128 | 236 cookie | 240 options
 */
import { copyMac, equalMac, prefixOf } from "./address";
import { loadBE32, storeBE16, storeBE32 } from "./bytes";

/** What goes out is as long as a BOOTP message, the least that every relay takes. RFC 1542 2.1 */
export const MESSAGE_BYTES: u32 = 300;

export enum MessageType {
  None = 0,
  Discover = 1,
  Offer = 2,
  Request = 3,
  Decline = 4,
  Ack = 5,
  Nak = 6,
}

const OP_REQUEST: u8 = 1;
const OP_REPLY: u32 = 2;
const HARDWARE_ETHERNET: u32 = 1;
const COOKIE: u32 = 0x63825363;
const FIXED_BYTES: u32 = 240;
const FLAG_BROADCAST: u32 = 0x8000;

const SNAME: usize = 44;
const SNAME_BYTES: usize = 64;
const FILE: usize = 108;
const FILE_BYTES: usize = 128;

const OPTION_PAD: u32 = 0;
const OPTION_MASK: u32 = 1;
const OPTION_ROUTER: u32 = 3;
const OPTION_REQUESTED_IP: u32 = 50;
const OPTION_LEASE: u32 = 51;
const OPTION_OVERLOAD: u32 = 52;
const OPTION_TYPE: u32 = 53;
const OPTION_SERVER: u32 = 54;
const OPTION_PARAMETERS: u32 = 55;
const OPTION_MESSAGE_MAX: u32 = 57;
const OPTION_T1: u32 = 58;
const OPTION_T2: u32 = 59;
const OPTION_CLIENT: u32 = 61;
const OPTION_END: u32 = 255;

/** The longest message that we take: an Ethernet frame's worth. */
const MESSAGE_MAX: u32 = 1472;

// ---- reading -----------------------------------------------------------------------------------

/** What the last parse() found; 0 for what was not there. Addresses in network order, seconds. */
export let type: MessageType = MessageType.None;
export let yourIp: u32 = 0;
export let server: u32 = 0;
export let router: u32 = 0;
/** -1 when there was no mask. */
export let prefix: i32 = -1;
export let lease: u32 = 0;
export let t1: u32 = 0;
export let t2: u32 = 0;

let overload: u32 = 0;
let malformed: bool = false;

/** Whether the `length` bytes at `at` are a well-formed answer to `xid` and `mac`. */
export function parse(at: usize, length: u32, xid: u32, mac: usize): bool {
  if (length < FIXED_BYTES) return false;
  if (load<u8>(at) != OP_REPLY || load<u8>(at, 1) != HARDWARE_ETHERNET) return false;
  if (load<u8>(at, 2) != 6 || load<u32>(at, 4) != xid || !equalMac(at + 28, mac)) return false;
  if (loadBE32(at + 236) != COOKIE) return false;
  type = MessageType.None;
  yourIp = load<u32>(at, 16);
  server = 0;
  router = 0;
  prefix = -1;
  lease = 0;
  t1 = 0;
  t2 = 0;
  overload = 0;
  malformed = false;
  parseOptions(at + FIXED_BYTES, at + length);
  // RFC 2131 4.1: options may go on in file, then in sname.
  const fields = overload;
  if ((fields & 1) != 0) parseOptions(at + FILE, at + FILE + FILE_BYTES);
  if ((fields & 2) != 0) parseOptions(at + SNAME, at + SNAME + SNAME_BYTES);
  return !malformed && type != MessageType.None;
}

/** code 1 | length 1 | value; a pad and the end are a code alone. */
function parseOptions(at: usize, end: usize): void {
  while (at < end) {
    const code: u32 = load<u8>(at++);
    if (code == OPTION_PAD) continue;
    if (code == OPTION_END) return;
    const length: u32 = at < end ? load<u8>(at++) : 256;
    if (length > <u32>(end - at)) {
      malformed = true;
      return;
    }
    takeOption(code, at, length);
    at += length;
  }
}

function takeOption(code: u32, at: usize, length: u32): void {
  if (code == OPTION_TYPE || code == OPTION_OVERLOAD) {
    if (length != 1) malformed = true;
    else if (code == OPTION_TYPE) type = <MessageType>load<u8>(at);
    else overload = load<u8>(at);
    return;
  }
  if (code == OPTION_ROUTER) {
    // A list, the best first.
    if (length < 4) malformed = true;
    else router = load<u32>(at);
    return;
  }
  const known =
    code == OPTION_MASK ||
    code == OPTION_LEASE ||
    code == OPTION_SERVER ||
    code == OPTION_T1 ||
    code == OPTION_T2;
  if (!known) return;
  if (length != 4) {
    malformed = true;
    return;
  }
  if (code == OPTION_MASK) {
    prefix = prefixOf(load<u32>(at));
    if (prefix < 0) malformed = true;
  } else if (code == OPTION_LEASE) lease = loadBE32(at);
  else if (code == OPTION_SERVER) server = load<u32>(at);
  else if (code == OPTION_T1) t1 = loadBE32(at);
  else t2 = loadBE32(at);
}

// ---- writing -----------------------------------------------------------------------------------

function writeOption32(at: usize, code: u32, value: u32): usize {
  store<u8>(at, <u8>code);
  store<u8>(at, 4, 1);
  store<u32>(at, value, 2);
  return at + 6;
}

/**
 * Writes MESSAGE_BYTES bytes. `ciaddr` is our address while we have one; `requested` and `serverId`
 * are left out when 0 (RFC 2131 table 5 says when each is to be there).
 */
export function write(
  at: usize,
  messageType: MessageType,
  xid: u32,
  seconds: u32,
  mac: usize,
  ciaddr: u32,
  requested: u32,
  serverId: u32,
): void {
  memory.fill(at, 0, MESSAGE_BYTES);
  store<u8>(at, OP_REQUEST);
  store<u8>(at, <u8>HARDWARE_ETHERNET, 1);
  store<u8>(at, 6, 2);
  store<u32>(at, xid, 4);
  storeBE16(at + 8, seconds);
  // Without an address we hear a broadcast for certain.
  if (ciaddr == 0) storeBE16(at + 10, FLAG_BROADCAST);
  store<u32>(at, ciaddr, 12);
  copyMac(at + 28, mac);
  storeBE32(at + 236, COOKIE);

  let option = at + FIXED_BYTES;
  store<u8>(option, <u8>OPTION_TYPE);
  store<u8>(option, 1, 1);
  store<u8>(option, <u8>messageType, 2);
  option += 3;
  store<u8>(option, <u8>OPTION_CLIENT);
  store<u8>(option, 7, 1);
  store<u8>(option, <u8>HARDWARE_ETHERNET, 2);
  copyMac(option + 3, mac);
  option += 9;
  if (requested != 0) option = writeOption32(option, OPTION_REQUESTED_IP, requested);
  if (serverId != 0) option = writeOption32(option, OPTION_SERVER, serverId);
  store<u8>(option, <u8>OPTION_MESSAGE_MAX);
  store<u8>(option, 2, 1);
  storeBE16(option + 2, MESSAGE_MAX);
  option += 4;
  store<u8>(option, <u8>OPTION_PARAMETERS);
  store<u8>(option, 5, 1);
  store<u8>(option, <u8>OPTION_MASK, 2);
  store<u8>(option, <u8>OPTION_ROUTER, 3);
  store<u8>(option, <u8>OPTION_LEASE, 4);
  store<u8>(option, <u8>OPTION_T1, 5);
  store<u8>(option, <u8>OPTION_T2, 6);
  store<u8>(option, <u8>OPTION_END, 7);
}
