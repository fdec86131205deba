// ACPI tables as firmware leaves them: root pointer, RSDT or XSDT, MADT, and where PCI
// configuration space is, in MCFG or in the DSDT's _CBA (as on microvm). Built once by Machine.
//
//   root pointer (in ROM below 1 MiB) -> root table -> MADT, MCFG, FADT -> DSDT

export interface AcpiOptions {
  /** Widths of the root table's entries: RSDT (4) or XSDT (8). */
  readonly root: "rsdt" | "xsdt";
  /** How the guest learns where ECAM is; `none` leaves it the ports. */
  readonly ecam: "mcfg" | "cba" | "none";
  readonly cpus: number;
}

export const ECAM_BASE = 0xb000_0000;
export const IO_APIC_BASE = 0xfec0_0000;
const LOCAL_APIC_BASE = 0xfee0_0000;
const HEADER_BYTES = 36;
const CONSOLE_IRQ = 4;

/** Makes the byte sum of a piece 0 by setting the byte at `at`. */
function fixSum(bytes: Buffer, at: number): void {
  bytes[at] = 0;
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  bytes[at] = -sum & 0xff;
}

function table(signature: string, body: Buffer): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(signature, 0, "latin1");
  header.writeUInt32LE(HEADER_BYTES + body.length, 4);
  header.writeUInt8(1, 8);
  header.write("MODEL ", 10, "latin1");
  const whole = Buffer.concat([header, body]);
  fixSum(whole, 9);
  return whole;
}

function madt(cpus: number): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(LOCAL_APIC_BASE, 0);
  const parts = [head];
  for (let cpu = 0; cpu < cpus; cpu++) parts.push(Buffer.from([0, 8, cpu, cpu, 1, 0, 0, 0]));
  const ioApic = Buffer.alloc(12);
  ioApic.set([1, 12, cpus, 0]);
  ioApic.writeUInt32LE(IO_APIC_BASE, 4);
  // An override that moves nothing: the ISA interrupt of COM1 is the I/O APIC's input 4.
  const override = Buffer.from([2, 10, 0, CONSOLE_IRQ, CONSOLE_IRQ, 0, 0, 0, 0, 0]);
  return table("APIC", Buffer.concat([...parts, ioApic, override]));
}

function mcfg(): Buffer {
  const body = Buffer.alloc(24);
  body.writeBigUInt64LE(BigInt(ECAM_BASE), 8);
  body.writeUInt8(255, 19);
  return table("MCFG", body);
}

/** Method (_CBA) { Return (ECAM_BASE) } between bytes that mean nothing. */
function dsdt(): Buffer {
  const constant = Buffer.alloc(4);
  constant.writeUInt32LE(ECAM_BASE);
  const method = [Buffer.from("_CBA\0", "latin1"), Buffer.from([0xa4, 0x0c]), constant];
  return table("DSDT", Buffer.concat([Buffer.from("_CB\x14"), ...method, Buffer.alloc(8)]));
}

function fadt(dsdtAddress: number): Buffer {
  const body = Buffer.alloc(80);
  body.writeUInt32LE(dsdtAddress, 4);
  return table("FACP", body);
}

function rootPointer(rootTable: number, extended: boolean): Buffer {
  const pointer = Buffer.alloc(36);
  pointer.write("RSD PTR ", 0, "latin1");
  pointer.writeUInt8(extended ? 2 : 0, 15);
  pointer.writeUInt32LE(extended ? 0 : rootTable, 16);
  pointer.writeUInt32LE(36, 20);
  pointer.writeBigUInt64LE(BigInt(rootTable), 24);
  fixSum(pointer.subarray(0, 20), 8);
  fixSum(pointer, 32);
  return pointer;
}

/** The root pointer, and all tables as one piece that lies at physical address `base`. */
export function buildAcpi(base: number, options: AcpiOptions): { pointer: Buffer; tables: Buffer } {
  const placed: Buffer[] = [];
  const place = (piece: Buffer): number => {
    const address = base + placed.reduce((total, { length }) => total + length, 0);
    // Tables lie 16 bytes apart at least, as firmware aligns them.
    placed.push(piece, Buffer.alloc(-piece.length & 15));
    return address;
  };
  const entries = [place(madt(options.cpus))];
  if (options.ecam === "mcfg") entries.push(place(mcfg()));
  if (options.ecam === "cba") entries.push(place(fadt(place(dsdt()))));
  const extended = options.root === "xsdt";
  const width = extended ? 8 : 4;
  const body = Buffer.alloc(width * entries.length);
  entries.forEach((entry, i) => {
    body.writeUInt32LE(entry, i * width);
  });
  const root = place(table(extended ? "XSDT" : "RSDT", body));
  return { pointer: rootPointer(root, extended), tables: Buffer.concat(placed) };
}
