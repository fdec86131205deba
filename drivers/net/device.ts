/**
 * A virtio network device: bring-up in the order of the specification, its configuration, changes
 * of it, and recovery. Made and driven by kernel/main.ts on CPU 0. virtio 1.4 §3.1, §5.1
 */
import * as machine from "../../kernel/machine";
import * as events from "../../kernel/events";
import * as arena from "../../kernel/memory/arena";
import { NO_VECTOR, allocateVector, messageAddress } from "../../kernel/interrupts";
import { deadlineIn } from "../../kernel/time";
import { PciFunction } from "../pci/function";
import * as features from "../virtio/features";
import { RingOptions } from "../virtio/ring";
import * as status from "../virtio/status";
import { NO_MSIX_VECTOR, VirtioPci } from "../virtio/transport";
import { NetConfig } from "./net-config";
import { Link } from "./link";
import { ETHERNET_BYTES } from "./packet";
import { PairRings, PairSetup } from "./pair-setup";
import { QueuePair, packetsFor } from "./queue-pair";
import { ControlQueue, ControlState } from "./control-queue";
import { Settings } from "./settings";
import * as commands from "./commands";
import * as report from "./device-report";

/** PCI vendor, and device ids of a modern and of a transitional network device. §4.1.2 */
const VENDOR: u32 = 0x1af4;
const DEVICE_MODERN: u32 = 0x1041;
const DEVICE_TRANSITIONAL: u32 = 0x1000;

/** Ring sizes: what we use at most, and below what it makes no sense. */
const RING_SIZE_MAX: u32 = 1024;
export const RING_SIZE_MIN: u32 = 2;

/** A VLAN tag, which an MTU does not count, nor the Ethernet header. */
const VLAN_BYTES: u32 = 4;
/** virtio 1.4 §5.1.9.3.1: without MRG_RXBUF a buffer holds at least 1526 bytes, header included. */
const FRAME_BYTES_MIN: u32 = 1514;
/** With MRG_RXBUF longer frames are spread over buffers of about a page. */
const MERGE_BYTES: u32 = 4096;
/** Without it, but with large receives: 65,601 bytes with the header. virtio 1.4 §5.1.9.3.1 */
const LARGE_BYTES: u32 = 65589;

/** Memory kept free for what is allocated after the pairs. */
export const RESERVE_BYTES: u32 = 256 << 10;

const QUEUE_INDEX_MAX: u32 = 0xffff;

/** How often a device without MSI-X is asked whether its configuration has changed. */
const CONFIG_US: u64 = 10000;

/** The MSI-X entry of configuration changes; pair i has entries 1 + 2 i and 2 + 2 i. */
const CONFIG_ENTRY: u32 = 0;

/** Whether a PCI function is one of our devices. The revision does not matter. */
export function isNetDevice(pci: PciFunction): bool {
  return pci.vendor == VENDOR && (pci.device == DEVICE_MODERN || pci.device == DEVICE_TRANSITIONAL);
}

export class NetDevice {
  readonly link: Link;
  readonly transport: VirtioPci;
  readonly config: NetConfig;
  /** Feature bits accepted, 0 to 63. */
  accepted: u64 = 0;
  /** Null without CTRL_VQ. */
  control: ControlQueue | null = null;
  /** What it was told there. */
  readonly settings: Settings = new Settings();
  /** The rings' sizes and the rest that all pairs have in common; valid after `negotiate`. */
  readonly setup: PairSetup = new PairSetup();
  /** Features that the other NIC of app=forward does not let us accept. */
  withheld: u64 = 0;
  /** How many devices the memory that is left is for, this one included. */
  shares: u32 = 1;
  private readonly controlOptions: RingOptions = new RingOptions();
  private offered: u64 = 0;
  private leftOut: u64;
  private mustPack: bool;
  private polling: bool;
  private apicId: u32;
  private printed: bool = false;
  private configVector: u32 = NO_VECTOR;
  private configInterrupts: u32 = 0;
  private nextLook: u64 = 0;

