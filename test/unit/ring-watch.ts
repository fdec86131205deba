// What tests do to a ring of the model's device and see of it: a device that overtakes, buffers that
// are in a ring twice, and what the driver has written. Used by the tests of straight rings.

import { assert } from "qemu-test-harness";
import type { Machine } from "../model/machine/machine";
import type { Chain } from "../model/virtio/chain";
import type { DeviceRing } from "../model/virtio/device-ring";
import type { Queue } from "../model/virtio/queue";

/**
 * Gives back in reverse order what a turn of the device has finished with, whenever `when` says so;
 * from now on.
 */
export function overtake(ring: DeviceRing, when: (turn: number) => boolean): void {
  const give = ring.give.bind(ring);
  const publish = ring.publish.bind(ring);
  const finished: { chain: Chain; bytes: number }[] = [];
  let turn = 0;
  ring.give = (chain, bytes) => {
    finished.push({ chain, bytes });
  };
  ring.publish = () => {
    if (when(turn++)) finished.reverse();
    for (const { chain, bytes } of finished.splice(0)) give(chain, bytes);
    publish();
  };
}

/** Keeps the third buffer of the first turn for some laps. */
export function keepBack(ring: DeviceRing, turns: number): void {
  const give = ring.give.bind(ring);
  const publish = ring.publish.bind(ring);
  const finished: { chain: Chain; bytes: number }[] = [];
  let kept: { chain: Chain; bytes: number } | undefined;
  let turn = 0;
  ring.give = (chain, bytes) => {
    finished.push({ chain, bytes });
  };
  ring.publish = () => {
    if (turn === 0) kept = finished.splice(2, 1)[0];
    if (turn === turns && kept !== undefined) finished.push(kept);
    turn++;
    for (const { chain, bytes } of finished.splice(0)) give(chain, bytes);
    publish();
  };
}

/** Watches that no two buffers that a ring's device holds are at one address. */
export function watchTwice(ring: DeviceRing): { readonly seen: number } {
  const held = new Map<Chain, number>();
  const watch = { seen: 0 };
  const take = ring.take.bind(ring);
  const give = ring.give.bind(ring);
  ring.take = () => {
    const chain = take();
    const [first] = chain.segments;
    assert.ok(first !== undefined);
    const { address } = first;
    assert.ok(![...held.values()].includes(address), `a buffer at ${address} is offered twice`);
    held.set(chain, address);
    watch.seen++;
    return chain;
  };
  ring.give = (chain, bytes) => {
    assert.ok(held.delete(chain));
    give(chain, bytes);
  };
  return watch;
}

/** The part of a ring that only the driver writes, as bytes. */
export function driverBytes(
  machine: Machine,
  { desc, driver, size }: Queue,
): { desc: Buffer; avail: Buffer } {
  const bytes = (at: number, length: number) => {
    const { array, base } = machine.ram.find(at, length, "ring");
    return Buffer.from(array.subarray(at - base, at - base + length));
  };
  return { desc: bytes(desc, 16 * size), avail: bytes(driver + 4, 2 * size) };
}
