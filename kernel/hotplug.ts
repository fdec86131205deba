/**
 * NICs that are plugged out and in again while the machine runs. CPU 0 looks once a second: at the
 * slots, whether somebody asks for a NIC, and at each NIC, whether it is there. nics.ts calls
 * `look` when it is due.
 *
 *   asked for -> NIC removed -> slot let go -> gone      orderly
 *   gone -> NIC removed                                  surprise
 *   there again -> NIC brought up with its settings
 *
 * All memory was given out at boot, so only what was there then can come back, in its place.
 */
import * as acpiSlots from "../drivers/pci/acpi-slots";
import * as config from "./config";
import * as events from "./events";
import * as nics from "./nics";
import { Departure, Nic } from "./nic";
import { NEVER, deadlineIn } from "./time";
import { isNetDevice } from "../drivers/net/device";
import { NO_FUNCTION, bridgeTo } from "../drivers/pci/bus";
import { PciFunction } from "../drivers/pci/function";
import { PortSlot } from "../drivers/pci/port-slot";

const LOOK_US: u64 = 1000000;

/** When to look next. */
export let deadline: u64 = NEVER;

/** The slots of root ports, by NIC. */
const slots = new StaticArray<PortSlot | null>(config.NICS_MAX);
/** What is there now was found unusable; it is not tried again before it is gone. */
const refused = new StaticArray<bool>(config.NICS_MAX);
let acpiHasBus0: bool = false;

/** At boot, when all NICs run. */
export function prepare(): void {
  acpiHasBus0 = acpiSlots.prepare();
  for (let i: u32 = 0; i < nics.count; i++) {
    const bridge = bridgeTo(nics.get(i).device.transport.pci.bdf);
    if (bridge != NO_FUNCTION) unchecked((slots[i] = new PortSlot(new PciFunction(bridge))));
  }
  deadline = deadlineIn(LOOK_US);
}

/** Looks at everything; answers when to do it again. */
export function look(): u64 {
  for (let bus: u32 = 0; bus < acpiSlots.BUSES; bus++) {
    const asked = acpiSlots.asked(bus);
    if (asked != 0) letGo(bus, asked);
  }
  for (let i: u32 = 0; i < nics.count; i++) lookAt(i);
  deadline = deadlineIn(LOOK_US);
  return deadline;
}

function lookAt(index: u32): void {
  const nic = nics.get(index);
  const slot = unchecked(slots[index]);
  const asked = slot != null && slot.wasAsked();
  if (nic.present) {
    if (!nic.device.transport.pci.isThere()) {
      nic.remove(Departure.Surprise);
    } else if (asked && slot != null) {
      nic.remove(Departure.Orderly);
      slot.powerOff();
    }
    return;
  }
  if (slot != null) slot.powerOn();
  const pci = nic.device.transport.pci;
  if (!pci.identify()) unchecked((refused[index] = false));
  else if (!unchecked(refused[index])) takeIn(nic, index);
}

/** ACPI asks for slots: the NICs in them are removed, and the slots may be emptied. */
function letGo(bus: u32, asked: u32): void {
  // Which bridge has which of ACPI's bus numbers stands in bytecode that we do not read: a NIC
  // behind one is let go first, and then found to be gone.
  if (acpiHasBus0 && bus == 0) {
    for (let i: u32 = 0; i < nics.count; i++) {
      const nic = nics.get(i);
      const bdf = nic.device.transport.pci.bdf;
      const isAsked = bdf >> 8 == 0 && ((asked >> (bdf >> 3)) & 1) != 0;
      if (nic.present && isAsked) nic.remove(Departure.Orderly);
    }
  }
  acpiSlots.eject(bus, asked);
}

/** Something is where a NIC was: the same again, or another one of its kind. */
function takeIn(nic: Nic, index: u32): void {
  let problem: string | null = "what was plugged in is not a virtio-net device";
  if (isNetDevice(nic.device.transport.pci)) problem = nic.comeBack();
  if (problem == null) return;
  unchecked((refused[index] = true));
  events.begin("error");
  events.num("nic", nic.device.link.index);
  events.text("message", problem);
  events.end();
}
