// The catalogue of clauses and its links (tools/conformance-catalogue.ts): what must not go unseen.

import { readdirSync, readFileSync } from "node:fs";
import { assert, suite } from "qemu-test-harness";
import {
  findForgotten,
  findSections,
  findTests,
  findUnfounded,
  makeEntries,
  parseClauses,
  parseImplemented,
  parseLinks,
  parseTargets,
  stateOf,
} from "../../tools/conformance-catalogue";

const test = suite("conformance");

const clause = (id: string, section = "2.7.1 Driver Requirements: Virtqueues") =>
  JSON.stringify({ id, section, level: "MUST", feature: null, requirement: "Something." });
const file = (...lines: string[]) => ({ path: "some.jsonl", text: `${lines.join("\n")}\n` });
const NAMES = ["ring › 1 entry works", "ring › 2 entries work", "net › it works"];

function problemsOf(links: string, names = NAMES): string[] {
  const problems: string[] = [];
  const clauses = parseClauses([file(clause("a"), clause("b"))], problems);
  findTests(parseLinks(file(links), clauses, problems), names, problems);
  return problems;
}

for (const [what, line, message] of [
  ["that is cut", clause("c").slice(0, 40), /some.jsonl:2: /],
  ["without a level", '{"id":"c","section":"1","requirement":"x"}', /without level/],
  ["that is no object", "17", /no object/],
  ["with an id that is there already", clause("a"), /a is there already/],
] as const) {
  test(`a line of the catalogue ${what} is a problem with its place`, () => {
    const problems: string[] = [];
    parseClauses([file(clause("a"), line)], problems);
    assert.is(problems.length, 1);
    assert.match(problems[0] ?? "", message);
  });
}

