/**
 * The events about a network device: `device` and `features` when it is negotiated with for the
 * first time, `link` when it has changed. Called by device.ts and kernel/main.ts.
 */
import * as events from "../../kernel/events";
import { PciFunction } from "../pci/function";
import * as features from "../virtio/features";
import { DUPLEX_UNKNOWN, Link, SPEED_UNKNOWN } from "./link";

const NOT_CARRIED: string = "the other NIC could not send such packets on";

/** `offered`: bits 0 to 63; `high`: bits 64 to 127. */
export function printDevice(nic: u32, pci: PciFunction, offered: u64, high: u64): void {
  events.begin("device");
  events.num("nic", nic);
  printPlace(pci);
  events.hex("vendor", pci.vendor, 4);
  events.hex("device", pci.device, 4);
  events.beginArray("offered");
  for (let bit: u32 = 0; bit < 128; bit++) {
    const word = bit < 64 ? offered : high;
    const name = features.featureName(bit);
    if (features.has(word, bit & 63) && name != null) events.item(name);
  }
  events.endArray();
  events.end();
}

function printPlace(pci: PciFunction): void {
  events.beginText("pci");
  events.textPartHex(pci.bdf >> 8, 2);
  events.textPart(":");
  events.textPartHex((pci.bdf >> 3) & 31, 2);
  events.textPart(".");
  events.textPartNum(pci.bdf & 7);
  events.endText();
}

/** `orderly`: the machine asked for the device, and got it. Otherwise it was gone already. */
export function printRemoved(nic: u32, pci: PciFunction, orderly: bool): void {
  events.begin("removed");
  events.num("nic", nic);
  printPlace(pci);
  events.flag("orderly", orderly);
  events.end();
}

/**
 * `declined` and `high`: bits 0 to 63 and 64 to 127 that were offered and not accepted. `withheld`:
 * bits that another NIC does not let us accept.
 */
export function printFeatures(
  nic: u32,
  accepted: u64,
  declined: u64,
  high: u64,
  leftOut: u64,
  withheld: u64,
  mtuUsable: bool,
): void {
  events.begin("features");
  events.num("nic", nic);
  events.beginArray("accepted");
  for (let bit: u32 = 0; bit < 64; bit++) {
    const name = features.featureName(bit);
    if (features.has(accepted, bit) && name != null) events.item(name);
  }
  events.endArray();
  events.beginArray("declined");
  for (let bit: u32 = 0; bit < 128; bit++) {
    const word = bit < 64 ? declined : high;
    if (features.has(word, bit & 63)) printDeclined(bit, leftOut, withheld, mtuUsable);
  }
  events.endArray();
  events.end();
}

function printDeclined(bit: u32, leftOut: u64, withheld: u64, mtuUsable: bool): void {
  const name = features.featureName(bit);
  events.beginItem();
  if (name != null) events.text("name", name);
  else events.num("bit", bit);
  let reason = features.declineReason(bit, leftOut | withheld);
  if (bit == features.MTU && !mtuUsable) reason = "the device's mtu is below 68";
  if (bit < 64 && features.has(withheld & ~leftOut, bit)) reason = NOT_CARRIED;
  events.text("reason", reason);
  events.endItem();
}

export function printLink(link: Link, accepted: u64): void {
  events.begin("link");
  events.num("nic", link.index);
  events.flag("up", link.linkUp);
  if (features.has(accepted, features.SPEED_DUPLEX)) printSpeed(link);
  events.end();
}

/** In Mbit/s. virtio 1.4 §5.1.4 */
function printSpeed(link: Link): void {
  if (link.speed == SPEED_UNKNOWN) events.text("speed", "unknown");
  else events.num("speed", link.speed);
  if (link.duplex == DUPLEX_UNKNOWN) events.text("duplex", "unknown");
  else events.text("duplex", link.duplex == 0 ? "half" : "full");
}
