// Where an announcement and the acknowledgement of another one, or bring-up, cross. virtio 1.4
// §5.1.9.5.4

import { suite } from "qemu-test-harness";
import { makeGuest, startGuest } from "../model/guest";
import { MQ_FEATURES } from "../model/net/net-device";
import type { FeatureName } from "../model/virtio/features";

const test = suite("control races", { timeoutMs: 30_000 });

const ANNOUNCING: readonly FeatureName[] = [...MQ_FEATURES, "guest_announce"];
const ACK_AFTER = { us: 5_000_000 };

test("an announcement asked for while the last acknowledgement is answered is not lost", (t) => {
  const guest = startGuest(t, { net: { features: ANNOUNCING } });
  guest.settle();
  guest.nic.control.tamper = (_, usual) => {
    guest.nic.control.tamper = undefined;
    guest.nic.announce();
    return usual;
  };
  guest.nic.announce();
  guest.until(() => guest.nic.state.announcesAcknowledged === 2, "it acknowledges both", ACK_AFTER);
});

test("an announcement asked for before DRIVER_OK is made and acknowledged", (t) => {
  const guest = makeGuest(t, { net: { features: ANNOUNCING } });
  guest.nic.config.writeUInt16LE(3, 6);
  guest.start();
  guest.until(() => guest.nic.state.announcesAcknowledged === 1, "it acknowledges", ACK_AFTER);
});

test.run();
