// Typing commands and reading what they end in. Used by the tests of the control plane.

import { assert, type ControlEvent, type Vm } from "qemu-test-harness";

/** Types a command and returns the event that it ends in. */
export async function command(vm: Vm, line: string): Promise<ControlEvent> {
  const where = (event: ControlEvent) => event.command === line;
  const answer = vm.waitFor("control", { where, fresh: true });
  vm.send(line);
  return answer;
}

export async function done(vm: Vm, ...lines: string[]): Promise<void> {
  for (const line of lines) assert.is((await command(vm, line)).result, "ok", line);
}

/** Types a command that is wrong and returns what the guest says about it. */
export async function complaint(vm: Vm, line: string): Promise<string> {
  const answer = vm.waitFor("error", { fresh: true });
  vm.send(line);
  return (await answer).message;
}
