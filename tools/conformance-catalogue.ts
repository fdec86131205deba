// The catalogue of what virtio 1.4 asks of a driver, and what there is to say of each clause: where
// in the code it is named, which tests prove it, or why there is none. Used by conformance.ts.
//
//   test/conformance/clauses/*.jsonl   a clause a line: id, section, level, feature, requirement ...
//   test/conformance/links.jsonl       {"id", "tests": [...]} or {"id", "excused": "why"}
//   test/conformance/targets.jsonl     {"id", "sections": [...]}: the blocks that §7.2 lists
//
// A test is named as the runner lists it, `suite › test`; a `*` in it stands for anything.

export interface Clause {
  readonly id: string;
  /** Number and title. */
  readonly section: string;
  readonly level: string;
  /** The features that make it binding; null for always. */
  readonly feature: string | null;
  readonly requirement: string;
}

export interface Link {
  readonly id: string;
  readonly tests: readonly string[];
  readonly excused: string | undefined;
}

export interface SourceFile {
  readonly path: string;
  readonly text: string;
}

export type Outcome = "passed" | "failed" | "skipped";
export type Result = Outcome | "not run" | "excused" | "open";

/** What build/conformance.json holds of each clause. */
export interface Entry {
  readonly id: string;
  readonly level: string;
  readonly section: string;
  /** Places that name the clause's section, `file:line`. */
  readonly code: readonly string[];
  readonly tests: readonly string[];
  readonly excused?: string;
  readonly result: Result;
}

const CLAUSE_FIELDS = ["id", "section", "level", "requirement"] as const;

/** The objects of a file with one a line; what is wrong goes to `problems`. */
function parseLines(file: SourceFile, problems: string[]): Record<string, unknown>[] {
  const objects: Record<string, unknown>[] = [];
  file.text.split("\n").forEach((line, index) => {
    if (line === "") return;
    const where = `${file.path}:${index + 1}`;
    try {
      const value: unknown = JSON.parse(line);
      if (typeof value !== "object" || value === null) problems.push(`${where}: no object`);
      else objects.push({ ...value, where });
    } catch (error) {
      problems.push(`${where}: ${error instanceof Error ? error.message : "damaged"}`);
    }
  });
  return objects;
}

export function parseClauses(files: readonly SourceFile[], problems: string[]): Clause[] {
  const clauses = new Map<string, Clause>();
  for (const object of files.flatMap((file) => parseLines(file, problems))) {
    const missing = CLAUSE_FIELDS.filter((field) => typeof object[field] !== "string");
    const id = String(object.id);
    if (missing.length > 0) problems.push(`${object.where}: a clause without ${missing.join()}`);
    else if (clauses.has(id)) problems.push(`${object.where}: ${id} is there already`);
    else clauses.set(id, object as unknown as Clause);
  }
  return [...clauses.values()];
}

export function parseLinks(
  file: SourceFile,
  clauses: readonly Clause[],
  problems: string[],
): Link[] {
  const known = new Set(clauses.map(({ id }) => id));
  const links = new Map<string, Link>();
  for (const { id, tests, excused, where } of parseLines(file, problems)) {
    const names = Array.isArray(tests) ? tests.filter((name) => typeof name === "string") : [];
    const reason = typeof excused === "string" && excused !== "" ? excused : undefined;
    if (typeof id !== "string" || !known.has(id)) {
      problems.push(`${where}: there is no clause ${id}`);
    } else if (links.has(id)) {
      problems.push(`${where}: ${id} is there already`);
    } else if (names.length > 0 === (reason !== undefined)) {
      problems.push(`${where}: ${id} needs tests, or a reason why there are none`);
    } else {
      links.set(id, { id, tests: names, excused: reason });
    }
  }
  return [...links.values()];
}

/** The tests that each link names; one that fits no test is a problem. */
export function findTests(
  links: readonly Link[],
  names: readonly string[],
  problems: string[],
): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, readonly string[]>();
  for (const { id, tests } of links) {
    const all = tests.flatMap((wanted) => {
      const matching = names.filter((name) => fits(wanted, name));
      if (matching.length === 0) problems.push(`${id}: there is no test '${wanted}'`);
      return matching;
    });
    found.set(id, [...new Set(all)]);
  }
  return found;
}

function fits(wanted: string, name: string): boolean {
  const [first = "", ...rest] = wanted.split("*");
  if (rest.length === 0) return wanted === name;
  const last = rest.pop() ?? "";
  if (!name.startsWith(first) || !name.endsWith(last)) return false;
  let at = first.length;
  for (const part of rest) {
    const next = name.indexOf(part, at);
    if (next < 0) return false;
    at = next + part.length;
  }
  return at + last.length <= name.length;
}

/** The number of a clause's section, and of the one above it for "Driver Requirements: ...". */
function numbersOf({ section }: Clause): readonly string[] {
  const [number = "", ...title] = section.split(" ");
  const parent = number.slice(0, number.lastIndexOf("."));
  return title.join(" ").startsWith("Driver Requirements") ? [number, parent] : [number];
}

/** Where in the sources each section is named, as `virtio 1.4 §1.2.3` or `§1.2.3` in a comment. */
export function findSections(files: readonly SourceFile[]): ReadonlyMap<string, readonly string[]> {
  const places = new Map<string, string[]>();
  for (const { path, text } of files) {
    text.split("\n").forEach((line, index) => {
      const comment = /(\/\/|^\s*\/?\*|\/\*)(.*)/.exec(line)?.[2] ?? "";
      for (const [, number = ""] of comment.matchAll(/§(\d+(?:\.\d+)*)/g)) {
        places.set(number, [...(places.get(number) ?? []), `${path}:${index + 1}`]);
      }
    });
  }
  return places;
}

