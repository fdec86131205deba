// How results are shown: live progress, failures, skips, the closing line, and the JSON and JUnit
// files. Used by run.ts.

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { closingLine, countResults, type FileResult, type TestResult } from "./results";

const INDENT = "    ";

/** Writes progress: one live line on a terminal, one line for each finished file elsewhere. */
export class Progress {
  private finished = 0;
  private readonly live = process.stdout.isTTY === true && process.env.TERM !== "dumb";

  constructor(private readonly total: number) {}

  show(text: string): void {
    if (!this.live) return;
    const width = process.stdout.columns ?? 80;
    const line = `[${this.finished}/${this.total}] ${text}`.slice(0, width - 1);
    process.stdout.write(`\r\x1b[K${line}`);
  }

  log(text: string): void {
    this.print(`${INDENT}${text}`);
  }

  file(result: FileResult): void {
    this.finished++;
    const counts = countResults(result.tests);
    const mark = counts.failed > 0 ? "FAIL" : "ok  ";
    const seconds = (result.durationMs / 1000).toFixed(1);
    const deferred = result.tests.filter((test) => test.outcome === "deferred").length;
    const later = deferred > 0 ? `, ${deferred} for the lab` : "";
    this.print(`${mark} ${result.file}  ${closingLine(counts)}${later}  (${seconds} s)`);
    for (const test of result.tests) if (test.outcome === "failed") this.failure(test);
  }

  private failure(result: TestResult): void {
    this.print(`${INDENT}FAILED ${result.suite} › ${result.test}`);
    for (const line of (result.detail ?? "").trimEnd().split("\n")) {
      this.print(`${INDENT}${INDENT}${line}`);
    }
    for (const path of result.artifacts ?? []) this.print(`${INDENT}${INDENT}kept: ${path}`);
  }

  print(line: string): void {
    process.stdout.write(this.live ? `\r\x1b[K${line}\n` : `${line}\n`);
  }
}

/** The skipped tests, grouped by reason. */
export function skipLines(tests: readonly TestResult[]): string[] {
  const skipped = tests.filter((test) => test.outcome === "skipped");
  const reasons = new Map<string, TestResult[]>();
  for (const test of skipped) {
    const reason = test.detail ?? "no reason given";
    reasons.set(reason, [...(reasons.get(reason) ?? []), test]);
  }
  return [...reasons].flatMap(([reason, group]) => [
    `skipped ${group.length}: ${reason}`,
    ...group.map((test) => `${INDENT}${test.suite} › ${test.test}`),
  ]);
}

/** Writes all results, file by file, as JSON; makes the directory. */
export function writeJson(path: string, files: readonly FileResult[]): void {
  const tests = files.flatMap((file) => file.tests);
  const content = { counts: countResults(tests), files };
  write(path, `${JSON.stringify(content, null, 2)}\n`);
}

/** Writes the results as JUnit XML, one suite a file; makes the directory. */
export function writeJunit(path: string, files: readonly FileResult[]): void {
  const suites = files.map((file) => {
    const { failed, skipped } = countResults(file.tests);
    const total = `tests="${file.tests.length}" failures="${failed}" skipped="${skipped}"`;
    const time = `time="${file.durationMs / 1000}"`;
    const cases = file.tests.map(junitCase).join("");
    const head = `  <testsuite name="${escapeXml(file.file)}" ${total} ${time}>\n`;
    return `${head}${cases}  </testsuite>\n`;
  });
  write(
    path,
    `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n${suites.join("")}</testsuites>\n`,
  );
}

function junitCase(test: TestResult): string {
  const head = `    <testcase classname="${escapeXml(test.suite)}" name="${escapeXml(test.test)}"`;
  const time = `time="${test.durationMs / 1000}"`;
  if (test.outcome === "passed") return `${head} ${time}/>\n`;
  const tag = test.outcome === "failed" ? "failure" : "skipped";
  const message = `message="${escapeXml((test.detail ?? "").split("\n")[0] ?? "")}"`;
  const body = `<${tag} ${message}>${escapeXml(test.detail ?? "")}</${tag}>`;
  return `${head} ${time}>${body}</testcase>\n`;
}

function escapeXml(text: string): string {
  const plain = text.replace(/[^\t\n\x20-\u{10ffff}]/gu, "?");
  return plain
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

function write(path: string, content: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}
