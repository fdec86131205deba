// Several cards under QEMU: each answers on its own backend, whatever its kind and its queues.
//
// Shares the machine: nothing in it is timed.

import {
  assert,
  MACHINES,
  Peer,
  type ReadyEvent,
  stream,
  suite,
  TAP_NAME,
  tap,
  type Vm,
} from "qemu-test-harness";
import { ping } from "./ping";
import { echoLoad, GUEST_IP, STATIC_ADDRESS } from "./support";

const test = suite("several NICs", { timeoutMs: 60_000 });

async function readyOf(vm: Vm, nic: number): Promise<ReadyEvent> {
  return vm.waitFor("ready", { where: (event) => event.nic === nic, timeoutMs: 30_000 });
}

for (const machine of MACHINES) {
  test(`${machine}: three cards, each echoes 500 frames`, async (t) => {
    const backends = [stream(), stream(), stream()];
    const append = `${STATIC_ADDRESS} ip1=${GUEST_IP}/24 ip2=${GUEST_IP}/24`;
    const nics = backends.map((backend) => ({ backend }));
    const vm = await t.vm({ machine, append, memoryMib: 128, nics });
    for (const [nic, net] of backends.entries()) {
      const ready = await readyOf(vm, nic);
      const guest = { vm, net, peer: new Peer(net), ready };
      await echoLoad(guest, {
        count: 500,
        window: 64,
        frameBytes: (number) => 60 + (number % 1400),
      });
      const { accepted } = await vm.stats({ nic });
      assert.ok(accepted >= 500);
    }
    await vm.stop();
  });
}

test("one with four queues, one with one and without MSI-X: both are pinged", async (t) => {
  const [wide, narrow] = [tap({ queues: 4 }), stream()];
  const append = `${STATIC_ADDRESS} ip1=${GUEST_IP}/24`;
  const nics = [{ backend: wide }, { backend: narrow, options: { vectors: 0 } }];
  const vm = await t.vm({ append, cpus: 4, memoryMib: 128, nics });
  assert.is((await readyOf(vm, 0)).queues, 4);
  const ready = await readyOf(vm, 1);
  assert.is(ready.queues, 1);
  const arping = await wide.exec(["arping", "-c", "1", "-w", "5", "-I", TAP_NAME, GUEST_IP]);
  assert.is(arping.status, 0, arping.stdout + arping.stderr);
  await ping(wide, "-f -c 300", GUEST_IP);
  const guest = { vm, net: narrow, peer: new Peer(narrow), ready };
  await echoLoad(guest, { count: 500, window: 32, frameBytes: () => 100 });
  await vm.stop();
});

test("seven cards are an error, status 35", async (t) => {
  const nics = Array.from({ length: 7 }, () => ({ backend: stream() }));
  const vm = await t.vm({ append: STATIC_ADDRESS, memoryMib: 128, nics });
  const { error } = await vm.failure({ timeoutMs: 30_000 });
  assert.match(error.message, /more than 6 virtio-net devices/);
});

test("an address for a card that is not there is an error, status 35", async (t) => {
  const append = `${STATIC_ADDRESS} ip1=192.0.2.3/24`;
  const vm = await t.vm({ append, nics: [{ backend: stream() }] });
  const { error } = await vm.failure({ timeoutMs: 30_000 });
  assert.is(error.message, 'ip1: "192.0.2.3/24" is for a NIC that is not there');
});

test.run();
