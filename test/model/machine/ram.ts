// Physical memory as devices see it: the linear memories of the vCPUs, each at its own base, and
// nothing else. A device that reads or writes outside of them was told a wrong address by the
// driver. Owned by Machine; used by the rings and by MSI-X.
//
//   0      1 MiB     2 MiB           + arena of CPU 0          memoryEnd
//   | ROM  | image   | arena CPU 0   | arena CPU 1 | ...       | ACPI tables ... devices

import { DriverError } from "../errors";

/** One vCPU's linear memory. */
export class Arena {
  private buffer: ArrayBuffer | undefined;
  private dataView = new DataView(new ArrayBuffer(0));
  private byteArray = new Uint8Array(0);

  constructor(
    readonly base: number,
    private readonly memory: WebAssembly.Memory,
  ) {}

  /** Bytes that exist now: those that the guest has grown its memory to. */
  get bytes(): number {
    return this.memory.buffer.byteLength;
  }

  /** The whole memory. Valid until the guest grows it, so not to be kept. */
  get view(): DataView {
    this.refresh();
    return this.dataView;
  }

  get array(): Uint8Array {
    this.refresh();
    return this.byteArray;
  }

  private refresh(): void {
    if (this.memory.buffer === this.buffer) return;
    this.buffer = this.memory.buffer;
    this.dataView = new DataView(this.buffer);
    this.byteArray = new Uint8Array(this.buffer);
  }
}

export class Ram {
  readonly arenas: Arena[] = [];
  /** Told of every range that a device asks for: each buffer that it reads or writes. */
  onAccess: ((address: number, bytes: number, purpose: string) => void) | undefined;

  /** The arena that holds the whole range. Throws a DriverError that names `purpose`. */
  find(address: number, bytes: number, purpose: string): Arena {
    this.onAccess?.(address, bytes, purpose);
    for (const arena of this.arenas) {
      if (address >= arena.base && address + bytes <= arena.base + arena.bytes) return arena;
    }
    const range = `0x${address.toString(16)} to 0x${(address + bytes).toString(16)}`;
    throw new DriverError(`${purpose}: ${range} is not in any vCPU's memory`);
  }
}
