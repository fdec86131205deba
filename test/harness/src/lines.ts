// Cuts a byte stream into lines. Used for the guest's console, QEMU's stderr, QMP and the test
// files' results.

export interface LineSplitter {
  (chunk: Buffer): void;
  /** At the stream's end: hands over a last line that has no line end. */
  end(): void;
}

/**
 * Returns a function that takes chunks and calls `onLine` for each whole line, without its line
 * end.
 */
export function lineSplitter(onLine: (line: string) => void): LineSplitter {
  let rest: Buffer = Buffer.alloc(0);
  const take = (chunk: Buffer) => {
    // Bytes, not characters, are collected: a chunk may end in the middle of a UTF-8 sequence.
    let data = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let end = data.indexOf(10);
    while (end >= 0) {
      onLine(data.subarray(0, end).toString("utf8").replace(/\r$/, ""));
      data = data.subarray(end + 1);
      end = data.indexOf(10);
    }
    rest = data;
  };
  const end = () => {
    if (rest.length > 0) onLine(rest.toString("utf8"));
    rest = Buffer.alloc(0);
  };
  return Object.assign(take, { end });
}