  /**
   * `leftOut`: features not to accept. `mustPack`: it is an error if rings cannot be packed.
   * `polling`: queue interrupts are never wanted.
   */
  constructor(
    index: u32,
    pci: PciFunction,
    leftOut: u64,
    mustPack: bool,
    polling: bool,
    apicId: u32,
  ) {
    const link = new Link(index);
    const transport = new VirtioPci(pci);
    this.link = link;
    this.transport = transport;
    this.config = new NetConfig(transport, link);
    this.leftOut = leftOut;
    this.mustPack = mustPack;
    this.polling = polling;
    this.apicId = apicId;
  }

  /** Queue pairs that can be used at most. */
  get pairsMax(): u32 {
    // Without a vector of its own a queue of another CPU could not wake it.
    const entries = this.transport.msix.entries;
    const vectors = this.polling ? u32.MAX_VALUE : entries > 2 ? (entries - 1) / 2 : 1;
    return min(this.config.pairsMax, vectors);
  }

  /** What would be accepted; leaves the device as after a reset. 0 if it does not answer. */
  acceptable(): u64 {
    const transport = this.transport;
    if (transport.problem != null || !transport.reset()) return 0;
    transport.addStatus(status.ACKNOWLEDGE);
    transport.addStatus(status.DRIVER);
    const acceptable = features.choose(transport.offered(0), this.leftOut);
    transport.reset();
    return acceptable;
  }

  /** Another device was plugged in, in the place of the one before; `begin` comes next. */
  replace(): void {
    this.transport.findAgain();
    this.printed = false;
  }

  // The bring-up of virtio 1.4 §3.1.1, in its order: begin, then a pair after the other, then
  // finish. Each answers what went wrong, or null; then the device has been marked as failed.

  /** From reset to FEATURES_OK, configuration read, interrupts ready. */
  begin(): string | null {
    const transport = this.transport;
    const problem = transport.problem;
    if (problem != null) return problem;
    if (!transport.reset()) return "the device does not finish its reset";
    transport.addStatus(status.ACKNOWLEDGE);
    transport.addStatus(status.DRIVER);
    const refused = this.negotiate();
    if (refused != null) return this.fail(refused);
    if (!this.config.read(this.accepted)) {
      return this.fail("the configuration does not come to rest");
    }
    const unusable = this.choosePairs();
    if (unusable != null) return this.fail(unusable);
    return this.enableInterrupts();
  }

  /**
   * Tells the device where the rings of pair `index` are, and leads its interrupts to its owner.
   */
  enablePair(index: u32, setup: PairSetup, rings: PairRings, apicId: u32): string | null {
    const transport = this.transport;
    const rxMax = transport.queueSizeMax(setup.rxQueue);
    const txMax = transport.queueSizeMax(setup.txQueue);
    if (rxMax < setup.rxSize || txMax < setup.txSize) {
      return this.fail("the device's queues have become smaller");
    }
    if (!this.findNotify(setup)) return this.fail("a notification register lies outside its BAR");
    if (!this.bindPair(index, rings, apicId)) {
      return this.fail("the device has no room for its interrupt vectors");
    }
    const rx = setup.rxQueue;
    const tx = setup.txQueue;
    transport.enableQueue(rx, setup.rxSize, rings.rxDesc, rings.rxDriver, rings.rxDevice);
    transport.enableQueue(tx, setup.txSize, rings.txDesc, rings.txDriver, rings.txDevice);
    return null;
  }

  /** Fills in where to notify the two queues that `setup` names. */
  findNotify(setup: PairSetup): bool {
    const transport = this.transport;
    const bytes = this.notifyBytes;
    const rx = transport.notifyAddress(setup.rxQueue, bytes);
    const tx = transport.notifyAddress(setup.txQueue, bytes);
    const named = features.has(this.accepted, features.NOTIF_CONFIG_DATA);
    setup.rxNotify = rx - 1;
    setup.txNotify = tx - 1;
    setup.rxNotifyName = transport.notifyName(setup.rxQueue, named);
    setup.txNotifyName = transport.notifyName(setup.txQueue, named);
    return rx != 0 && tx != 0;
  }

  /** virtio 1.4 §4.1.5.2.1: the width of a notification. */
  private get notifyBytes(): u32 {
    return features.has(this.accepted, features.NOTIFICATION_DATA) ? 4 : 2;
  }

