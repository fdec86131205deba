/**
 * What the run is told by its command line: key=value words as DESIGN.md, section 6, lists them.
 * command-line.ts reads the words and has their values taken in here; config-checks.ts judges them
 * together; everybody else reads the results.
 */
import * as events from "./events";
import * as address from "./net/address";
import * as config6 from "./config6";
import { find, isText, number, parseName, parseNumber } from "./text";

export enum App {
  Echo,
  Sink,
  Source,
  Forward,
  Idle,
}

export enum Ring {
  Auto,
  Split,
  Packed,
}

export enum Mode {
  Adaptive,
  Poll,
  Irq,
}

export enum Gso {
  None,
  Tcp4,
  Udp4,
  Tcp6,
  Udp6,
}

/** What app=forward does with the addresses of a frame. */
export enum Mac {
  Keep,
  /** Source and destination change places. */
  Swap,
  /** The source becomes the sending NIC's own. */
  Own,
}

/** How a NIC comes to its IPv4 address. */
export enum Addressing {
  None,
  Static,
  Dhcp,
}

/** And to its IPv6 addresses. */
export enum Addressing6 {
  /** It has none, and hears nothing of IPv6. */
  Off,
  /** A link-local one, and those that routers advertise prefixes for. */
  Auto,
  /** A link-local one, and one from the command line. */
  Static,
}

/** What the command line says of one NIC's addresses; all in network order. */
@unmanaged
export class NicConfig {
  addressing: Addressing = Addressing.None;
  /** 0 unless static. */
  ip: u32 = 0;
  prefix: u32 = 0;
  /** 0 when none was given. With DHCP, it goes before the router that the server names. */
  gateway: u32 = 0;
  addressing6: Addressing6 = Addressing6.Off;
  prefix6: u32 = 0;
  private ip6First: u64 = 0;
  private ip6Last: u64 = 0;
  private gateway6First: u64 = 0;
  private gateway6Last: u64 = 0;

  /** 16 bytes; zero unless static. */
  get ip6(): usize {
    return changetype<usize>(this) + offsetof<NicConfig>("ip6First");
  }

  /** 16 bytes; zero when none was given. */
  get gateway6(): usize {
    return changetype<usize>(this) + offsetof<NicConfig>("gateway6First");
  }
}

/** How many NICs there can be: ip, ip1 to ip5; `ip6` is about IPv6. */
export const NICS_MAX: u32 = 6;
const FEATURES_MAX: u32 = 64;
const SIZE_MIN: u64 = 60;
export const SIZE_MAX: u64 = 9014;
/** With segmentation: an Ethernet header and the longest IPv4 datagram. */
const GSO_SIZE_MAX: u64 = 65549;
/** 45 segments of the default `mss`, and TCP headers. */
const GSO_SIZE: u32 = 65214;
const QUEUES_MAX: u64 = 32768;

