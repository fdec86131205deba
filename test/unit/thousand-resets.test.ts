// A thousand resets in one run, by the console and by devices that ask for them, with traffic between
// them; afterwards nothing has leaked, and the device has been told again all that it was told.
// virtio 1.4 §2.1.2, §2.4

import { assert, suite } from "qemu-test-harness";
import type { Guest, ModelStats } from "../model/guest";
import { HASH_FEATURES } from "../model/net/net-options";
import type { FeatureName } from "../model/virtio/features";
import { resources, start, traffic } from "./lanes";

const test = suite("thousand resets", { timeoutMs: 60_000 });

const FEATURES: readonly FeatureName[] = [
  ...HASH_FEATURES,
  ...(["rss", "ctrl_rx", "ctrl_vlan", "ctrl_mac_addr", "notf_coal", "vq_notf_coal"] as const),
  "ring_reset",
];
const MAC = "52:54:00:12:34:56";
const COMMANDS = [
  "rx allmulti on",
  "mac table 52:54:00:00:00:09 01:00:5e:00:00:01",
  "vlan add 7",
  "coal rx 10 20",
  "coal tx 30 40",
  "coal vq 0 1 2",
  "coal vq 3 5 6",
  "rss types ipv4,udpv4",
  "hash types ipv4",
  "queues 3",
  `mac set ${MAC}`,
];

function done(guest: Guest, line: string): void {
  assert.is(guest.command(line).result, "ok", line);
}

test("by turns asked for and needed: nothing leaks, and all settings are back", (t) => {
  const lanes = 4;
  const guest = start(t, { cpus: lanes, pairs: lanes, net: { features: FEATURES } });
  guest.machine.log.enabled = false;
  for (const line of COMMANDS) done(guest, line);
  const told = () => {
    const { state, active } = guest.nic;
    const { mac, vlans, unicast, multicast, allMulticast, rss } = state;
    const coalescing = [0, 1, 2, 3, 4, 5].map((queue) => state.coalescingOf(queue));
    return { mac, vlans: [...vlans], unicast, multicast, allMulticast, rss, coalescing, active };
  };
  const settings = told();
  assert.is(settings.mac, MAC);
  assert.equal(settings.coalescing[3], { maxUsecs: 5, maxPackets: 6 });
  traffic(guest, 1, 6);
  guest.settle();
  const before = resources(guest.stats().queues);
  for (let i = 1; i <= 1000; i++) {
    if (i % 2 === 0) {
      done(guest, "reset");
    } else {
      guest.nic.pci.needReset();
      // It sleeps again: everybody has seen it.
      guest.settle();
    }
    assert.is(guest.nic.pci.common.resets, i + 1);
    if (i % 100 !== 0) continue;
    assert.equal(told(), settings);
    traffic(guest, 2, 6);
    guest.settle();
    assert.equal(resources(guest.stats().queues), before, `after ${i} resets`);
  }
  assert.is(guest.errors().length, 500);
  assert.is((guest.stats() as ModelStats).recoveries, 1000);
});

test("a device that went wrong a thousand times is given up on; resets asked for do not count", (t) => {
  const guest = start(t, { cpus: 1, pairs: 1 });
  guest.machine.log.enabled = false;
  for (let i = 0; i < 20; i++) guest.machine.console.type("reset");
  guest.settle();
  for (let i = 0; i < 1000; i++) {
    guest.nic.pci.needReset();
    guest.settle();
  }
  assert.is(guest.machine.ended, undefined);
  guest.nic.pci.needReset();
  guest.until(() => guest.machine.ended !== undefined, "it ends");
  assert.is(guest.errors().at(-1), "the device went wrong too often");
  assert.is(guest.exitStatus(), 35);
});

test("coalescing of single queues is back when their pairs are in use again", (t) => {
  const features: readonly FeatureName[] = [...HASH_FEATURES, "notf_coal", "vq_notf_coal"];
  const guest = start(t, { cpus: 4, pairs: 4, net: { features } });
  done(guest, "coal rx 9 9");
  done(guest, "coal vq 6 1 2");
  done(guest, "coal vq 7 3 4");
  done(guest, "queues 1");
  // With fewer pairs in use the reset does not tell of queues beyond them.
  done(guest, "reset");
  assert.equal(guest.nic.state.coalescingOf(6), { maxUsecs: 9, maxPackets: 9 });
  done(guest, "queues 4");
  assert.equal(guest.nic.state.coalescingOf(6), { maxUsecs: 1, maxPackets: 2 });
  assert.equal(guest.nic.state.coalescingOf(7), { maxUsecs: 3, maxPackets: 4 });
  traffic(guest, 2, 8);
});

test.run();
