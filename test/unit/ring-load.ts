// Load for tests of the rings: numbered datagrams through the echo app, so that both directions carry
// every packet.

import { assert, type TestContext } from "qemu-test-harness";
import { type Guest, startGuest } from "../model/guest";
import type { NetOptions } from "../model/net/net-device";
import { UDP_FRAME_HEADERS } from "../model/net/peer";

/** Three times round the 16-bit indices. */
export const PACKETS = 3 * 65_536;
const NUMBER_OFFSET = UDP_FRAME_HEADERS;
const UDP_CHECKSUM = UDP_FRAME_HEADERS - 2;

/** Sends numbered datagrams in bursts and checks each echo as it comes: in order, none lost. */
export function exchange(guest: Guest, count: number, burst: number): void {
  const { nic } = guest;
  const template = guest.peer.echoRequest(Buffer.alloc(18));
  // Without a checksum the number can change from packet to packet.
  template.writeUInt16BE(0, UDP_CHECKSUM);
  let received = 0;
  let wrong = "";
  nic.sender.onTransmit = (frame) => {
    if (frame.readUInt16BE(12) !== 0x0800) return;
    const number = frame.readUInt32BE(NUMBER_OFFSET);
    if (number !== received && wrong === "") wrong = `packet ${number} comes as number ${received}`;
    if (frame.length !== template.length && wrong === "") wrong = `${frame.length} bytes`;
    received++;
  };
  for (let sent = 0; sent < count; ) {
    for (const end = Math.min(sent + burst, count); sent < end; sent++) {
      const frame = Buffer.from(template);
      frame.writeUInt32BE(sent, NUMBER_OFFSET);
      nic.receive(frame);
    }
    guest.until(() => received >= sent || wrong !== "", `packet ${sent} comes back`);
    assert.is(wrong, "");
  }
  guest.settle();
  assert.is(received, count);
}

/** What must be as it was when nothing has leaked. */
export function free(guest: Guest) {
  guest.settle();
  const queue = guest.stats().queues[0];
  return { rx: queue?.rx.free, tx: queue?.tx.free, pool: queue?.pool_free };
}

/** PACKETS each way in bursts of three rings; nothing may be lost, and nothing leak. */
export function endurance(t: TestContext, net: Partial<NetOptions> & { rxSize: number }): void {
  const guest = startGuest(t, { net });
  guest.machine.log.enabled = false;
  const before = free(guest);
  exchange(guest, PACKETS, 3 * net.rxSize + 1);
  assert.equal(free(guest), before);
  const stats = guest.stats().queues[0];
  assert.ok((stats?.rx.packets ?? 0) >= PACKETS);
  assert.equal(stats?.rx.drops, {});
  assert.equal(stats?.tx.drops, {});
}
