// What the two socket backends (stream, dgram) have in common: frames in and out, counted and
// recorded, with waits.

import { Inbox } from "../deadline";
import { HarnessError } from "../errors";
import { Recording, writePcap } from "../pcap";
import type { Artifact } from "./backend";

export abstract class FramePort {
  /** Frames given to QEMU and taken from it. */
  sent = 0;
  received = 0;
  readonly recording = new Recording();
  private readonly inbox = new Inbox<Buffer>("a frame from the guest");
  private listener: ((frame: Buffer) => void) | undefined;

  abstract send(frame: Uint8Array): Promise<void>;

  /**
   * The next frame from the guest; rejects after `timeoutMs`. Not for use together with `onFrame`.
   */
  receive(timeoutMs = 5000): Promise<Buffer> {
    return this.inbox.next(timeoutMs);
  }

  /** Every frame from the guest until none has come for `quietMs`. */
  async *frames(quietMs = 1000): AsyncGenerator<Buffer, void, void> {
    for (;;) {
      const frame = await this.inbox.next(quietMs).catch(() => undefined);
      if (frame === undefined) return;
      yield frame;
    }
  }

  /** Gives every frame from now on, and those nobody has received yet, to one listener. */
  onFrame(listener: (frame: Buffer) => void): void {
    this.listener = listener;
    const waiting = this.inbox.take();
    for (const frame of waiting) listener(frame);
  }

  protected take(frame: Buffer): void {
    this.received++;
    this.recording.add(frame);
    if (this.listener === undefined) this.inbox.push(frame);
    else this.listener(frame);
  }

  protected noteSent(frame: Uint8Array): void {
    this.sent++;
    this.recording.add(frame);
  }

  protected close(): void {
    this.inbox.close(new HarnessError("the backend has been stopped"));
  }

  artifacts(): Artifact[] {
    return [{ name: "frames.pcap", content: writePcap(this.recording.frames()) }];
  }
}
