// The control queue, the device's side: takes a command, has it carried out, and writes the answer;
// or, as a test wants it, answers late, never, with an error, or with rubbish. Owned by NetDevice.
// virtio 1.4 §5.1.9.5

import { DriverError } from "../errors";
import { ticksOfUs } from "../machine/clock";
import type { Chain } from "../virtio/chain";
import { type Answer, type Command, carryOut, ERR, OK } from "./control-commands";
import type { Live } from "./live";
import type { NetDevice } from "./net-device";

/** What becomes of a command: its answer, what the used element says if not the truth, or nothing. */
export interface Reply extends Answer {
  readonly usedId?: number;
  readonly usedBytes?: number;
}

export class ControlQueue {
  /** Every command that came, since the device was made. */
  readonly commands: Command[] = [];
  /** Changes an answer after the command was carried out; "never" gives none. */
  tamper: ((command: Command, usual: Answer) => Reply | "never") | undefined;
  /** Answers in place of the device, whose state then stays as it is. */
  responder: ((command: Command) => Reply | "never") | undefined;
  /** Refuses a command before it is carried out. */
  refuses: ((command: Command) => boolean) | undefined;
  /** How long an answer takes. */
  delayUs = 0;
  private waiting: { chain: Chain; readonly command: Command; readonly due: number } | undefined;

  constructor(private readonly device: NetDevice) {}

  stop(): void {
    this.waiting = undefined;
  }

  /** When there is an answer to give. */
  get deadline(): number {
    return this.waiting?.due ?? Infinity;
  }

  /** Takes the next command, or answers the last one. True if it did. */
  turn(live: Live): boolean {
    const { queue, ring } = live;
    if (this.waiting === undefined) {
      if (!queue.kicked && !this.device.options.polls) return false;
      if (ring.available() === 0) {
        queue.kicked = false;
        ring.enableNotifications();
        if (ring.available() === 0) return false;
      }
      const chain = ring.take();
      const due = this.device.machine.clock.now + ticksOfUs(this.delayUs);
      this.waiting = { chain, command: this.parse(chain), due };
      this.commands.push(this.waiting.command);
    }
    if (this.device.machine.clock.now < this.waiting.due) return false;
    this.answer(live, this.waiting.chain, this.waiting.command);
    this.waiting = undefined;
    return true;
  }

  private parse(chain: Chain): Command {
    const content = chain.read();
    if (content.length < 2 || chain.writableBytes < 1) {
      throw new DriverError(
        `§5.1.9.5: a command of ${content.length} bytes with ${chain.writableBytes} for its answer`,
      );
    }
    const answerBytes = chain.writableBytes - 1;
    return {
      class: content.readUInt8(0),
      command: content.readUInt8(1),
      data: content.subarray(2),
      answerBytes,
    };
  }

  private answer(live: Live, chain: Chain, command: Command): void {
    const { ring } = live;
    const reply = this.responder?.(command) ?? this.ownReply(command);
    if (reply === "never") return;
    const written = chain.write(Buffer.concat([Buffer.of(reply.ack), reply.data ?? Buffer.of()]));
    if (reply.usedId === undefined) ring.give(chain, reply.usedBytes ?? written);
    else ring.writeUsed(reply.usedId, reply.usedBytes ?? written);
    this.device.publish(live);
  }

  private ownReply(command: Command): Reply | "never" {
    const refused = this.refuses?.(command) === true;
    const usual = refused ? { ack: ERR } : carryOut(this.device, command);
    if (usual.ack === OK) this.device.state.done++;
    return this.tamper?.(command, usual) ?? usual;
  }
}
