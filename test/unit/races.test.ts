// The last packet against the wish to be told of the next one, a million times: the device acts
// between any two accesses of the driver, on what it can see of the driver's stores at that moment
// (store-buffer.ts), and never does either side sleep on work that the other one has left.
// virtio 1.4 §2.7.7.1, §2.7.13.4.1, §2.7.10.1

import { assert, suite } from "qemu-test-harness";
import { type Guest, STATIC_IP, startGuest } from "../model/guest";
import { USUAL_FEATURES } from "../model/net/net-device";
import { Random } from "../model/random";
import { StoreBuffer } from "./store-buffer";

/** How often the device acts within a step of the guest, in each of the four tests. */
const RACES = 250_000;
const SEED = 0x5eed;
/** A step from waking to sleeping takes fewer accesses. */
const GAP_MAX = 48;

const test = suite("races", { timeoutMs: 110_000 });

const FLAGS_ONLY = USUAL_FEATURES.filter((name) => name !== "event_idx");
const MODES = [
  { name: "event_idx", features: USUAL_FEATURES },
  { name: "flags", features: FLAGS_ONLY },
] as const;

/** Has the device act at accesses of the guest, a random number of them apart. */
function race(guest: Guest, act: () => boolean): { count: number; buffer: StoreBuffer } {
  const random = new Random(SEED);
  const { machine, nic } = guest;
  machine.log.enabled = false;
  const queues = [nic.live("rx").queue, nic.live("tx").queue];
  const races = { count: 0, buffer: new StoreBuffer(machine.bootCpu, queues, random) };
  let left = 1;
  let isActing = false;
  const strike = () => {
    isActing = true;
    if (races.buffer.act(act)) races.count++;
    isActing = false;
    left = 1 + random.below(GAP_MAX);
  };
  machine.onAccess = () => {
    races.buffer.access();
    if (!isActing && --left <= 0) strike();
  };
  // The last stores of a step may still be in the buffer when the CPU is about to sleep.
  const settle = () => {
    if (random.below(4) === 0) strike();
  };
  machine.attach({
    turn: () => false,
    settle,
    needsGuest: () => undefined,
    deadline: Infinity,
  });
  return races;
}

/** Runs until all sleep; the stores of a CPU that sleeps are seen. */
function rest(guest: Guest, races: { readonly buffer: StoreBuffer }): void {
  for (let steps = 0; steps < 100; steps++) {
    races.buffer.drain();
    if (!guest.machine.step() && !guest.machine.passMoment()) return;
  }
  throw new Error(`it does not come to rest; ${guest.describe()}`);
}

for (const { name, features } of MODES) {
  test(`${name}: no interrupt is lost`, (t) => {
    const commandLine = `app=idle ${STATIC_IP}`;
    const guest = startGuest(t, { commandLine, net: { features, rxSize: 16, txSize: 16 } });
    guest.settle();
    const { machine, nic } = guest;
    const frame = guest.peer.echoRequest(Buffer.alloc(18));
    const races = race(guest, () => {
      nic.receive(frame);
      return nic.turn();
    });
    while (races.count < RACES) {
      nic.receive(frame);
      rest(guest, races);
      const unread = nic.live("rx").audit.unread();
      const what = `race ${races.count}: the guest sleeps on ${unread} buffers`;
      assert.ok(unread === 0 && machine.violations.list.length === 0, what);
    }
    t.log(`${races.count} races, ${machine.bootCpu.interruptTotal} interrupts`);
  });

  test(`${name}: no doorbell is lost`, (t) => {
    const guest = startGuest(t, { net: { features, rxSize: 16, txSize: 16, batch: 2 } });
    guest.settle();
    const { machine, nic } = guest;
    const frame = guest.peer.echoRequest(Buffer.alloc(18));
    let back = 0;
    nic.sender.onTransmit = () => {
      back++;
    };
    const races = race(guest, () => nic.turn());
    let sent = 0;
    for (let round = 0; races.count < RACES; round++) {
      for (let i = 0; i <= round % 5; i++) nic.receive(frame);
      sent += 1 + (round % 5);
      rest(guest, races);
      const what = `race ${races.count}: ${sent - back} packets are in the ring of a device asleep`;
      assert.ok(back === sent && machine.violations.list.length === 0, what);
    }
    t.log(`${races.count} races, ${nic.live("tx").queue.kicks} doorbells for ${sent} packets`);
  });
}

test.run();
