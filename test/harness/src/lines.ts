// Cuts a byte stream into lines. Used for the guest's console, QEMU's stderr, QMP and the test files' results.

/** Returns a function that takes chunks and calls `onLine` for each whole line, without its line end. */
export function lineSplitter(onLine: (line: string) => void): (chunk: Buffer) => void {
  let rest = Buffer.alloc(0);
  return (chunk) => {
    // Bytes, not characters, are collected: a chunk may end in the middle of a UTF-8 sequence.
    let data = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let end = data.indexOf(10);
    while (end >= 0) {
      onLine(data.subarray(0, end).toString("utf8").replace(/\r$/, ""));
      data = data.subarray(end + 1);
      end = data.indexOf(10);
    }
    rest = Buffer.from(data);
  };
}
