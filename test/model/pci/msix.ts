// MSI-X of one function: capability, table, pending bits. A message to the local APICs' range is
// delivered as an interrupt; one that is masked waits. Made by the virtio transport.
//
//   table entry:  0 address low | 4 address high | 8 data | 12 control, bit 0 masks | 16

import type { Width } from "../machine/bus";
import type { ConfigSpace } from "./config-space";

const CAPABILITY_ID = 0x11;
const ENTRY_BYTES = 16;
const CONTROL_ENABLE = 0x8000;
const CONTROL_MASK_ALL = 0x4000;
const MESSAGE_BASE = 0xfee0_0000;
const MESSAGE_BYTES = 1 << 20;

export interface MsixOptions {
  readonly entries: number;
  /** The BAR that holds the table. */
  readonly bar: number;
}

export class Msix {
  private readonly table: Uint32Array;
  private readonly pending = new Set<number>();
  private readonly control: number;

  constructor(
    private readonly config: ConfigSpace,
    readonly options: MsixOptions,
    private readonly deliver: (apicId: number, vector: number) => void,
  ) {
    this.table = new Uint32Array(4 * options.entries);
    for (let i = 0; i < options.entries; i++) this.table[4 * i + 3] = 1;
    const body = Buffer.alloc(10);
    body.writeUInt16LE(options.entries - 1, 0);
    body.writeUInt32LE(options.bar, 2);
    body.writeUInt32LE((options.entries * ENTRY_BYTES + 7) | options.bar, 6);
    this.control = config.addCapability(CAPABILITY_ID, body, Buffer.from([0, 0xc0])) + 2;
  }

  get isEnabled(): boolean {
    return (this.config.bytes.readUInt16LE(this.control) & CONTROL_ENABLE) !== 0;
  }

  read(offset: number): number {
    return this.table[offset >>> 2] ?? 0;
  }

  write(offset: number, width: Width, value: number): void {
    const { violations } = this.config;
    if (width !== 4) violations.add(`msix: ${8 * width}-bit write to the table`);
    if (offset >>> 2 >= this.table.length) {
      violations.add(`msix: write beyond the table at 0x${offset.toString(16)}`);
    }
    this.table[offset >>> 2] = value;
    this.flush();
  }

  /** Sends the message of an entry, now or when it is unmasked. */
  send(entry: number): void {
    if (!this.isEnabled || entry >= this.options.entries) return;
    this.pending.add(entry);
    this.flush();
  }

  private flush(): void {
    const control = this.config.bytes.readUInt16LE(this.control);
    if ((control & CONTROL_ENABLE) === 0 || (control & CONTROL_MASK_ALL) !== 0) return;
    for (const entry of this.pending) {
      const word = (index: number) => this.table[4 * entry + index] ?? 0;
      if ((word(3) & 1) !== 0) continue;
      this.pending.delete(entry);
      this.sendMessage(entry, word(0), word(1), word(2));
    }
  }

  private sendMessage(entry: number, low: number, high: number, data: number): void {
    const { violations } = this.config;
    const isMessage = high === 0 && low >= MESSAGE_BASE && low < MESSAGE_BASE + MESSAGE_BYTES;
    if (!isMessage || (data & 0xff) < 16) {
      violations.add(`msix: entry ${entry} sends 0x${data.toString(16)} to 0x${low.toString(16)}`);
      return;
    }
    if (!this.config.isBusMaster) violations.add(`msix: entry ${entry} without bus mastering`);
    this.deliver((low >>> 12) & 0xff, data & 0xff);
  }
}
