// The device's end of the control queue: every command is answered at once, in the notification,
// as a test says. Put in front of a NetDevice that has a control queue. virtio 1.4 §5.1.9.5

import { DriverError } from "../errors";
import type { NetDevice } from "./net-device";

const CONTROL_INDEX = 2;
const DESC_BYTES = 16;
const F_NEXT = 1;
const F_WRITE = 2;

export interface ControlCommand {
  /** `class.command`, as 6.1. */
  readonly id: string;
  readonly data: Buffer;
  /** Bytes that the driver left for the result, without the ack. */
  readonly room: number;
}

export interface ControlAnswer {
  readonly ack: number;
  readonly result?: Uint8Array;
}

/** Without an answer the command stays unanswered. */
export type ControlHandler = (command: ControlCommand) => ControlAnswer | undefined;

export function respondTo(nic: NetDevice, handler: ControlHandler): void {
  const others = nic.pci.onNotify;
  nic.pci.onNotify = (queue) => {
    if (queue.index !== CONTROL_INDEX) {
      others?.(queue);
      return;
    }
    const arena = nic.machine.ram.find(queue.desc, DESC_BYTES * queue.size, "control queue");
    const { view } = arena;
    const [desc, avail, used] = [queue.desc, queue.driver, queue.device].map((a) => a - arena.base);
    if (desc === undefined || avail === undefined || used === undefined) return;
    let index = view.getUint16(used + 2, true);
    const end = view.getUint16(avail + 2, true);
    for (; index !== end; index = (index + 1) & 0xffff) {
      const head = view.getUint16(avail + 4 + 2 * (index % queue.size), true);
      const out = descriptor(view, desc + DESC_BYTES * head);
      const into = descriptor(view, desc + DESC_BYTES * out.next);
      if (out.flags !== F_NEXT || into.flags !== F_WRITE || out.bytes < 2 || into.bytes < 1) {
        throw new DriverError("§5.1.9.5: a command is a part to read and then a part to write");
      }
      const start = out.address - arena.base;
      const command = Buffer.from(arena.array.slice(start, start + out.bytes));
      const id = `${command[0]}.${command[1]}`;
      const answer = handler({ id, data: command.subarray(2), room: into.bytes - 1 });
      if (answer === undefined) break;
      const result = (answer.result ?? new Uint8Array()).subarray(0, into.bytes - 1);
      arena.array.set([answer.ack, ...result], into.address - arena.base);
      view.setUint32(used + 4 + 8 * (index % queue.size), head, true);
      view.setUint32(used + 8 + 8 * (index % queue.size), 1 + result.length, true);
      view.setUint16(used + 2, (index + 1) & 0xffff, true);
    }
    view.setUint16(used + 4 + 8 * queue.size, end, true);
  };
}

function descriptor(view: DataView, at: number) {
  return {
    address: Number(view.getBigUint64(at, true)),
    bytes: view.getUint32(at + 8, true),
    flags: view.getUint16(at + 12, true),
    next: view.getUint16(at + 14, true),
  };
}
