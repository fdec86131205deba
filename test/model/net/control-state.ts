// What the driver has told a network device on its control queue, for tests to look at, and for the
// device to act by. Reset with the device. Changed by control-commands.ts. virtio 1.4 §5.1.9.5

export interface RssConfig {
  readonly hashTypes: number;
  /** Receive pairs by index; a power of two of them. */
  readonly table: readonly number[];
  readonly unclassified: number;
  readonly maxTxPairs: number;
  readonly key: Buffer;
}

export interface HashConfig {
  readonly hashTypes: number;
  readonly key: Buffer;
}

export interface Coalescing {
  readonly maxPackets: number;
  readonly maxUsecs: number;
}

const NO_COALESCING: Coalescing = { maxPackets: 0, maxUsecs: 0 };

export class ControlState {
  // virtio 1.4 §5.1.9.5.1
  promiscuous = false;
  allMulticast = false;
  allUnicast = false;
  noMulticast = false;
  noUnicast = false;
  noBroadcast = false;
  // §5.1.9.5.2: addresses as aa:bb:cc:dd:ee:ff; the device's own unless it was set.
  mac: string | undefined;
  unicast: string[] = [];
  multicast: string[] = [];
  // §5.1.9.5.3
  readonly vlans = new Set<number>();
  // §5.1.9.5.4
  announcesAcknowledged = 0;
  // §5.1.9.5.6: the pairs asked for; undefined before the first time.
  pairs: number | undefined;
  // §5.1.9.5.7, §5.1.9.5.6.4
  rss: RssConfig | undefined;
  hash: HashConfig | undefined;
  readonly rssContexts = new Map<number, RssConfig>();
  // §5.1.9.5.9: a bit for each offload that is on; undefined: those that were negotiated.
  guestOffloads: bigint | undefined;
  // §5.1.9.5.10: for all queues of a direction, and by virtqueue.
  txCoalescing = NO_COALESCING;
  rxCoalescing = NO_COALESCING;
  readonly coalescing = new Map<number, Coalescing>();
  // §5.1.9.5.8
  tunnelTypes = 0;
  // §5.1.9.5.11: commands and those that were done.
  commands = 0;
  done = 0;

  coalescingOf(queue: number): Coalescing {
    const usual = queue % 2 === 0 ? this.rxCoalescing : this.txCoalescing;
    return this.coalescing.get(queue) ?? usual;
  }

  /** Whether a frame passes the filters. `own` is the address in the configuration. */
  passes(frame: Buffer, own: string, filtersVlans: boolean): boolean {
    const isTagged = frame.readUInt16BE(12) === 0x8100;
    const isVlanKnown = !isTagged || this.vlans.has(frame.readUInt16BE(14) & 0xfff);
    if (filtersVlans && !isVlanKnown) return false;
    if (this.promiscuous) return true;
    const hex = frame.subarray(0, 6).toString("hex");
    const destination = hex.replace(/..\B/g, "$&:");
    if (hex === "ffffffffffff") return !this.noBroadcast;
    if ((frame.readUInt8(0) & 1) !== 0) {
      return !this.noMulticast && (this.allMulticast || this.multicast.includes(destination));
    }
    if (this.noUnicast) return false;
    return (
      this.allUnicast || destination === (this.mac ?? own) || this.unicast.includes(destination)
    );
  }
}