  /** Sets the control queue up, then DRIVER_OK, then tells how many pairs there are. */
  finish(pairs: u32): string | null {
    const problem = this.enableControl();
    if (problem != null) return this.fail(problem);
    this.transport.addStatus(status.DRIVER_OK);
    const control = this.control;
    if (control == null) return null;
    if (!this.steer(control, pairs)) {
      return this.fail("the device does not take the number of queue pairs");
    }
    if (!this.configureHash(control)) return this.fail("the device does not answer a command");
    if (!this.tellAddress(control) || !this.settings.restore(control, 2 * pairs, this.accepted)) {
      return this.fail("the device does not answer a command");
    }
    return null;
  }

  /** Has the device use its first `pairs` pairs, by hash if it can. False if it does not. */
  private steer(control: ControlQueue, pairs: u32): bool {
    const rss = this.settings.rss;
    const hasMq = features.has(this.accepted, features.MQ);
    if (features.has(this.accepted, features.RSS)) {
      if (!rss.known) rss.useDefaults(this.config);
      if (rss.pairs != pairs) rss.spread(pairs);
      if (rss.enabled || !hasMq) {
        rss.send(control);
        const state = control.wait();
        if (state != ControlState.Refused) return state == ControlState.Done;
        events.warning("the device does not take the parameters of rss");
        rss.enabled = false;
      }
    }
    if (pairs < 2) return true;
    // virtio 1.4 §5.1.9.5.6.1: further queues are used only when the device has said yes.
    return hasMq && commands.setPairs(control, pairs) && control.wait() == ControlState.Done;
  }

  /** virtio 1.4 §5.1.9.5.6.4: with RSS on, its types are reported; else those of a command. */
  private configureHash(control: ControlQueue): bool {
    if (!this.reportsHash) return true;
    const hash = this.settings.hash;
    if (!hash.known) hash.useDefaults(this.config);
    if (this.settings.rss.enabled) return true;
    hash.sendHash(control);
    const state = control.wait();
    if (state == ControlState.Refused) {
      events.warning("the device does not take the types of hashes");
    }
    return state != ControlState.Failed;
  }

  get reportsHash(): bool {
    return features.has(this.accepted, features.HASH_REPORT);
  }

  /**
   * virtio 1.4 §5.1.9.5.2.2: an address that is not the one in mac is told to the device. False if it
   * does not answer.
   */
  private tellAddress(control: ControlQueue): bool {
    if (!this.isAddressUnknown()) return true;
    commands.setMac(control, this.link.mac);
    const state = control.wait();
    if (state == ControlState.Refused) {
      events.warning("the device does not take the address that was made up");
    }
    return state != ControlState.Failed;
  }

  private isAddressUnknown(): bool {
    return (
      !features.has(this.accepted, features.MAC) &&
      features.has(this.accepted, features.CTRL_RX) &&
      features.has(this.accepted, features.CTRL_MAC_ADDR)
    );
  }

  /** Marks the device as given up on. virtio 1.4 §3.1.1 */
  fail(problem: string): string {
    this.transport.addStatus(status.FAILED);
    return problem;
  }

  // ---- features ---------------------------------------------------------------------------------

  private negotiate(): string | null {
    const transport = this.transport;
    this.offered = transport.offered(0);
    if (!this.printed) {
      report.printDevice(this.link.index, transport.pci, this.offered, transport.offered(1));
    }
    let accepted = features.choose(this.offered, this.leftOut | this.withheld);
    if (!transport.hasNotifyNames) accepted &= ~((<u64>1) << features.NOTIF_CONFIG_DATA);
    // Memory is given out once, for one format of the rings.
    const hasRings = this.setup.rxSize != 0;
    if (hasRings && this.setup.packed == 0) accepted &= ~((<u64>1) << features.RING_PACKED);
    // virtio 1.4 §3.1.1 lets us read, not write, the configuration before we decide.
    const mtuUsable = !features.has(accepted, features.MTU) || this.config.isMtuUsable();
    if (!mtuUsable) accepted &= ~((<u64>1) << features.MTU);
    if (!transport.hasQueueReset) accepted &= ~((<u64>1) << features.RING_RESET);
    if (!this.printed) {
      const declined = this.offered & ~accepted;
      const index = this.link.index;
      const high = transport.offered(1);
      const leftOut = this.leftOut;
      report.printFeatures(index, accepted, declined, high, leftOut, this.withheld, mtuUsable);
    }
    this.printed = true;
    // virtio 1.4 §6.1: VERSION_1 must be accepted; without it this is a legacy device.
    if (!features.has(accepted, features.VERSION_1)) {
      return features.has(this.offered, features.VERSION_1)
        ? "version_1 was left out, and the driver cannot work without it"
        : "the device does not offer version_1: it is legacy only";
    }
    if (!features.has(accepted, features.RING_PACKED)) {
      if (this.mustPack) return "ring=packed, but the device's rings cannot be packed";
      if (hasRings && this.setup.packed != 0) return "the device no longer has packed rings";
    }
    transport.accept(accepted);
    transport.addStatus(status.FEATURES_OK);
    if (!(transport.status() & status.FEATURES_OK)) return "the device refuses the features";
    this.accepted = accepted;
    return null;
  }

