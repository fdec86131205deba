/**
 * Puts counters into AssemblyScript sources: a byte in linear memory is set when a piece of code
 * runs. AssemblyScript is TypeScript as far as syntax goes, so TypeScript's parser finds the places.
 * Used by coverage-module.ts. What is counted:
 *
 *   lines      the first statement of each block, and each one behind a statement that may branch:
 *              what lies between two of them runs when the first does
 *   branches   both ways of if and ?:, a loop's way in, the cases of switch, and the right side of
 *              && and ||
 *
 * What the compiler puts in by itself, such as the check of an index, is no branch of the source and
 * is not counted; what the source says is, also where no device can bring it about.
 *
 * The byte of point n lies at FIRST_POINT + n, below the module's data; `memoryBase` makes the room.
 */
import ts from "typescript";

/** Where the bytes lie: behind what belongs to nobody. */
export const FIRST_POINT = 1024;

export interface Point {
  readonly file: string;
  readonly kind: "lines" | "branch";
  /** From 1 on; a point of kind `lines` stands for all lines from `line` to `end`. */
  readonly line: number;
  readonly end: number;
  /** Which way a branch goes. */
  readonly way: string;
}

interface Insertion {
  readonly at: number;
  readonly text: string;
  /** Among insertions at one place: what closes, from within outwards, then what opens. */
  readonly order: number;
}

class Instrumenter {
  private readonly insertions: Insertion[] = [];

  constructor(
    private readonly source: ts.SourceFile,
    private readonly file: string,
    private readonly points: Point[],
  ) {}

  run(): string {
    ts.forEachChild(this.source, (node) => this.visit(node));
    const text = this.source.text;
    const sorted = this.insertions
      .map((insertion, index) => ({ ...insertion, index }))
      .sort((a, b) => a.at - b.at || a.order - b.order || a.index - b.index);
    let result = "";
    let from = 0;
    for (const { at, text: piece } of sorted) {
      result += text.slice(from, at) + piece;
      from = at;
    }
    return result + text.slice(from);
  }

  private lineOf(position: number): number {
    return this.source.getLineAndCharacterOfPosition(position).line + 1;
  }

  private point(kind: Point["kind"], from: number, to: number, way: string): string {
    const index = this.points.length;
    const [line, end] = [this.lineOf(from), this.lineOf(to)];
    this.points.push({ file: this.file, kind, line, end, way });
    return `store<u8>(${FIRST_POINT + index}, 1)`;
  }

  private open(at: number, text: string, node: ts.Node): void {
    this.insertions.push({ at, text, order: 1 + depthOf(node) });
  }

  private close(at: number, text: string, node: ts.Node): void {
    this.insertions.push({ at, text, order: -depthOf(node) });
  }

  // ---- statements ------------------------------------------------------------------------------

  private visit(node: ts.Node): void {
    if (ts.isBlock(node) || ts.isCaseOrDefaultClause(node)) this.statements(node.statements);
    if (ts.isIfStatement(node)) this.branchIf(node);
    else if (ts.isConditionalExpression(node)) this.branchConditional(node);
    else if (ts.isIterationStatement(node, false)) this.branchLoop(node);
    else if (ts.isCaseOrDefaultClause(node)) this.branchCase(node);
    else if (ts.isBinaryExpression(node)) this.branchLogical(node);
    ts.forEachChild(node, (child) => this.visit(child));
  }

  /** A counter for each run of statements that follow one another without fail. */
  private statements(list: ts.NodeArray<ts.Statement>): void {
    let start = 0;
    list.forEach((statement, index) => {
      const isLast = index + 1 === list.length;
      if (!isLast && isPlain(statement)) return;
      const [first, last] = [list[start], list[index]];
      start = index + 1;
      if (first === undefined || last === undefined) return;
      const from = first.getStart(this.source);
      const to = isPlain(last) ? last.end : last.getStart(this.source);
      this.open(from, `${this.point("lines", from, to, "")}; `, first);
    });
  }

  // ---- branches --------------------------------------------------------------------------------

  /** Makes a block of a statement, so that a counter has room in it. */
  private wrap(statement: ts.Statement, way: string): void {
    const from = statement.getStart(this.source);
    const hit = this.point("branch", from, from, way);
    if (ts.isBlock(statement)) {
      this.open(from + 1, ` ${hit}; `, statement);
      return;
    }
    const line = ts.isIfStatement(statement) ? "" : `${this.point("lines", from, from, "")}; `;
    this.open(from, `{ ${hit}; ${line}`, statement);
    this.close(statement.end, " }", statement);
  }

  private branchIf(node: ts.IfStatement): void {
    this.wrap(node.thenStatement, "then");
    if (node.elseStatement !== undefined) {
      this.wrap(node.elseStatement, "else");
      return;
    }
    const at = node.thenStatement.getStart(this.source);
    const hit = this.point("branch", at, at, "else");
    // Before what an enclosing else closes at the same place.
    this.close(node.end, ` else { ${hit}; }`, node.thenStatement);
  }

  private branchLoop(node: ts.IterationStatement): void {
    this.wrap(node.statement, "again");
  }

  private branchCase(node: ts.CaseOrDefaultClause): void {
    const at = node.getStart(this.source);
    const [first] = node.statements;
    if (first === undefined) return;
    this.open(first.getStart(this.source), `${this.point("branch", at, at, "case")}; `, node);
  }

  private comma(expression: ts.Expression, way: string): void {
    const from = expression.getStart(this.source);
    this.open(from, `(${this.point("branch", from, from, way)}, `, expression);
    this.close(expression.end, ")", expression);
  }

  private branchConditional(node: ts.ConditionalExpression): void {
    if (isConstant(node)) return;
    this.comma(node.whenTrue, "true");
    this.comma(node.whenFalse, "false");
  }

  private branchLogical(node: ts.BinaryExpression): void {
    const kind = node.operatorToken.kind;
    const isAnd = kind === ts.SyntaxKind.AmpersandAmpersandToken;
    if (!isAnd && kind !== ts.SyntaxKind.BarBarToken) return;
    if (isConstant(node)) return;
    // A term of its own before the right side, not a comma around it: what the compiler learns of
    // null from the right side would be hidden from it.
    const from = node.right.getStart(this.source);
    const hit = this.point("branch", from, from, isAnd ? "and" : "or");
    this.open(from, isAnd ? `(${hit}, true) && ` : `(${hit}, false) || `, node.right);
  }
}

function depthOf(node: ts.Node): number {
  let depth = 0;
  for (let up = node.parent; up !== undefined; up = up.parent) depth++;
  return depth;
}

/** A statement after which the next one follows. */
function isPlain(statement: ts.Statement): boolean {
  return ts.isExpressionStatement(statement) || ts.isVariableStatement(statement);
}

/** Whether an expression stands where code cannot: outside of every function. */
function isConstant(node: ts.Node): boolean {
  for (let up = node.parent; up !== undefined; up = up.parent) {
    if (ts.isFunctionLike(up)) return false;
  }
  return true;
}

/** The source with counters; its points are appended to `points`. */
export function instrument(file: string, text: string, points: Point[]): string {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
  return new Instrumenter(source, file, points).run();
}
