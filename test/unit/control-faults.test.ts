// Every console command for the device, met by a device that refuses, never answers, or wants its
// reset in the middle: one event each, in bounded time, nothing of it kept, nothing leaked, and
// traffic goes on. virtio 1.4 §5.1.9.5, §2.1.2

import { assert, suite, type TestContext } from "qemu-test-harness";
import { type Guest, makeGuest } from "../model/guest";
import { MQ_FEATURES } from "../model/net/net-device";
import type { FeatureName } from "../model/virtio/features";
import { resources, start, traffic } from "./lanes";

const test = suite("control faults", { timeoutMs: 30_000 });

const FEATURES: readonly FeatureName[] = [
  ...MQ_FEATURES,
  ...(["csum", "guest_csum", "guest_tso4", "guest_tso6", "ctrl_guest_offloads"] as const),
  ...(["ctrl_rx", "ctrl_rx_extra", "ctrl_vlan", "ctrl_mac_addr", "guest_announce"] as const),
  ...(["rss", "hash_report", "notf_coal", "vq_notf_coal", "device_stats"] as const),
];

const KEY = "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa";

/** A line for each command of the control queue that the console has. */
const LINES = [
  "rx promiscuous on",
  "rx allmulti on",
  "rx alluni on",
  "rx nomulti on",
  "rx nouni on",
  "rx nobcast on",
  "mac set 02:00:00:00:00:77",
  "mac table 02:00:00:00:00:78 01:00:5e:00:00:05",
  "vlan add 9",
  "vlan del 7",
  "queues 1",
  "offloads -guest_tso4",
  "rss off",
  `rss key ${KEY.replaceAll("6d", "6e")}`,
  "rss table 0,1,1,0",
  "rss types udpv4",
  "coal rx 30 40",
  "coal tx 30 40",
  "coal vq 1 50 60",
  "coal vq 1",
  "devstats",
];

/** How a command may end that fails, and what the device does instead of its work, or after it. */
interface Fault {
  readonly name: string;
  readonly result: string;
  readonly resets: number;
  readonly errors: readonly string[];
  arm(guest: Guest): void;
}

function disarm({ nic: { control } }: Guest): void {
  control.refuses = undefined;
  control.responder = undefined;
  control.tamper = undefined;
}

const NO_ANSWER = ["the device does not answer a command"];
const RESET_WANTED = ["the device needs a reset"];

const FAULTS: readonly Fault[] = [
  {
    name: "refused",
    result: "refused",
    resets: 0,
    errors: [],
    arm: ({ nic }) => {
      nic.control.refuses = () => true;
    },
  },
  {
    name: "never answered",
    result: "failed",
    resets: 1,
    errors: NO_ANSWER,
    arm: (guest) => {
      guest.nic.control.responder = () => {
        disarm(guest);
        return "never";
      };
    },
  },
  {
    name: "DEVICE_NEEDS_RESET before it is carried out",
    result: "failed",
    resets: 1,
    errors: RESET_WANTED,
    arm: (guest) => {
      guest.nic.control.responder = () => {
        disarm(guest);
        guest.nic.pci.needReset();
        return "never";
      };
    },
  },
  {
    name: "DEVICE_NEEDS_RESET when it is carried out, before the answer",
    result: "failed",
    resets: 1,
    errors: RESET_WANTED,
    arm: (guest) => {
      guest.nic.control.tamper = () => {
        disarm(guest);
        guest.nic.pci.needReset();
        return "never";
      };
    },
  },
];

/** What the device has been told, but for what counts commands. */
function told(guest: Guest): unknown {
  const { announcesAcknowledged, commands, done, vlans, coalescing, ...rest } = guest.nic.state;
  return { ...rest, vlans: [...vlans].sort(), coalescing: [...coalescing].sort() };
}

/** Two lanes, something of everything agreed to, and at rest. */
function settled(t: TestContext): Guest {
  const net = { features: FEATURES, controlSize: 64 };
  const guest = start(t, { cpus: 2, pairs: 2, net });
  for (const line of ["rss on", "vlan add 7", "coal tx 1 2", "coal vq 0 3 4", "mac table - -"]) {
    assert.is(guest.command(line).result, "ok", line);
  }
  // The second announcement of its address comes by itself.
  guest.machine.run(() => guest.peer.announcements() === 2, { us: 5e6 });
  guest.settle();
  return guest;
}

function counts(guest: Guest) {
  const { queues } = guest.stats();
  return { resets: guest.nic.pci.common.resets, own: resources(queues) };
}

for (const fault of FAULTS) {
  test(`${fault.name}: each of ${LINES.length} commands`, (t) => {
    for (const line of LINES) {
      const guest = settled(t);
      const { console } = guest.machine;
      traffic(guest, 2, 2);
      const before = { told: told(guest), ...counts(guest) };
      const ended = console.all("control").length;
      fault.arm(guest);
      assert.is(guest.command(line).result, fault.result, line);
      disarm(guest);
      guest.settle();
      const after = { told: told(guest), ...counts(guest) };
      assert.is(console.all("control").length, ended + 1, line);
      assert.equal(after, { ...before, resets: before.resets + fault.resets }, line);
      assert.equal(guest.errors(), fault.errors, line);
      traffic(guest, 2, 2);
      guest.settle();
      const { told: _, ...left } = after;
      assert.equal(counts(guest), left, line);
      assert.is(guest.command(line).result, "ok", `${line}, again`);
    }
  });
}

test("§5.1.9.5: whoever does not answer that its address was made up is given up on", (t) => {
  const features = ["version_1", "ctrl_vq", "ctrl_rx", "ctrl_mac_addr"] as const;
  const guest = makeGuest(t, { net: { features } });
  guest.nic.control.tamper = () => "never";
  guest.machine.boot();
  guest.until(() => guest.machine.ended !== undefined, "the run ends", { us: 10e6 });
  assert.equal(guest.errors(), NO_ANSWER);
  assert.is(guest.exitStatus(), 35);
});

test.run();