  // ---- queues and interrupts --------------------------------------------------------------------

  /** What all pairs have in common; sizes the first time only, for memory is given out once. */
  private choosePairs(): string | null {
    const setup = this.setup;
    setup.packed = features.has(this.accepted, features.RING_PACKED) ? 1 : 0;
    setup.inOrder = features.has(this.accepted, features.IN_ORDER) ? 1 : 0;
    const withData = features.has(this.accepted, features.NOTIFICATION_DATA);
    setup.notificationData = withData ? 1 : 0;
    setup.eventIdx = features.has(this.accepted, features.EVENT_IDX) ? 1 : 0;
    setup.indirect = features.has(this.accepted, features.INDIRECT_DESC) ? 1 : 0;
    setup.mergeable = features.has(this.accepted, features.MRG_RXBUF) ? 1 : 0;
    setup.polling = this.polling || this.transport.msix.entries == 0 ? 1 : 0;
    setup.mtu = this.link.mtu;
    setup.featuresLow = <u32>this.accepted;
    setup.featuresHigh = <u32>(this.accepted >> 32);
    const frameMax = max(this.link.mtu + ETHERNET_BYTES + VLAN_BYTES, FRAME_BYTES_MIN);
    const frameBytes = this.bufferBytes(frameMax);
    if (setup.rxSize != 0) {
      return frameBytes <= setup.frameBytes ? null : "the device now needs larger receive buffers";
    }
    setup.rxSize = ringSize(this.transport.queueSizeMax(0), setup.packed != 0);
    setup.txSize = ringSize(this.transport.queueSizeMax(1), setup.packed != 0);
    if (setup.rxSize < RING_SIZE_MIN || setup.txSize < RING_SIZE_MIN) {
      return "the device's queue sizes are unusable";
    }
    setup.frameBytes = frameBytes;
    const share = <u32>arena.available() / this.shares;
    while (QueuePair.bytes(setup) + RESERVE_BYTES > share) {
      if (setup.rxSize == RING_SIZE_MIN && setup.txSize == RING_SIZE_MIN) {
        return "too little memory for the device's queues";
      }
      setup.rxSize = max(setup.rxSize >> 1, RING_SIZE_MIN);
      setup.txSize = max(setup.txSize >> 1, RING_SIZE_MIN);
    }
    setup.packets = packetsFor(setup);
    return null;
  }

  /** virtio 1.4 §5.1.9.3.1: what a buffer has to hold, by what was negotiated. */
  private bufferBytes(frameMax: u32): u32 {
    const large = (this.accepted & features.GUEST_GSO) != 0;
    if (features.has(this.accepted, features.MRG_RXBUF)) {
      return large || frameMax > MERGE_BYTES ? MERGE_BYTES : frameMax;
    }
    return large ? max(frameMax, LARGE_BYTES) : frameMax;
  }

  private enableInterrupts(): string | null {
    const msix = this.transport.msix;
    if (msix.entries == 0) {
      if (this.configVector == NO_VECTOR) {
        events.warning("the device has no MSI-X: polling it every ms");
      }
      return null;
    }
    if (this.configVector == NO_VECTOR) this.configVector = allocateVector();
    msix.enable();
    msix.set(CONFIG_ENTRY, messageAddress(this.apicId), this.configVector);
    if (this.transport.setConfigVector(CONFIG_ENTRY)) return null;
    return this.fail("the device has no room for its interrupt vectors");
  }

