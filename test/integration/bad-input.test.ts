// What the image is told wrongly, it names in an `error` event and refuses with status 35; nothing
// is silently ignored.

import { assert, suite, user } from "qemu-test-harness";
import { STATIC_ADDRESS } from "./support";

const test = suite("bad input", { timeoutMs: 30_000 });

const WRONG: readonly (readonly [string, RegExp])[] = [
  ["colour=blue", /colour/],
  ["word", /word/],
  ["ip=300.0.2.2/24", /ip|300\.0\.2\.2/],
  ["ip=192.0.2.2", /ip|192\.0\.2\.2/],
  ["ip=192.0.2.2/33", /ip|33/],
  [`${STATIC_ADDRESS} gw=nowhere`, /gw|nowhere/],
  ["app=banana", /banana|app/],
  ["queues=0", /queues/],
  ["queues=many", /queues|many/],
  ["ring=round", /ring|round/],
  ["mode=fast", /mode|fast/],
  ["log=loud", /log|loud/],
  ["features=-no_such_feature", /no_such_feature/],
  ["app=source size=10", /size/],
  ["app=source dst=12:34", /dst|12:34/],
  ["stats=often", /stats|often/],
];

for (const [append, named] of WRONG) {
  test(`'${append}' is an error that names it`, async (t) => {
    const vm = await t.vm({ append, nics: [{ backend: user() }] });
    const { error } = await vm.failure();
    assert.is(error.event, "error");
    assert.match(JSON.stringify(error), named);
  });
}

test("no network card", async (t) => {
  const vm = await t.vm({ append: "app=idle" });
  const { error } = await vm.failure();
  assert.is(error.event, "error");
  assert.match(error.message, /virtio-net/);
});

test("a card that offers only the legacy interface", async (t) => {
  const legacy = { "disable-modern": true, "disable-legacy": false };
  const nics = [{ backend: user(), options: legacy }];
  const vm = await t.vm({ append: STATIC_ADDRESS, nics });
  const { error } = await vm.failure();
  assert.is(error.event, "error");
  assert.match(error.message, /legacy|modern|virtio-net|1\.0/i);
});

test("too little memory for the vCPUs", async (t) => {
  const nics = [{ backend: user() }];
  const vm = await t.vm({ append: STATIC_ADDRESS, memoryMib: 16, cpus: 16, nics });
  const { error } = await vm.failure();
  assert.match(error.message, /memory|arena|MiB/i);
});

test.run();
