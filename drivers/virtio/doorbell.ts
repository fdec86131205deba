/**
 * The notification register of one queue. With NOTIFICATION_DATA a notification also says where
 * the driver offers next, so that a device in hardware need not look. Used by drivers/net/'s
 * queues. virtio 1.4 §2.9, §4.1.5.2
 */
import * as machine from "../../kernel/machine";
import { Ring } from "./ring";

export class Doorbell {
  /** A window address; set when the device runs. */
  address: u32 = 0;
  /** The queue's index, or what the device wants in its place (NOTIF_CONFIG_DATA). */
  private name: u32 = 0;
  private withData: bool = false;

  /** For a device that has just been reset. `withData`: NOTIFICATION_DATA was negotiated. */
  reset(name: u32, withData: bool): void {
    this.name = name;
    this.withData = withData;
  }

  ring(ring: Ring): void {
    // virtio 1.4 §4.1.5.2.1: two bytes, or four with the position in the upper half.
    if (this.withData) machine.mmioWrite32(this.address, this.name | (ring.nextOffer() << 16));
    else machine.mmioWrite16(this.address, this.name);
  }
}
