// What the VM asks of the host's side of a network card. One file per kind of backend implements
// it.

/** A file for the artefacts of a failed test. */
export interface Artifact {
  readonly name: string;
  readonly content: string | Uint8Array;
}

export interface Backend {
  /** For messages: `stream`, `tap`, … */
  readonly name: string;
  /** Why this machine cannot run it, in one sentence, or undefined when it can. */
  available(): Promise<string | undefined>;
  /** Makes ready everything QEMU expects to find; called once, before QEMU starts. */
  start(): Promise<void>;
  /** QEMU's arguments that make the netdev `id`, with everything the netdev needs. */
  netdev(id: string): readonly string[];
  /** Properties the device must have with this backend; the caller's own take precedence. */
  readonly deviceOptions?: DeviceOptions;
  /** Words to put before QEMU's path, to start it elsewhere (a namespace, a set of CPUs). */
  readonly wrapper?: readonly string[];
  /** True when the backend reads the guest's memory from another process. */
  readonly sharedMemory?: boolean;
  /** Lines that QEMU writes on its standard error because of this backend. */
  readonly stderrAllowed?: readonly RegExp[];
  /** Undoes `start`; called once, after QEMU has ended. Harmless when `start` failed. */
  stop(): Promise<void>;
  /** What a reader of a failed test wants to see of this backend. */
  artifacts(): readonly Artifact[];
}

/** Properties of a QEMU device, as on its command line; booleans are written `on` and `off`. */
export type DeviceOptions = Readonly<Record<string, string | number | boolean>>;

/** `,key=value` for each property. */
export function formatOptions(options: DeviceOptions): string {
  return Object.entries(options)
    .map(([key, value]) => `,${key}=${typeof value === "boolean" ? (value ? "on" : "off") : value}`)
    .join("");
}
