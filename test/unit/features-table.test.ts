// The feature table of `make features`: its lines, its reasons, and the list in docs/features.md.

import { assert, suite } from "qemu-test-harness";
import {
  type Column,
  cellOf,
  featuresOf,
  formatTable,
  parseDeclinedList,
  skippedColumn,
  withoutCode,
} from "../../tools/features-table";

const test = suite("feature table's parts");

const COLUMNS: readonly Column[] = [
  {
    backend: "user",
    offered: ["mac", "rsc_ext"],
    accepted: ["mac"],
    declined: { rsc_ext: "not implemented" },
  },
  {
    backend: "tap",
    offered: ["csum", "mac", "mq", "guest_ufo"],
    accepted: ["csum", "mac"],
    declined: {
      mq: "left out on the command line",
      guest_ufo: "UDP fragmentation offload is not used; uso takes its place",
    },
  },
  skippedColumn("vhost-user", "needs dpdk-testpmd"),
];

test("features of all columns, each once", () => {
  assert.equal(featuresOf(COLUMNS), ["csum", "guest_ufo", "mac", "mq", "rsc_ext"]);
});

test("a cell says accepted, declined, or nothing where it is not offered", () => {
  const [user, tap] = COLUMNS;
  if (user === undefined || tap === undefined) throw new Error("no columns");
  assert.is(cellOf(user, "mac"), "accepted");
  assert.is(cellOf(user, "csum"), "");
  assert.is(cellOf(tap, "mq"), "declined");
});

test("every line of the table has its columns at the same places", () => {
  const [head = "", rule = "", ...rows] = formatTable(COLUMNS).split("\n");
  const at = [...rule.matchAll(/-+/g)].map(({ index }) => index);
  assert.is(at.length, 3);
  assert.equal(
    ["feature", "user", "tap"].map((word) => head.indexOf(word)),
    at,
  );
  for (const row of rows.slice(0, 5)) {
    for (const match of row.matchAll(/accepted|declined/g))
      assert.ok(at.includes(match.index), row);
  }
});

test("reasons stand below with their backends, and so does what was skipped", () => {
  const text = formatTable(COLUMNS);
  assert.match(text, /^ {2}mq \(tap\): left out on the command line$/m);
  assert.match(text, /^ {2}vhost-user: needs dpdk-testpmd$/m);
});

test("want of code is told from choice and from what is missing", () => {
  assert.equal([...withoutCode(COLUMNS).keys()], ["rsc_ext", "guest_ufo"]);
});

test("the list of docs/features.md is read line by line", () => {
  const list = parseDeclinedList("text\n| feature | why |\n|---|---|\n| `a_b` | For c. |\n");
  assert.equal([...list], [["a_b", "For c."]]);
});

for (const [what, text, message] of [
  ["without a table", "text\n", /no table/],
  ["that names one twice", "| `a` | x |\n| `a` | y |\n", /lists a twice/],
] as const) {
  test(`a list ${what} is an error`, () => {
    assert.throws(() => parseDeclinedList(text), message);
  });
}

test.run();
