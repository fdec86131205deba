/**
 * The command line: key=value words as DESIGN.md, section 6, lists them. main.ts calls parse()
 * first of all; everybody else reads the results. Nothing is ignored in silence: a word that is
 * wrong ends the run with an `error` event that names it, a key that the chosen app has no use
 * for is a `warning`.
 */
import * as machine from "./machine";
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

const LINE_BYTES: u32 = 2048;
const FEATURES_MAX: u32 = 64;
const SIZE_MIN: u64 = 60;
const SIZE_MAX: u64 = 9014;
/** With segmentation: an Ethernet header and the longest IPv4 datagram. */
const GSO_SIZE_MAX: u64 = 65549;
/** 45 segments of the default `mss`, and TCP headers. */
const GSO_SIZE: u32 = 65214;
const QUEUES_MAX: u64 = 32768;
const NO_SUCH_NIC: string = "is for a NIC that is not there";

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
enum Key {
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

const KEYS: StaticArray<string> = [
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

const line: usize = memory.data(2048);
/** A NicConfig of 56 bytes for each NIC. */
const nics: usize = memory.data(336, 8);
/** The names of `features=` without their minus: pointer and length of each. */
const leftOut: usize = memory.data(512);
let leftOutNames: u32 = 0;
/** Where the values of ip, gw and dstip stand, for errors that show only once all are known. */
const seenAt: usize = memory.data(2048);
/** A word a NIC: a bit for each key that was given. */
const seen: usize = memory.data(32);

// ---- results -----------------------------------------------------------------------------------

export function nic(index: u32): NicConfig {
  return changetype<NicConfig>(nics + min(index, NICS_MAX - 1) * offsetof<NicConfig>());
}

/**
 * Whether what the words say of NICs fits the `count` that there are. False after an `error` event;
 * the caller then ends the run.
 */
export function checkNics(count: u32): bool {
  for (let i = count; i < NICS_MAX; i++) {
    if (wasSeen(Key.Ip, i)) return rejectSeen(Key.Ip, i, NO_SUCH_NIC);
    if (wasSeen(Key.Gw, i)) return rejectSeen(Key.Gw, i, NO_SUCH_NIC);
    if (wasSeen(Key.Ip6, i)) return rejectSeen(Key.Ip6, i, NO_SUCH_NIC);
    if (wasSeen(Key.Gw6, i)) return rejectSeen(Key.Gw6, i, NO_SUCH_NIC);
  }
  if (!asksArp()) return true;
  for (let i: u32 = 0; i < count; i++) {
    if (nic(i).addressing == Addressing.None) return rejectNoAddress();
  }
  return true;
}

/** Whether a source has to ask for its destination's MAC, on each of its NICs. */
function asksArp(): bool {
  return app == App.Source && hasDstIp && !isDst6 && !hasDst;
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

/** Emits the `error` event for the `index`th name, which the driver's table does not have. */
export function rejectLeftOut(index: u32): void {
  const entry = leftOut + (index << 3);
  const start = load<u32>(entry) - 1;
  reject("features", 0, start, load<u32>(entry, 4) + 1, "is not a feature of this driver");
}

// ---- parsing -----------------------------------------------------------------------------------

/** The `error` event: key: "value" and what is wrong with it. */
function reject(key: string, nic: u32, value: usize, length: u32, wrong: string): void {
  events.begin("error");
  events.beginText("message");
  events.textPart(key);
  if (nic > 0) events.textPartNum(nic);
  events.textPart(': "');
  events.textPartBytes(value, length);
  events.textPart('" ');
  events.textPart(wrong);
  events.endText();
  events.end();
}

function rejectWord(word: usize, length: u32, wrong: string): bool {
  events.begin("error");
  events.beginText("message");
  events.textPart('"');
  events.textPartBytes(word, length);
  events.textPart('" ');
  events.textPart(wrong);
  events.endText();
  events.end();
  return false;
}

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

/** Takes one value in. Answers null, or what is wrong with it. */
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

function apply(key: Key, nicIndex: u32, value: usize, length: u32): string | null {
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

function parseWord(word: usize, length: u32): bool {
  const equals = find(word, length, 0x3d);
  if (equals == length) return rejectWord(word, length, "is not key=value");

  // ip1, gw1, ip61 and so on belong to the NIC of that number; NIC 0 is written without one.
  let nicIndex: u32 = 0;
  let key = parseName(word, equals, KEYS);
  if (key < 0 && (equals == 3 || equals == 4)) {
    nicIndex = <u32>load<u8>(word + equals - 1) - 0x30;
    key = nicIndex - 1 < NICS_MAX - 1 ? parseName(word, equals - 1, KEYS) : -1;
    if (key != Key.Ip && key != Key.Gw && key != Key.Ip6 && key != Key.Gw6) key = -1;
  }
  if (key < 0) return rejectWord(word, equals, "is not a key that vireo knows");
  if (wasSeen(key, nicIndex)) return rejectWord(word, length, "repeats a key");
  store<u32>(seen + (nicIndex << 2), load<u32>(seen + (nicIndex << 2)) | (1 << key));

  const value = word + equals + 1;
  const at = seenAt + ((<u32>key + (nicIndex << 5)) << 3);
  store<u32>(at, <u32>value);
  store<u32>(at, length - equals - 1, 4);
  const wrong = apply(key, nicIndex, value, length - equals - 1);
  if (wrong == null) return true;
  reject(KEYS[key], nicIndex, value, length - equals - 1, wrong);
  return false;
}

// ---- what depends on several words -------------------------------------------------------------

function wasSeen(key: Key, nicIndex: u32): bool {
  return ((load<u32>(seen + (nicIndex << 2)) >> key) & 1) != 0;
}

function rejectSeen(key: Key, nicIndex: u32, wrong: string): bool {
  const at = seenAt + ((<u32>key + (nicIndex << 5)) << 3);
  reject(KEYS[key], nicIndex, load<u32>(at), load<u32>(at, 4), wrong);
  return false;
}

/** A gateway must be a neighbour, and an address must be asked with an address. */
function checkTogether(): bool {
  for (let i: u32 = 0; i < NICS_MAX; i++) {
    const c = nic(i);
    // A forwarder has no address, whatever ip= says; that is a warning.
    if (app == App.Forward) c.addressing = Addressing.None;
    if (app == App.Forward) c.addressing6 = Addressing6.Off;
    if (app == App.Forward) continue;
    // Without ip=, echo needs an address to answer for; the others work without one.
    if (!wasSeen(Key.Ip, i) && app == App.Echo) c.addressing = Addressing.Dhcp;
    if (!wasSeen(Key.Ip6, i) && (app == App.Echo || (i == 0 && asksNeighbour6()))) {
      c.addressing6 = Addressing6.Auto;
    }
    const wrong6 = config6.checkGateway(c);
    if (wrong6 != null) return rejectSeen(Key.Gw6, i, wrong6);
    if (c.gateway == 0) continue;
    if (c.addressing == Addressing.None) return rejectSeen(Key.Gw, i, "needs an address in ip=");
    if (c.addressing != Addressing.Static) continue;
    if (((c.gateway ^ c.ip) & address.maskOf(c.prefix)) != 0 || c.gateway == c.ip) {
      return rejectSeen(Key.Gw, i, "is not another host in the network of ip=");
    }
  }
  return checkSource();
}

/** Whether the source has to find the MAC of an IPv6 next hop. */
function asksNeighbour6(): bool {
  return app == App.Source && isDst6 && !hasDst && !config6.isGroup(dstIp6);
}

/** What the source sends: its size and where it goes. */
function checkSource(): bool {
  const isGso6 = gso == Gso.Tcp6 || gso == Gso.Udp6;
  if (gso != Gso.None && hasDstIp && isDst6 != isGso6) {
    return rejectSeen(Key.DstIp, 0, "is not of the kind that gso= says");
  }
  isDst6 = isDst6 || isGso6;
  if (gso != Gso.None && !wasSeen(Key.Size, 0)) size = GSO_SIZE;
  if (gso == Gso.None && size > SIZE_MAX) {
    return rejectSeen(Key.Size, 0, "is more than 9014 bytes and there is no gso=");
  }
  if (isDst6) {
    const least = config6.sizeMin(gso == Gso.Tcp6);
    if (!wasSeen(Key.Size, 0)) size = max(size, least);
    if (!wasSeen(Key.Mss, 0) && gso == Gso.Tcp6) mss = config6.TCP_MSS;
    if (size < least) return rejectSeen(Key.Size, 0, "is less than the headers of IPv6 take");
    if (!hasDst) config6.groupMac(dst, dstIp6);
    if (!asksNeighbour6() || nic(0).addressing6 != Addressing6.Off) return true;
    return rejectSeen(Key.DstIp, 0, "cannot be asked for its MAC with ip6=off: give dst=");
  }
  return !asksArp() || nic(0).addressing != Addressing.None || rejectNoAddress();
}

function rejectNoAddress(): bool {
  return rejectSeen(Key.DstIp, 0, "needs an address in ip= to ask its MAC from, or dst=");
}

/** Warns of keys that the app has no use for. */
export function warnUnused(): void {
  for (let key: Key = Key.Size; key <= Key.Mac; key++) {
    if (wasSeen(key, 0) && !isUsed(key)) warnOf(key, 0);
  }
  if (app != App.Forward) return;
  for (let i: u32 = 0; i < NICS_MAX; i++) {
    if (wasSeen(Key.Ip, i)) warnOf(Key.Ip, i);
    if (wasSeen(Key.Gw, i)) warnOf(Key.Gw, i);
    if (wasSeen(Key.Ip6, i)) warnOf(Key.Ip6, i);
    if (wasSeen(Key.Gw6, i)) warnOf(Key.Gw6, i);
  }
}

/** Of those that not every app has a use for. */
function isUsed(key: Key): bool {
  if (key == Key.Mac) return app == App.Forward;
  return app == App.Source || (app == App.Sink && key == Key.Duration);
}

function warnOf(key: Key, nicIndex: u32): void {
  events.begin("warning");
  events.beginText("message");
  events.textPart(KEYS[key]);
  if (nicIndex > 0) events.textPartNum(nicIndex);
  events.textPart(" has no effect with app=");
  events.textPart(appName());
  events.endText();
  events.end();
}

/** Reads the command line. False after an `error` event; the caller then ends the run. */
export function parse(): bool {
  const length = machine.commandLine(line, LINE_BYTES);
  if (length > LINE_BYTES) {
    events.error("the command line is longer than 2048 bytes");
    return false;
  }
  let start: u32 = 0;
  for (let i: u32 = 0; i <= length; i++) {
    const c: u32 = i < length ? load<u8>(line + i) : 0x20;
    if (c != 0x20 && c != 0x09 && c != 0x0a && c != 0x0d && c != 0) continue;
    if (i > start && !parseWord(line + start, i - start)) return false;
    start = i + 1;
  }
  return checkTogether();
}