export interface Evidence {
  readonly links: readonly Link[];
  readonly tests: ReadonlyMap<string, readonly string[]>;
  readonly sections: ReadonlyMap<string, readonly string[]>;
  /** How tests ended the last time they ran. */
  readonly outcomes: ReadonlyMap<string, Outcome>;
}

export function makeEntries(clauses: readonly Clause[], evidence: Evidence): Entry[] {
  const links = new Map(evidence.links.map((link) => [link.id, link]));
  return clauses.map((clause) => {
    const { id, level, section } = clause;
    const excused = links.get(id)?.excused;
    const tests = evidence.tests.get(id) ?? [];
    const code = numbersOf(clause).flatMap((number) => evidence.sections.get(number) ?? []);
    const result = links.has(id) ? resultOf(tests, excused, evidence.outcomes) : "open";
    return {
      id,
      level,
      section,
      code,
      tests,
      ...(excused === undefined ? {} : { excused }),
      result,
    };
  });
}

function resultOf(
  tests: readonly string[],
  excused: string | undefined,
  outcomes: ReadonlyMap<string, Outcome>,
): Result {
  if (excused !== undefined) return "excused";
  const all = new Set(tests.map((name) => outcomes.get(name) ?? "not run"));
  for (const result of ["failed", "not run", "skipped"] as const)
    if (all.has(result)) return result;
  return all.size > 0 ? "passed" : "not run";
}

/** The clauses that nobody has linked, each as a problem. */
export function findForgotten(clauses: readonly Clause[], links: readonly Link[]): string[] {
  const linked = new Set(links.map(({ id }) => id));
  return clauses
    .filter(({ id }) => !linked.has(id))
    .map(({ id, requirement }) => `${id} has neither tests nor a reason: ${requirement}`);
}

/** Clauses in scope: all but the admin queue's and IPsec's; at most so many of them are excused. */
const OUT_OF_SCOPE =
  /^(admin|net\.ff|net\.ipsec|net\.tx\.drv-4[78]$|pci\.common-cfg\.drv-1[01]$|legacy|text\.(admin|legacy|net\.ipsec))/;

export function shareOfExcused(clauses: readonly Clause[], links: readonly Link[]) {
  const excused = new Set(links.filter((link) => link.excused !== undefined).map(({ id }) => id));
  const scope = clauses.filter(({ id }) => !OUT_OF_SCOPE.test(id));
  return { scope: scope.length, excused: scope.filter(({ id }) => excused.has(id)).length };
}

// ---- what binds --------------------------------------------------------------------------------

/** The features that the driver has code for: IMPLEMENTED in drivers/virtio/features.ts. */
export function parseImplemented(text: string): ReadonlySet<string> {
  const [, body = ""] = /const IMPLEMENTED: u64 =([^;]*);/.exec(text) ?? [];
  return new Set([...body.matchAll(/<< ([A-Z_0-9]+)\)/g)].map(([, name = ""]) => name));
}

/**
 * Whether a clause's features can come about: of the alternatives between `|` one has no feature
 * among those joined by `&` that the driver never accepts. `!` stands before one that is absent.
 */
function canBind(feature: string | null, implemented: ReadonlySet<string>): boolean {
  if (feature === null) return true;
  const bare = (name: string) => name.replace(/^VIRTIO_(NET_)?F_/, "");
  return feature
    .split("|")
    .some((all) =>
      all.split("&").every((name) => name.startsWith("!") || implemented.has(bare(name))),
    );
}

/**
 * Clauses in scope that bind this driver and are excused, each as a problem. What merely describes
 * may be: then there is nothing to be obeyed.
 */
export function findUnfounded(
  clauses: readonly Clause[],
  links: readonly Link[],
  implemented: ReadonlySet<string>,
): string[] {
  const excused = new Map(links.map((link) => [link.id, link.excused]));
  return clauses.flatMap(({ feature, id, level, requirement }) => {
    const reason = excused.get(id);
    const isFree = level === "DESCRIPTIVE" || OUT_OF_SCOPE.test(id);
    if (reason === undefined || isFree || !canBind(feature, implemented)) return [];
    return [`${id} binds the driver, and is excused ('${reason}'): ${requirement}`];
  });
}

/** What a conformance clause of §7.2 lists. */
export interface Target {
  readonly id: string;
  /** Numbers of the blocks' sections. */
  readonly sections: readonly string[];
}

export function parseTargets(
  file: SourceFile,
  clauses: readonly Clause[],
  problems: string[],
): Target[] {
  const ids = new Set(clauses.map(({ id }) => id));
  const numbers = new Set(clauses.map(({ section }) => section.split(" ")[0]));
  return parseLines(file, problems).flatMap(({ id, sections, where }) => {
    const isTarget = typeof id === "string" && ids.has(id) && Array.isArray(sections);
    if (!isTarget) {
      problems.push(`${where}: '${id}' is no clause with a list of sections`);
      return [];
    }
    const names = sections.map(String);
    for (const name of names.filter((one) => !numbers.has(one))) {
      problems.push(`${where}: ${id} lists §${name}, of which there is no clause`);
    }
    return [{ id, sections: names }];
  });
}

/** How far a block is: its clauses, and how many of them are tested and excused. */
export interface BlockState {
  readonly section: string;
  readonly clauses: number;
  readonly tested: number;
  readonly excused: number;
}

export function stateOf({ sections }: Target, entries: readonly Entry[]): BlockState[] {
  return sections.map((number) => {
    const own = entries.filter(({ section }) => section.split(" ")[0] === number);
    const excused = own.filter((entry) => entry.excused !== undefined).length;
    const tested = own.filter(({ tests }) => tests.length > 0).length;
    return { section: own[0]?.section ?? number, clauses: own.length, tested, excused };
  });
}