export let app: App = App.Echo;
export let ring: Ring = Ring.Auto;
export let mode: Mode = Mode.Adaptive;
/** Queue pairs at most; 0 means as many as there are vCPUs and the device offers. */
export let queues: u32 = 0;
/** The source's frames: bytes without FCS, how many (0: no limit), and how many in a burst. */
export let size: u32 = 60;
/** What the device is to cut the source's frames into, and how much data each piece gets. */
export let gso: Gso = Gso.None;
export let mss: u32 = 1448;
export let count: u64 = 0;
export let burst: u32 = 64;
export let mac: Mac = Mac.Keep;
/** Where the source sends. `dst` points to six bytes, broadcast when hasDst is false. */
export let hasDst: bool = false;
export const dst: usize = memory.data<u8>([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
export let hasDstIp: bool = false;
export let dstIp: u32 = address.LIMITED_BROADCAST;
/** Whether it sends IPv6, and then where: 16 bytes. */
export let isDst6: bool = false;
export const dstIp6: usize = memory.data<u8>([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
export let dstPort: u32 = 9;
/** Seconds; 0 means no limit, and no `stats` events unasked. */
export let duration: u32 = 0;
export let stats: u32 = 0;
/** Seconds that a transmit queue may stand still; 0: as long as it likes. */
export let watchdog: u32 = 10;
/** The keys. One that can be given per NIC stands here once. */
export enum Key {
  App,
  Ip,
  Gw,
  Queues,
  Ring,
  Features,
  Mode,
  Size,
  Gso,
  Mss,
  Count,
  Burst,
  Dst,
  DstIp,
  DstPort,
  Duration,
  Mac,
  Stats,
  Watchdog,
  Log,
  Ip6,
  Gw6,
  Unknown,
}

export const KEYS: StaticArray<string> = [
  "app",
  "ip",
  "gw",
  "queues",
  "ring",
  "features",
  "mode",
  "size",
  "gso",
  "mss",
  "count",
  "burst",
  "dst",
  "dstip",
  "dstport",
  "duration",
  "mac",
  "stats",
  "watchdog",
  "log",
  "ip6",
  "gw6",
];
const APPS: StaticArray<string> = ["echo", "sink", "source", "forward", "idle"];
const RINGS: StaticArray<string> = ["auto", "split", "packed"];
const MODES: StaticArray<string> = ["adaptive", "poll", "irq"];
const GSOS: StaticArray<string> = ["none", "tcp4", "udp4", "tcp6", "udp6"];
const MACS: StaticArray<string> = ["keep", "swap", "own"];
const LOGS: StaticArray<string> = ["info", "debug", "quiet"];
/** A NicConfig of 56 bytes for each NIC. */
const nics: usize = memory.data(336, 8);
/** The names of `features=` without their minus: pointer and length of each. */
const leftOut: usize = memory.data(512);
let leftOutNames: u32 = 0;

// ---- results -----------------------------------------------------------------------------------

export function nic(index: u32): NicConfig {
  return changetype<NicConfig>(nics + min(index, NICS_MAX - 1) * offsetof<NicConfig>());
}

export function appName(): string {
  return APPS[app];
}

export function modeName(): string {
  return MODES[mode];
}

/** How many names `features=` leaves out. */
export function leftOutCount(): u32 {
  return leftOutNames;
}

/** Whether the `index`th of them is `name`. */
export function leftOutIs(index: u32, name: string): bool {
  const entry = leftOut + (index << 3);
  return isText(load<u32>(entry), load<u32>(entry, 4), name);
}

export function isFeatureLeftOut(name: string): bool {
  for (let i: u32 = 0; i < leftOutNames; i++) if (leftOutIs(i, name)) return true;
  return false;
}
/** Where it stands in the command line, with its minus, and how long it is then. */
export function leftOutAt(index: u32): usize {
  return load<u32>(leftOut + (index << 3)) - 1;
}

export function leftOutBytes(index: u32): u32 {
  return load<u32>(leftOut + (index << 3), 4) + 1;
}

// ---- taking values in --------------------------------------------------------------------------

function parseIp(to: NicConfig, value: usize, length: u32): bool {
  if (isText(value, length, "dhcp")) {
    to.addressing = Addressing.Dhcp;
    return true;
  }
  const slash = find(value, length, 0x2f);
  if (slash == length) return false;
  const ip = address.parseIpv4(value, slash);
  if (ip < 0 || !parseNumber(value + slash + 1, length - slash - 1, 0, 32)) return false;
  to.addressing = Addressing.Static;
  to.ip = <u32>ip;
  to.prefix = <u32>number;
  return address.isHost(to.ip, to.prefix);
}
/** -name,-name into `leftOut`. */
function parseFeatures(value: usize, length: u32): bool {
  let start: u32 = 0;
  for (let i: u32 = 0; i <= length; i++) {
    const c: u32 = i < length ? load<u8>(value + i) : 0x2c;
    if (c == 0x2c) {
      if (i < start + 2 || leftOutNames == FEATURES_MAX) return false;
      const entry = leftOut + (leftOutNames++ << 3);
      store<u32>(entry, <u32>(value + start + 1));
      store<u32>(entry, i - start - 1, 4);
      start = i + 1;
    } else if (i == start) {
      if (c != 0x2d) return false;
    } else if (c != 0x5f && c - 0x30 > 9 && c - 0x61 > 25) {
      return false;
    }
  }
  return true;
}
function applyNic(key: Key, to: NicConfig, value: usize, length: u32): string | null {
  if (key == Key.Ip) {
    return parseIp(to, value, length) ? null : "is not dhcp or a.b.c.d/len";
  }
  if (key == Key.Ip6) return config6.applyAddress(to, value, length);
  if (key == Key.Gw6) return config6.applyGateway(to, value, length);
  const gateway = address.parseIpv4(value, length);
  if (gateway < 0 || !address.isUnicast(<u32>gateway)) return "is not a host's a.b.c.d";
  to.gateway = <u32>gateway;
  return null;
}

function applyChoice(key: Key, value: usize, length: u32): string | null {
  if (key == Key.App) {
    const choice = parseName(value, length, APPS);
    if (choice < 0) return "is not echo, sink, source, forward or idle";
    app = <App>choice;
  } else if (key == Key.Ring) {
    const choice = parseName(value, length, RINGS);
    if (choice < 0) return "is not auto, split or packed";
    ring = <Ring>choice;
  } else if (key == Key.Mode) {
    const choice = parseName(value, length, MODES);
    if (choice < 0) return "is not adaptive, poll or irq";
    mode = <Mode>choice;
  } else if (key == Key.Log) {
    const choice = parseName(value, length, LOGS);
    if (choice < 0) return "is not info, debug or quiet";
    events.setLogLevel(<events.LogLevel>choice);
  } else if (key == Key.Gso) {
    const choice = parseName(value, length, GSOS);
    if (choice < 0) return "is not none, tcp4, udp4, tcp6 or udp6";
    gso = <Gso>choice;
  } else if (key == Key.Mac) {
    const choice = parseName(value, length, MACS);
    if (choice < 0) return "is not keep, swap or own";
    mac = <Mac>choice;
  } else if (key == Key.Features) {
    if (!parseFeatures(value, length)) return "is not -name or -name,-name,... of at most 64 names";
  } else {
    if (isText(value, length, "max")) return null;
    if (!parseNumber(value, length, 1, QUEUES_MAX)) return "is not max or from 1 to 32768";
    queues = <u32>number;
  }
  return null;
}

function applyNumber(key: Key, value: usize, length: u32): string | null {
  if (key == Key.Size) {
    if (!parseNumber(value, length, SIZE_MIN, GSO_SIZE_MAX)) {
      return "is not from 60 to 9014 bytes, or to 65549 with gso=";
    }
    size = <u32>number;
  } else if (key == Key.Mss) {
    if (!parseNumber(value, length, 64, 65535)) return "is not from 64 to 65535 bytes";
    mss = <u32>number;
  } else if (key == Key.Count) {
    if (!parseNumber(value, length, 0, u64.MAX_VALUE)) return "is not a number of frames";
    count = number;
  } else if (key == Key.Burst) {
    if (!parseNumber(value, length, 1, 64)) return "is not from 1 to 64";
    burst = <u32>number;
  } else if (key == Key.DstPort) {
    if (!parseNumber(value, length, 1, 65535)) return "is not from 1 to 65535";
    dstPort = <u32>number;
  } else {
    if (!parseNumber(value, length, 0, u32.MAX_VALUE)) return "is not a number of seconds";
    if (key == Key.Duration) duration = <u32>number;
    else if (key == Key.Stats) stats = <u32>number;
    else watchdog = <u32>number;
  }
  return null;
}

/** Takes the value of a key in. Answers null, or what is wrong with it. */
export function apply(key: Key, nicIndex: u32, value: usize, length: u32): string | null {
  if (length == 0) return "is empty";
  switch (key) {
    case Key.Ip:
    case Key.Gw:
    case Key.Ip6:
    case Key.Gw6:
      return applyNic(key, nic(nicIndex), value, length);
    case Key.Dst:
      hasDst = address.parseMac(value, length, dst);
      return hasDst ? null : "is not xx:xx:xx:xx:xx:xx";
    case Key.DstIp: {
      const parsed = address.parseIpv4(value, length);
      isDst6 = parsed < 0 && config6.parseDestination(value, length, dstIp6);
      hasDstIp = parsed > 0 || isDst6;
      dstIp = <u32>parsed;
      return hasDstIp ? null : "is neither a.b.c.d nor an IPv6 address";
    }
    case Key.App:
    case Key.Ring:
    case Key.Mode:
    case Key.Log:
    case Key.Gso:
    case Key.Mac:
    case Key.Features:
    case Key.Queues:
      return applyChoice(key, value, length);
    default:
      return applyNumber(key, value, length);
  }
}
/** What the source's words leave open follows from the others: over IPv6, and with gso=. */
export function completeSource(hasSize: bool, hasMss: bool): void {
  isDst6 = isDst6 || isGso6();
  if (!hasSize && gso != Gso.None) size = GSO_SIZE;
  if (!isDst6) return;
  if (!hasSize) size = max(size, config6.sizeMin(gso == Gso.Tcp6));
  if (!hasMss && gso == Gso.Tcp6) mss = config6.TCP_MSS;
  if (!hasDst) config6.groupMac(dst, dstIp6);
}

export function isGso6(): bool {
  return gso == Gso.Tcp6 || gso == Gso.Udp6;
}
