/**
 * The commands for the device, and the features that each needs: what `help` prints. Called by
 * main.ts; control-commands.ts checks the same features when a command comes.
 */
import * as events from "./events";
import * as features from "../drivers/virtio/features";

const USAGES: StaticArray<string> = [
  "rx promiscuous|allmulti on|off",
  "rx alluni|nomulti|nouni|nobcast on|off",
  "mac set <address>",
  "mac table <unicast,...>|- <multicast,...>|-",
  "vlan add|del <0-4094>",
  "queues <pairs>",
  "announce",
  "offloads +<name>|-<name>,...",
  "rss on|off",
  "rss key <hex>",
  "rss table <pair,...>",
  "rss types <name,...>|-",
  "hash key <hex>",
  "hash types <name,...>|-",
  "coal rx|tx <usecs> <packets>",
  "coal vq <queue> [<usecs> <packets>]",
  "devstats",
  "reset",
  "reset <queue>",
];

/** For each of them the features, of which all must be there. */
const NEEDS: StaticArray<u64> = [
  1 << features.CTRL_RX,
  1 << features.CTRL_RX_EXTRA,
  (1 << features.CTRL_RX) | (1 << features.CTRL_MAC_ADDR),
  1 << features.CTRL_RX,
  1 << features.CTRL_VLAN,
  1 << features.MQ,
  0,
  1 << features.CTRL_GUEST_OFFLOADS,
  (<u64>1) << features.RSS,
  (<u64>1) << features.RSS,
  (<u64>1) << features.RSS,
  (<u64>1) << features.RSS,
  (<u64>1) << features.HASH_REPORT,
  (<u64>1) << features.HASH_REPORT,
  (<u64>1) << features.NOTF_COAL,
  (<u64>1) << features.VQ_NOTF_COAL,
  (<u64>1) << features.DEVICE_STATS,
  0,
  (<u64>1) << features.RING_RESET,
];

/** The commands that can be given now. */
export function printAvailable(accepted: u64): void {
  for (let i = 0; i < USAGES.length; i++) if (isMet(i, accepted)) events.item(USAGES[i]);
}

/** Those that cannot, with the features that are missing. */
export function printUnavailable(accepted: u64): void {
  events.beginArray("unavailable");
  for (let i = 0; i < USAGES.length; i++) {
    if (isMet(i, accepted)) continue;
    events.beginItem();
    events.text("command", USAGES[i]);
    events.beginArray("needs");
    const missing = NEEDS[i] & ~accepted;
    for (let bit: u32 = 0; bit < 64; bit++) {
      const name = features.featureName(bit);
      if (features.has(missing, bit) && name != null) events.item(name);
    }
    events.endArray();
    events.endItem();
  }
  events.endArray();
}

function isMet(index: i32, accepted: u64): bool {
  return (NEEDS[index] & ~accepted) == 0;
}
