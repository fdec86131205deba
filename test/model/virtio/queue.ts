// What the registers of one virtqueue hold. Owned by common-config.ts; read by the rings.

/** "No vector". virtio 1.4 §4.1.5.1.2 */
export const NO_VECTOR = 0xffff;

export class Queue {
  size: number;
  vector = NO_VECTOR;
  enabled = false;
  /** It was reset alone and may be set up anew: virtio 1.4 §2.6.1. */
  wasReset = false;
  /** Reads of queue_reset that still show 1. */
  resetReadsLeft = 0;
  desc = 0;
  driver = 0;
  device = 0;
  /** What a notification of it says with NOTIF_CONFIG_DATA. virtio 1.4 §4.1.4.3 */
  readonly notifyData: number;
  /** Notifications that came and interrupts that were sent, since the device was made. */
  kicks = 0;
  interrupts = 0;
  /** A notification came that the device has not acted on yet. */
  kicked = false;

  constructor(
    readonly index: number,
    public name: string,
    public sizeMax: number,
  ) {
    this.size = sizeMax;
    this.notifyData = 0xa500 ^ (index * 0x11);
  }

  /** What it is for can depend on the features agreed upon. virtio 1.4 §5.1.2 */
  become(name: string, sizeMax: number): void {
    this.name = name;
    this.sizeMax = sizeMax;
    this.size = sizeMax;
  }

  reset(): void {
    this.size = this.sizeMax;
    this.vector = NO_VECTOR;
    this.enabled = false;
    this.wasReset = false;
    this.resetReadsLeft = 0;
    this.desc = 0;
    this.driver = 0;
    this.device = 0;
    this.kicked = false;
  }
}
