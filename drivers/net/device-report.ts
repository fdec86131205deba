/**
 * The events about a network device: `device` and `features` when it is negotiated with for the
 * first time, `link` when it has changed. Called by device.ts and kernel/main.ts.
 */
import * as events from "../../kernel/events";
import { PciFunction } from "../pci/function";
import * as features from "../virtio/features";
import { DUPLEX_UNKNOWN, Link, SPEED_UNKNOWN } from "./link";

/** `offered`: bits 0 to 63; `high`: bits 64 to 127. */
export function printDevice(nic: u32, pci: PciFunction, offered: u64, high: u64): void {
  events.begin("device");
  events.num("nic", nic);
  events.beginText("pci");
  events.textPartHex(pci.bdf >> 8, 2);
  events.textPart(":");
  events.textPartHex((pci.bdf >> 3) & 31, 2);
  events.textPart(".");
  events.textPartNum(pci.bdf & 7);
  events.endText();
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

/** `declined` and `high`: bits 0 to 63 and 64 to 127 that were offered and not accepted. */
export function printFeatures(
  nic: u32,
  accepted: u64,
  declined: u64,
  high: u64,
  leftOut: u64,
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
    if (features.has(word, bit & 63)) printDeclined(bit, leftOut, mtuUsable);
  }
  events.endArray();
  events.end();
}

function printDeclined(bit: u32, leftOut: u64, mtuUsable: bool): void {
  const name = features.featureName(bit);
  events.beginItem();
  if (name != null) events.text("name", name);
  else events.num("bit", bit);
  const reason =
    bit == features.MTU && !mtuUsable
      ? "the device's mtu is below 68"
      : features.declineReason(bit, leftOut);
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
