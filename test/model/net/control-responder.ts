// A control queue that answers as a test says, whatever the command would do to the device. For tests
// of what the driver sends, and of what it makes of answers. virtio 1.4 §5.1.9.5

import type { NetDevice } from "./net-device";

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
  nic.control.responder = ({ class: group, command, data, answerBytes }) => {
    const answer = handler({ id: `${group}.${command}`, data, room: answerBytes });
    if (answer === undefined) return "never";
    return { ack: answer.ack, data: Buffer.from(answer.result ?? []).subarray(0, answerBytes) };
  };
}
