// The packer of the image: what it packs, the reference unpacks, and it is small.

import fc from "fast-check";
import { assert, suite } from "qemu-test-harness";
import { pack } from "../../tools/pack";
import { unpack } from "./unpacker";

const test = suite("pack", { timeoutMs: 60_000 });

const sizeOf = (data: Uint8Array) => {
  const { numbers, bytes } = pack(data);
  return numbers.length + bytes.length;
};

function checkRoundTrip(data: Uint8Array): void {
  assert.ok(unpack(pack(data), data.length).equals(Buffer.from(data)));
}

test("any bytes come back", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 1000 }), checkRoundTrip), { numRuns: 200 });
});

test("bytes that repeat come back", () => {
  const piece = fc.uint8Array({ minLength: 1, maxLength: 40 });
  const order = fc.array(fc.nat(), { minLength: 1, maxLength: 200 });
  const repeated = fc.tuple(fc.array(piece, { minLength: 1, maxLength: 6 }), order);
  fc.assert(
    fc.property(repeated, ([pieces, picks]) => {
      checkRoundTrip(
        Buffer.concat(picks.map((pick) => pieces[pick % pieces.length] ?? new Uint8Array())),
      );
    }),
    { numRuns: 100 },
  );
});

test("runs that are longer than one block come back", () => {
  const run = fc.tuple(fc.nat(255), fc.integer({ min: 1, max: 2500 }));
  fc.assert(
    fc.property(fc.array(run, { minLength: 1, maxLength: 4 }), (runs) => {
      checkRoundTrip(Buffer.concat(runs.map(([byte, count]) => Buffer.alloc(count, byte))));
    }),
    { numRuns: 20 },
  );
});

test("a repetition from far behind is found", () => {
  const far = Buffer.alloc(70_000);
  const words = Buffer.from("neither near nor soon, and only once more");
  words.copy(far, 1);
  const once = sizeOf(far);
  words.copy(far, far.length - words.length);
  checkRoundTrip(far);
  assert.ok(sizeOf(far) < once + 8, `${sizeOf(far)} bytes, ${once} without it`);
});

test("nothing at all, and one byte", () => {
  checkRoundTrip(Buffer.alloc(0));
  checkRoundTrip(Buffer.from([7]));
});

test("random bytes grow by less than a hundredth", () => {
  const random = fc.uint8Array({ minLength: 2000, maxLength: 2000, size: "max" });
  fc.assert(
    fc.property(random, (data) => sizeOf(data) < data.length * 1.01 + 16),
    { numRuns: 20 },
  );
});

test("the same bytes are packed the same way", () => {
  const data = Buffer.from("the same ".repeat(50));
  assert.equal(pack(data), pack(data));
});

test.run();
