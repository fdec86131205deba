import * as machine from "./machine";
import * as acpi from "./acpi";
import * as config from "./config";
import * as cpus from "./cpus";
import * as events from "./events";
import * as pciConfig from "../drivers/pci/config-space";
import { setBarWindow } from "../drivers/pci/bar-window";
import { NO_FUNCTION, nextFunction } from "../drivers/pci/bus";
import { PciFunction } from "../drivers/pci/function";
import { NetDevice, isNetDevice } from "../drivers/net/device";
import { Burst } from "../drivers/net/packet";
export { abort } from "./check";
let dev: NetDevice | null = null;
export function boot(): void {
  if (machine.cpuIndex() != 0) { cpus.join(); return; }
  if (!config.parse()) { events.giveUp("bad command line"); return; }
  acpi.read();
  if (!cpus.divideMemory()) { events.giveUp("memory"); return; }
  cpus.printBoot(cpus.count());
  cpus.startOthers(0);
  pciConfig.useEcam(acpi.ecamBase);
  setBarWindow(acpi.ecamBase, machine.memoryEnd());
  let bdf = nextFunction(NO_FUNCTION);
  while (bdf != NO_FUNCTION) {
    const f = new PciFunction(bdf);
    if (isNetDevice(f)) {
      const d = new NetDevice(0, f, 0, false, acpi.apicIds[0]);
      const p = d.bringUp();
      if (p != null) { events.fatal(p); return; }
      d.printLink();
      dev = d;
    }
    bdf = nextFunction(bdf);
  }
  if (dev == null) events.fatal("no virtio-net device");
}
let n: u32 = 0;
let b: Burst = Burst.create();
export function step(): u64 {
  const d = dev; if (d == null) return u64.MAX_VALUE;
  const p = d.pair; if (p == null) return u64.MAX_VALUE;
  p.disarm();
  b.clear();
  p.take(b, 64);
  n += b.count;
  for (let i: u32 = 0; i < b.count; i++) p.pool.release(b.get(i));
  p.refill();
  if (b.count > 0) { events.begin("rx"); events.num("n", n); events.num("int", p.rxInterrupts()); events.end(); return 0;}
  if (p.arm()) return 0;
  return machine.tsc() + 1000000000;
}
