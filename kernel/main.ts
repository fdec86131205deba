import * as machine from "./machine";
import { allocate } from "./memory/arena";
export { abort } from "./check";
const text: usize = memory.data(32);
class Foo { a: u32 = 3; }
export function boot(): void {
  const f = new Foo();
  store<u8>(text, 123); store<u8>(text+1, 125); store<u8>(text+2, 10);
  for (let i: u32 = 0; i < machine.tscKhz()/1000000 + f.a; i++) machine.consoleWrite(text, 3);
  allocate(16);
  if (machine.cpuIndex() == 0) { store<u8>(100000000, 1); machine.exit(1); }
}
export function step(): u64 { return u64.MAX_VALUE; }
