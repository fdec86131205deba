/**
 * The table of function names that a `panic` line uses: from `nm`'s output to the assembly source
 * of `symbol_count`, `symbols` and `symbol_names` (boot/host.c). Called by build-image.ts.
 */

export interface FunctionSymbol {
  address: number;
  name: string;
}

/** wasm2c spells characters that C does not allow as 0xHH: "drivers0x2Fnet" is "drivers/net". */
export function readableName(symbol: string): string {
  return symbol
    .replace(/^w2c_vireo_/, "")
    .replace(/0x([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    .replace(/\.(constprop|isra|part|cold)\.?\d*/g, "")
    .replace(/_0$/, "");
}

/** The functions of ring 3 in ascending order of address, from `nm -n`. */
export function symbolsOf(nm: string): FunctionSymbol[] {
  const lines = nm.split("\n").map((line) => line.split(" "));
  const find = (name: string) => Number.parseInt(lines.find((l) => l[2] === name)?.[0] ?? "", 16);
  const start = find("user_text_start");
  const end = find("user_text_end");
  if (Number.isNaN(start) || Number.isNaN(end)) throw new Error("nm shows no user_text_start/end");
  return lines
    .filter(([, type]) => type === "t" || type === "T")
    .map(([address = "", , name = ""]) => ({
      address: Number.parseInt(address, 16),
      name: readableName(name),
    }))
    .filter(({ address, name }) => address >= start && address < end && name !== "user_text_start");
}

/** Assembly of the table, in a section of its own that lies behind all code. */
export function symbolsAssembly(symbols: FunctionSymbol[]): string {
  const names: string[] = [];
  const offsets = symbols.map(({ name }) => {
    const offset = names.reduce((sum, text) => sum + text.length + 1, 0);
    names.push(name);
    return offset;
  });
  return [
    '.section .symbols, "a", @progbits',
    ".global symbol_count, symbols, symbol_names",
    ".balign 8",
    "symbol_count:",
    `  .long ${symbols.length}`,
    "symbols:",
    ...symbols.map(({ address }, i) => `  .long ${address}, ${offsets[i]}`),
    "symbol_names:",
    ...names.map((name) => `  .asciz ${JSON.stringify(name)}`),
    '.section .note.GNU-stack, "", @progbits',
    "",
  ].join("\n");
}
