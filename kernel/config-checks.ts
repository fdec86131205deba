/**
 * What the words of the command line must be together, and what has no effect. Called by main.ts,
 * once when all are read and once when the NICs are known.
 */
import * as config6 from "./config6";
import * as config from "./config";
import { Addressing, Addressing6, App, Gso, Key, nic, NICS_MAX } from "./config";
import { rejectSeen, wasSeen } from "./command-line";
import * as events from "./events";
import * as address from "./net/address";

const NO_SUCH_NIC: string = "is for a NIC that is not there";

/**
 * Whether the words agree: a gateway must be a neighbour, and an address must be asked with an
 * address. False after an `error` event.
 */
export function checkWords(): bool {
  for (let i: u32 = 0; i < NICS_MAX; i++) {
    const c = nic(i);
    // A forwarder has no address, whatever ip= says; that is a warning.
    if (config.app == App.Forward) c.addressing = Addressing.None;
    if (config.app == App.Forward) c.addressing6 = Addressing6.Off;
    if (config.app == App.Forward) continue;
    // Without ip=, echo needs an address to answer for; the others work without one.
    if (!wasSeen(Key.Ip, i) && config.app == App.Echo) c.addressing = Addressing.Dhcp;
    if (!wasSeen(Key.Ip6, i) && (config.app == App.Echo || (i == 0 && asksNeighbour6()))) {
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
  return (
    config.app == App.Source && config.isDst6 && !config.hasDst && !config6.isGroup(config.dstIp6)
  );
}

/** What the source sends: its size and where it goes. */
function checkSource(): bool {
  if (config.gso != Gso.None && config.hasDstIp && config.isDst6 != config.isGso6()) {
    return rejectSeen(Key.DstIp, 0, "is not of the kind that gso= says");
  }
  config.completeSource(wasSeen(Key.Size, 0), wasSeen(Key.Mss, 0));
  if (config.gso == Gso.None && config.size > config.SIZE_MAX) {
    return rejectSeen(Key.Size, 0, "is more than 9014 bytes and there is no gso=");
  }
  if (config.isDst6) {
    if (config.size < config6.sizeMin(config.gso == Gso.Tcp6)) {
      return rejectSeen(Key.Size, 0, "is less than the headers of IPv6 take");
    }
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
  if (config.app != App.Forward) return;
  for (let i: u32 = 0; i < NICS_MAX; i++) {
    if (wasSeen(Key.Ip, i)) warnOf(Key.Ip, i);
    if (wasSeen(Key.Gw, i)) warnOf(Key.Gw, i);
    if (wasSeen(Key.Ip6, i)) warnOf(Key.Ip6, i);
    if (wasSeen(Key.Gw6, i)) warnOf(Key.Gw6, i);
  }
}

/** Of those that not every app has a use for. */
function isUsed(key: Key): bool {
  if (key == Key.Mac) return config.app == App.Forward;
  return config.app == App.Source || (config.app == App.Sink && key == Key.Duration);
}

function warnOf(key: Key, nicIndex: u32): void {
  events.begin("warning");
  events.beginText("message");
  events.textPart(config.KEYS[key]);
  if (nicIndex > 0) events.textPartNum(nicIndex);
  events.textPart(" has no effect with app=");
  events.textPart(config.appName());
  events.endText();
  events.end();
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
  return config.app == App.Source && config.hasDstIp && !config.isDst6 && !config.hasDst;
}
