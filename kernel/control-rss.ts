/**
 * The words behind `rss` and `hash`: a key, a table or types, checked against what the device can do. Called
 * by control-commands.ts. virtio 1.4 §5.1.9.5.7
 */
import * as words from "./words";
import { number, parseHex, parseName, parseNumber } from "./text";
import { HashParameters } from "../drivers/net/hash-report";
import { NetConfig } from "../drivers/net/net-config";
import { RSS_TABLE_MAX, Rss } from "../drivers/net/rss";

const HASH_TYPES: StaticArray<string> = [
  "ipv4",
  "tcpv4",
  "udpv4",
  "ipv6",
  "tcpv6",
  "udpv6",
  "ip_ex",
  "tcp_ex",
  "udp_ex",
];

const NO_KEY: string = "is no key in hex as long as the device takes";

/**
 * Changes the one parameter that the line names, with `pairs` in use. False if it is wrong; then an
 * event said why.
 */
export function parse(rss: Rss, config: NetConfig, pairs: u32): bool {
  if (words.is(1, "key")) {
    if (parseKey(rss, config.keyBytesMax)) return true;
    return words.wrong(2, NO_KEY);
  }
  if (words.is(1, "table")) return parseTable(rss, config.tableMax, pairs);
  if (words.is(1, "types")) return parseTypes(rss, config.hashTypes);
  return words.wrong(1, "is not on, off, key, table or types");
}

/** The same for the hashes that are reported without RSS. */
export function parseHash(hash: HashParameters, config: NetConfig): bool {
  if (words.is(1, "key")) {
    if (parseKey(hash, config.keyBytesMax)) return true;
    return words.wrong(2, NO_KEY);
  }
  if (words.is(1, "types")) return parseTypes(hash, config.hashTypes);
  return words.wrong(1, "is not key or types");
}

function parseKey(rss: HashParameters, bytesMax: u32): bool {
  const bytes = words.length(2) >> 1;
  if (bytes == 0 || bytes > bytesMax) return false;
  rss.keyBytes = bytes;
  return parseHex(words.word(2), words.length(2), rss.key);
}

/** virtio 1.4 §5.1.9.5.7.2: a power of two of entries, each a receive queue that is in use. */
function parseTable(rss: Rss, entriesMax: u32, pairs: u32): bool {
  const most = min(entriesMax, RSS_TABLE_MAX);
  let entries: u32 = 0;
  words.openList(2);
  while (words.nextItem()) {
    if (entries == most) return words.wrongItem(words.TOO_MANY);
    if (!parseNumber(words.item, words.itemBytes, 0, pairs - 1)) {
      return words.wrongItem("is not a pair in use");
    }
    rss.setEntry(entries++, <u32>number);
  }
  rss.tableLength = entries;
  return popcnt(entries) == 1 || words.wrong(2, "has not a power of two of entries");
}

/** virtio 1.4 §5.1.9.5.7.2: only types that the device has. */
function parseTypes(rss: HashParameters, supported: u32): bool {
  rss.types = 0;
  if (words.is(2, "-")) return true;
  words.openList(2);
  while (words.nextItem()) {
    const type = parseName(words.item, words.itemBytes, HASH_TYPES);
    if (type < 0 || !((supported >> type) & 1)) {
      return words.wrongItem("is no hash type of this device");
    }
    rss.types |= 1 << type;
  }
  return rss.types != 0 || words.wrong(2, "is no list of hash types");
}
