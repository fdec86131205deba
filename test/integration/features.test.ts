// `make features`: every backend of this machine is asked, and what is declined for want of code is
// what docs/features.md says.

import { readFileSync } from "node:fs";
import { assert, suite } from "qemu-test-harness";
import { askAll } from "../../tools/features-ask";
import { formatTable, parseDeclinedList, withoutCode } from "../../tools/features-table";

const test = suite("feature table", { timeoutMs: 120_000 });

test("nothing is declined for want of code but what docs/features.md lists, and why", async (t) => {
  const columns = await askAll();
  const asked = columns.filter(({ skipped }) => skipped === undefined);
  for (const { backend, skipped } of columns)
    if (skipped !== undefined) t.log(`${backend}: ${skipped}`);
  assert.ok(asked.length >= 2, "the user and the stream network need nothing");
  for (const { backend, offered, accepted, declined } of asked) {
    assert.ok(accepted.includes("version_1"), `${backend} accepted no version_1`);
    assert.equal([...accepted, ...Object.keys(declined)].sort(), [...offered].sort());
  }
  const listed = parseDeclinedList(readFileSync("docs/features.md", "utf8"));
  const found = withoutCode(columns);
  assert.equal(
    [...found.keys()].filter((feature) => !listed.has(feature)),
    [],
    "declined for want of code, and docs/features.md does not say why",
  );
  const accepted = asked.flatMap((column) => column.accepted);
  assert.equal(
    [...listed.keys()].filter((feature) => accepted.includes(feature)),
    [],
    "docs/features.md lists what is accepted by now",
  );
  const offered = asked.flatMap((column) => column.offered);
  if (columns.slice(0, 4).every(({ skipped }) => skipped === undefined)) {
    assert.equal(
      [...listed.keys()].filter((feature) => !offered.includes(feature)),
      [],
      "docs/features.md lists what no backend offers",
    );
  }
  t.log(formatTable(columns));
});

test.run();