  /**
   * Leads the interrupts of a pair to its owner: an entry a queue, or one for both where the table
   * is short. virtio 1.4 §4.1.5.1.2.2: no entry beyond the table.
   */
  private bindPair(index: u32, rings: PairRings, apicId: u32): bool {
    const transport = this.transport;
    const msix = transport.msix;
    if (msix.entries == 0) return true;
    let rxEntry = NO_MSIX_VECTOR;
    let txEntry = NO_MSIX_VECTOR;
    if (rings.rxVector != NO_VECTOR) {
      rxEntry = min(1 + 2 * index, msix.entries - 1);
      txEntry = min(2 + 2 * index, msix.entries - 1);
      const address = messageAddress(apicId);
      if (txEntry != rxEntry) msix.set(txEntry, address, rings.txVector);
      if (rxEntry != CONFIG_ENTRY) msix.set(rxEntry, address, rings.rxVector);
    }
    return (
      transport.setQueueVector(2 * index, rxEntry) &&
      transport.setQueueVector(2 * index + 1, txEntry)
    );
  }

  /** The control queue comes after the queues of all pairs that the device has. §5.1.2 */
  private enableControl(): string | null {
    if (!features.has(this.accepted, features.CTRL_VQ)) return null;
    const transport = this.transport;
    const index: u32 = 2 * this.config.pairsMax;
    // The register that selects a queue has 16 bits: the index of the most pairs does not fit in.
    if (index > QUEUE_INDEX_MAX) return "the device's control queue is beyond all queue numbers";
    const packed = this.setup.packed != 0;
    const sizeMax = ringSize(transport.queueSizeMax(index), packed);
    let control = this.control;
    if (control == null) {
      if (sizeMax < RING_SIZE_MIN) return "the device's control queue is unusable";
      control = new ControlQueue(packed, sizeMax);
      this.control = control;
    }
    const ring = control.ring;
    const notify = transport.notifyAddress(index, this.notifyBytes);
    if (notify == 0 || sizeMax < ring.size) return "the device's control queue is unusable";
    const named = features.has(this.accepted, features.NOTIF_CONFIG_DATA);
    control.doorbell.address = notify - 1;
    control.doorbell.reset(transport.notifyName(index, named), this.setup.notificationData != 0);
    const options = this.controlOptions;
    options.eventIdx = this.setup.eventIdx != 0;
    options.inOrder = this.setup.inOrder != 0;
    control.renew(options);
    const vector = transport.msix.entries == 0 ? NO_MSIX_VECTOR : CONFIG_ENTRY;
    if (!transport.setQueueVector(index, vector)) return "the control queue gets no vector";
    const device = ring.deviceAddress();
    transport.enableQueue(index, ring.size, ring.descAddress(), ring.driverAddress(), device);
    return null;
  }

  // ---- while it runs ----------------------------------------------------------------------------

  /** Whether a configuration change was announced since the last call. */
  hasConfigInterrupt(): bool {
    if (this.configVector == NO_VECTOR) return this.hasChanged();
    const count = machine.interruptCount(this.configVector);
    if (count == this.configInterrupts) return false;
    this.configInterrupts = count;
    return true;
  }

  /** Without interrupts there is only looking, every CONFIG_US. */
  private hasChanged(): bool {
    const now = machine.tsc();
    if (now < this.nextLook) return false;
    this.nextLook = deadlineIn(CONFIG_US);
    return true;
  }

  /** Whether the device asks for its reset. virtio 1.4 §2.1.1 */
  needsReset(): bool {
    return (this.transport.status() & status.DEVICE_NEEDS_RESET) != 0;
  }

  /** Reads the configuration again; the link and `config.announce` are as the device says. */
  refresh(): void {
    const link = this.link;
    const wasUp = link.linkUp;
    const speed = link.speed;
    const duplex = link.duplex;
    this.config.read(this.accepted);
    if (link.linkUp == wasUp && link.speed == speed && link.duplex == duplex) return;
    report.printLink(link, this.accepted);
  }
}

/** The largest size up to what the device offers and what we want; 0 for none. */
function ringSize(offered: u32, packed: bool): u32 {
  if (packed || offered == 0) return min(offered, RING_SIZE_MAX);
  // virtio 1.4 §4.1.4.3.2: only powers of two for split rings.
  return min((<u32>1) << (31 - clz(offered)), RING_SIZE_MAX);
}