for (const [what, link, message] of [
  ["to an unknown clause", '{"id":"z","tests":["net › it works"]}', /there is no clause z/],
  ["to a test that is not there", '{"id":"a","tests":["net › it breaks"]}', /no test 'net › it br/],
  ["whose pattern fits no test", '{"id":"a","tests":["ring › 3*"]}', /no test 'ring › 3\*'/],
  ["with neither tests nor a reason", '{"id":"a","tests":[]}', /needs tests, or a reason/],
  ["with tests and a reason", '{"id":"a","tests":["x"],"excused":"y"}', /needs tests, or a reason/],
  ["that is damaged", '{"id":"a"', /some.jsonl:1: /],
] as const) {
  test(`a link ${what} is a problem`, () => {
    const problems = problemsOf(link);
    assert.is(problems.length, 1, problems.join());
    assert.match(problems[0] ?? "", message);
  });
}

for (const [pattern, found] of [
  ["ring › *", 2],
  ["ring › * work", 1],
  ["*works", 2],
  ["ring*entr*work*", 2],
  ["ring › 1 entry works", 1],
] as const) {
  test(`'${pattern}' stands for ${found} tests`, () => {
    const links = [{ id: "a", tests: [pattern], excused: undefined }];
    assert.is(findTests(links, NAMES, []).get("a")?.length, found);
  });
}

test("a clause without a link is open, and no problem", () => {
  assert.equal(problemsOf('{"id":"a","tests":["net › it works"]}'), []);
  const clauses = parseClauses([file(clause("a"))], []);
  const none = { links: [], tests: new Map(), sections: new Map(), outcomes: new Map() };
  assert.is(makeEntries(clauses, none)[0]?.result, "open");
});

test("a clause with neither tests nor a reason is a problem that names it", () => {
  const clauses = parseClauses([file(clause("a"), clause("b"))], []);
  const links = [{ id: "a", tests: ["ring › *"], excused: undefined }];
  assert.equal(findForgotten(clauses, links), ["b has neither tests nor a reason: Something."]);
});

test("code is found by the section of the clause, and by the one above its requirements", () => {
  const text = "// virtio 1.4 §2.7\nx = 1; // §2.7.1\n/** §2.7.1.1 */\nconst no = '§2.7.1';\n";
  const sections = findSections([{ path: "ring.ts", text }]);
  const clauses = parseClauses([file(clause("a"), clause("b", "2.7.1 Virtqueues"))], []);
  const none = { links: [], tests: new Map(), outcomes: new Map() };
  const [own, text1] = makeEntries(clauses, { ...none, sections });
  assert.equal(own?.code, ["ring.ts:2", "ring.ts:1"]);
  assert.equal(text1?.code, ["ring.ts:2"]);
});

for (const [outcomes, result] of [
  [["passed", "passed"], "passed"],
  [["passed", "failed"], "failed"],
  [["passed", "skipped"], "skipped"],
  [["passed"], "not run"],
] as const) {
  test(`tests that ${outcomes.join(" and ")} make a clause '${result}'`, () => {
    const clauses = parseClauses([file(clause("a"))], []);
    const links = [{ id: "a", tests: ["ring › *"], excused: undefined }];
    const ended = new Map(outcomes.map((outcome, i) => [NAMES[i] ?? "", outcome] as const));
    const tests = findTests(links, NAMES, []);
    const evidence = { links, tests, sections: new Map(), outcomes: ended };
    assert.is(makeEntries(clauses, evidence)[0]?.result, result);
  });
}

// ---- what binds --------------------------------------------------------------------------------

const binding = (level: string, feature: string | null) =>
  JSON.stringify({ id: "a", section: "1 One", level, feature, requirement: "Something." });
const implemented = parseImplemented("const IMPLEMENTED: u64 =\n  (1 << MQ) |\n  (1 << RSS);\n");

for (const [level, feature, binds] of [
  ["MUST", null, true],
  ["MAY", "VIRTIO_NET_F_MQ", true],
  ["MUST", "VIRTIO_NET_F_MQ&!VIRTIO_F_RING_PACKED", true],
  ["MUST", "VIRTIO_NET_F_STANDBY|VIRTIO_NET_F_RSS", true],
  ["MUST", "!VIRTIO_NET_F_STANDBY", true],
  ["MUST", "VIRTIO_NET_F_STANDBY", false],
  ["MUST", "VIRTIO_NET_F_MQ&VIRTIO_NET_F_STANDBY", false],
  ["DESCRIPTIVE", null, false],
] as const) {
  test(`a ${level} with ${feature ?? "no feature"} ${binds ? "may not" : "may"} be excused`, () => {
    const clauses = parseClauses([file(binding(level, feature))], []);
    const links = [{ id: "a", tests: [], excused: "no reason" }];
    const found = findUnfounded(clauses, links, implemented);
    assert.is(found.length, Number(binds));
    if (binds) assert.match(found[0] ?? "", /^a binds the driver, and is excused \('no reason'\)/);
  });
}

test("a target that lists a section without clauses is a problem with its place", () => {
  const problems: string[] = [];
  const clauses = parseClauses([file(clause("a"))], []);
  parseTargets(file('{"id":"a","sections":["2.7.1","9.9"]}'), clauses, problems);
  parseTargets(file('{"id":"z","sections":[]}'), clauses, problems);
  assert.equal(problems, [
    "some.jsonl:1: a lists §9.9, of which there is no clause",
    "some.jsonl:1: 'z' is no clause with a list of sections",
  ]);
});

// ---- the catalogue itself: what §7 asks of a driver ----------------------------------------------

const FOLDER = "test/conformance";
const read = (path: string) => ({ path, text: readFileSync(path, "utf8") });

function readCatalogue() {
  const problems: string[] = [];
  const files = readdirSync(`${FOLDER}/clauses`).map((name) => read(`${FOLDER}/clauses/${name}`));
  const clauses = parseClauses(files, problems);
  const links = parseLinks(read(`${FOLDER}/links.jsonl`), clauses, problems);
  const targets = parseTargets(read(`${FOLDER}/targets.jsonl`), clauses, problems);
  assert.equal(problems, []);
  return { clauses, links, targets };
}

test("§7.1: the clauses of §7.2 for a driver, for PCI and for a network driver, and §7.4", () => {
  const { clauses, links, targets } = readCatalogue();
  const ids = ["conf.driver.drv-1", "conf.pci.drv-1", "conf.net.drv-1"];
  assert.equal(
    targets.map(({ id }) => id),
    ids,
  );
  const tested = new Set(links.filter(({ tests }) => tests.length > 0).map(({ id }) => id));
  for (const id of [...ids, "conf.legacy.drv-1"]) assert.ok(tested.has(id), id);
  assert.equal(findForgotten(clauses, links), []);
});

for (const id of ["conf.driver.drv-1", "conf.pci.drv-1", "conf.net.drv-1"]) {
  test(`${id}: every block that it lists is in the catalogue, and what binds there is tested`, () => {
    const { clauses, links, targets } = readCatalogue();
    const target = targets.find((one) => one.id === id);
    assert.ok(target !== undefined && target.sections.length >= 8);
    const accepted = parseImplemented(readFileSync("drivers/virtio/features.ts", "utf8"));
    assert.ok(accepted.size > 30);
    const numbers = new Set(target?.sections);
    const own = clauses.filter(({ section }) => numbers.has(section.split(" ")[0] ?? ""));
    assert.equal(findUnfounded(own, links, accepted), []);
    // Every link counts as found: that its tests exist is for the command to see.
    const tests = new Map(links.map((link) => [link.id, link.tests]));
    const evidence = { links, tests, sections: new Map(), outcomes: new Map() };
    const states = target === undefined ? [] : stateOf(target, makeEntries(clauses, evidence));
    for (const { clauses: all, excused, section, tested } of states) {
      assert.ok(all > 0, section);
      assert.is(tested + excused, all, section);
    }
  });
}

test.run();
