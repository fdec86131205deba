/**
 * A virtio network device: bring-up in the order of the specification, its configuration, changes
 * of it, and recovery. Made and driven by kernel/main.ts on CPU 0. virtio 1.4 §3.1, §5.1
 */
import * as machine from "../../kernel/machine";
import * as events from "../../kernel/events";
import * as arena from "../../kernel/memory/arena";
import { NO_VECTOR, allocateVector, messageAddress } from "../../kernel/interrupts";
import { PciFunction } from "../pci/function";
import * as features from "../virtio/features";
import * as status from "../virtio/status";
import { NO_MSIX_VECTOR, VirtioPci } from "../virtio/transport";
import { NetConfig } from "./net-config";
import { QueuePair } from "./queue-pair";

/** PCI vendor, and device ids of a modern and of a transitional network device. §4.1.2 */
const VENDOR: u32 = 0x1af4;
const DEVICE_MODERN: u32 = 0x1041;
const DEVICE_TRANSITIONAL: u32 = 0x1000;

const RX_QUEUE: u32 = 0;
const TX_QUEUE: u32 = 1;

/** Ring sizes: what we use at most, and below what it makes no sense. Powers of two. */
const RING_SIZE_MAX: u32 = 1024;
const RING_SIZE_MIN: u32 = 2;

/** Ethernet header, and a VLAN tag, around an MTU. */
const ETHERNET_BYTES: u32 = 14;
const VLAN_BYTES: u32 = 4;
/** virtio 1.4 §5.1.9.3.1: without MRG_RXBUF a buffer holds at least 1526 bytes, header included. */
const FRAME_BYTES_MIN: u32 = 1514;
/** With MRG_RXBUF longer frames are spread over buffers of about a page. */
const MERGE_BYTES: u32 = 4096;

/** Memory kept free for what main.ts allocates after the device. */
const RESERVE_BYTES: u32 = 256 << 10;

/** Recoveries in one run; a device that needs more is given up on. */
const RECOVERIES_MAX: u32 = 1000;

/** Whether a PCI function is one of our devices. The revision does not matter. */
export function isNetDevice(pci: PciFunction): bool {
  return pci.vendor == VENDOR && (pci.device == DEVICE_MODERN || pci.device == DEVICE_TRANSITIONAL);
}

export class NetDevice {
  readonly index: u32;
  readonly transport: VirtioPci;
  readonly config: NetConfig;
  /** Feature bits accepted, 0 to 63. */
  accepted: u64 = 0;
  /** Valid after `bringUp`. */
  pair: QueuePair | null = null;
  recoveries: u32 = 0;
  private offered: u64 = 0;
  private leftOut: u64;
  private polling: bool;
  private apicId: u32;
  private configVector: u32 = 0;
  private configInterrupts: u32 = 0;

  /** `leftOut`: features not to accept. `polling`: queue interrupts are never wanted. */
  constructor(index: u32, pci: PciFunction, leftOut: u64, polling: bool, apicId: u32) {
    this.index = index;
    const transport = new VirtioPci(pci);
    this.transport = transport;
    this.config = new NetConfig(transport);
    this.leftOut = leftOut;
    this.polling = polling;
    this.apicId = apicId;
  }

  get mac(): usize {
    return this.config.mac;
  }

  get mtu(): u32 {
    return this.config.mtu;
  }

  get linkUp(): bool {
    return this.config.linkUp;
  }

  /**
   * Takes the device from reset to DRIVER_OK, at boot and after every reset. Answers what went
   * wrong, or null. Events are emitted the first time only.
   */
  bringUp(): string | null {
    const transport = this.transport;
    const problem = transport.problem;
    if (problem != null) return problem;
    // The steps of virtio 1.4 §3.1.1, in its order.
    if (!transport.reset()) return "the device does not finish its reset";
    transport.addStatus(status.ACKNOWLEDGE);
    transport.addStatus(status.DRIVER);
    const refused = this.negotiate();
    if (refused != null) return this.fail(refused);
    const unusable = this.setUp();
    if (unusable != null) return this.fail(unusable);
    transport.addStatus(status.DRIVER_OK);
    const pair = this.pair;
    if (pair != null) {
      // virtio 1.4 §3.1.1: no notification before DRIVER_OK.
      pair.rx.kick();
    }
    return null;
  }

  /** Marks the device as given up on. virtio 1.4 §3.1.1 */
  private fail(problem: string): string {
    this.transport.addStatus(status.FAILED);
    return problem;
  }

  // ---- features ----------------------------------------------------------------------------------

  private negotiate(): string | null {
    const transport = this.transport;
    this.offered = transport.offered(0);
    if (this.pair == null) this.printDevice(transport.offered(1));
    let accepted = features.choose(this.offered, this.leftOut);
    // virtio 1.4 §3.1.1 lets us read, not write, the configuration before we decide.
    const mtuUsable = !features.has(accepted, features.MTU) || this.config.isMtuUsable();
    if (!mtuUsable) accepted &= ~((<u64>1) << features.MTU);
    if (this.pair == null) this.printFeatures(accepted, transport.offered(1), mtuUsable);
    // virtio 1.4 §6.1: VERSION_1 must be accepted; without it this is a legacy device.
    if (!features.has(accepted, features.VERSION_1)) {
      return features.has(this.offered, features.VERSION_1)
        ? "version_1 was left out, and the driver cannot work without it"
        : "the device does not offer version_1: it is legacy only";
    }
    transport.accept(accepted);
    transport.addStatus(status.FEATURES_OK);
    if (!(transport.status() & status.FEATURES_OK)) return "the device refuses the features";
    this.accepted = accepted;
    return null;
  }

  private printDevice(offeredHigh: u64): void {
    const pci = this.transport.pci;
    events.begin("device");
    events.num("nic", this.index);
    events.beginText("pci");
    events.textPartHex(pci.bdf >> 8, 2);
    events.textPart(":");
    events.textPartHex((pci.bdf >> 3) & 31, 2);
    events.textPart(".");
    events.textPartNum(pci.bdf & 7);
    events.endText();
    events.hex("vendor", pci.vendor, 4);
    events.hex("device", pci.device, 4);
    events.beginArray("offered");
    for (let bit: u32 = 0; bit < 128; bit++) {
      const word = bit < 64 ? this.offered : offeredHigh;
      const name = features.featureName(bit);
      if (features.has(word, bit & 63) && name != null) events.item(name);
    }
    events.endArray();
    events.end();
  }

  private printFeatures(accepted: u64, offeredHigh: u64, mtuUsable: bool): void {
    events.begin("features");
    events.num("nic", this.index);
    events.beginArray("accepted");
    for (let bit: u32 = 0; bit < 64; bit++) {
      const name = features.featureName(bit);
      if (features.has(accepted, bit) && name != null) events.item(name);
    }
    events.endArray();
    events.beginArray("declined");
    for (let bit: u32 = 0; bit < 128; bit++) {
      const word = bit < 64 ? this.offered & ~accepted : offeredHigh;
      if (features.has(word, bit & 63)) this.printDeclined(bit, mtuUsable);
    }
    events.endArray();
    events.end();
  }

  private printDeclined(bit: u32, mtuUsable: bool): void {
    const name = features.featureName(bit);
    events.beginItem();
    if (name != null) events.text("name", name);
    else events.num("bit", bit);
    const reason =
      bit == features.MTU && !mtuUsable
        ? "the device's mtu is below 68"
        : features.declineReason(bit, this.leftOut);
    events.text("reason", reason);
    events.endItem();
  }

  // ---- queues and interrupts ---------------------------------------------------------------------

  /** Between FEATURES_OK and DRIVER_OK: configuration, interrupts, queues, buffers. */
  private setUp(): string | null {
    if (!this.config.read(this.accepted)) return "the configuration does not come to rest";
    let pair = this.pair;
    if (pair == null) {
      const rxMax = ringSize(this.transport.queueSizeMax(RX_QUEUE));
      const txMax = ringSize(this.transport.queueSizeMax(TX_QUEUE));
      if (rxMax < RING_SIZE_MIN || txMax < RING_SIZE_MIN) {
        return "the device's queue sizes are unusable";
      }
      pair = this.allocatePair(rxMax, txMax);
      if (pair == null) return "too little memory for the device's queues";
      this.pair = pair;
    }
    const problem = this.setUpInterrupts(pair);
    if (problem != null) return problem;
    return this.enableQueues(pair);
  }

  /** The largest pair that fits into memory, with rings of at most these sizes, or null. */
  private allocatePair(rxMax: u32, txMax: u32): QueuePair | null {
    const frameMax = this.config.mtu + ETHERNET_BYTES + VLAN_BYTES;
    const merge = features.has(this.accepted, features.MRG_RXBUF);
    const wanted = max(frameMax, FRAME_BYTES_MIN);
    const frameBytes = merge ? min(wanted, MERGE_BYTES) : wanted;
    let rxSize = rxMax;
    let txSize = txMax;
    while (QueuePair.bytes(rxSize, txSize, frameBytes) + RESERVE_BYTES > <u32>arena.available()) {
      if (rxSize == RING_SIZE_MIN && txSize == RING_SIZE_MIN) return null;
      rxSize = max(rxSize >> 1, RING_SIZE_MIN);
      txSize = max(txSize >> 1, RING_SIZE_MIN);
    }
    return new QueuePair(rxSize, txSize, frameBytes);
  }

  /** One message a queue and one for the configuration, or shared ones if there are too few. */
  private setUpInterrupts(pair: QueuePair): string | null {
    const msix = this.transport.msix;
    if (msix.entries == 0) {
      if (this.recoveries == 0) events.warning("the device has no MSI-X: polling it every ms");
      return null;
    }
    msix.enable();
    if (this.configVector == 0) this.configVector = allocateVector();
    if (pair.rxVector == 0 && !this.polling) {
      pair.rxVector = msix.entries >= 2 ? allocateVector() : this.configVector;
      pair.txVector = msix.entries >= 3 ? allocateVector() : pair.rxVector;
    }
    if (this.configVector == NO_VECTOR) return "there are no interrupt vectors left";
    const address = messageAddress(this.apicId);
    // virtio 1.4 §4.1.5.1.2.2: no entry beyond the table.
    msix.set(0, address, this.configVector);
    if (msix.entries >= 2) msix.set(1, address, pair.rxVector);
    if (msix.entries >= 3) msix.set(2, address, pair.txVector);
    const last = min(msix.entries - 1, 2);
    const rxEntry = this.polling ? NO_MSIX_VECTOR : min<u32>(1, last);
    const txEntry = this.polling ? NO_MSIX_VECTOR : last;
    const bound =
      this.transport.setConfigVector(0) &&
      this.transport.setQueueVector(RX_QUEUE, rxEntry) &&
      this.transport.setQueueVector(TX_QUEUE, txEntry);
    return bound ? null : "the device has no room for its interrupt vectors";
  }

  private enableQueues(pair: QueuePair): string | null {
    const transport = this.transport;
    const rxNotify = transport.notifyAddress(RX_QUEUE);
    const txNotify = transport.notifyAddress(TX_QUEUE);
    if (rxNotify == 0 || txNotify == 0) return "a notification register lies outside its BAR";
    const rx = pair.rx.ring;
    const tx = pair.tx.ring;
    if (transport.queueSizeMax(RX_QUEUE) < rx.size || transport.queueSizeMax(TX_QUEUE) < tx.size) {
      return "the device's queues have become smaller";
    }
    const eventIdx = features.has(this.accepted, features.EVENT_IDX);
    const indirect = features.has(this.accepted, features.INDIRECT_DESC);
    pair.pool.reset();
    rx.reset(eventIdx, indirect);
    tx.reset(eventIdx, indirect);
    pair.rx.reset(rxNotify - 1, RX_QUEUE, features.has(this.accepted, features.MRG_RXBUF));
    pair.tx.reset(txNotify - 1, TX_QUEUE, this.config.mtu + ETHERNET_BYTES);
    transport.enableQueue(
      RX_QUEUE,
      rx.size,
      rx.descAddress(),
      rx.driverAddress(),
      rx.deviceAddress(),
    );
    transport.enableQueue(
      TX_QUEUE,
      tx.size,
      tx.descAddress(),
      tx.driverAddress(),
      tx.deviceAddress(),
    );
    rx.disableInterrupts();
    tx.disableInterrupts();
    pair.rx.provide();
    return null;
  }

  // ---- while it runs -------------------------------------------------------------------------------

  /** Whether a configuration change was announced since the last call. */
  hasConfigInterrupt(): bool {
    if (this.configVector == 0) return false;
    const count = machine.interruptCount(this.configVector);
    if (count == this.configInterrupts) return false;
    this.configInterrupts = count;
    return true;
  }

  /** Looks at what changed: the link, or the device's plea for a reset. */
  handleConfigChange(): void {
    if (this.transport.status() & status.DEVICE_NEEDS_RESET) {
      this.recover("the device needs a reset");
      return;
    }
    const wasUp = this.config.linkUp;
    this.config.read(this.accepted);
    if (this.config.linkUp != wasUp) this.printLink();
  }

  printLink(): void {
    events.begin("link");
    events.num("nic", this.index);
    events.flag("up", this.config.linkUp);
    events.end();
  }

  /** Resets and brings up again a device that went wrong; ends the run if it will not. */
  recover(reason: string): void {
    this.recoveries++;
    events.error(reason);
    const problem =
      this.recoveries > RECOVERIES_MAX ? "the device went wrong too often" : this.bringUp();
    if (problem != null) events.fatal(problem);
  }
}

/** The largest power of two up to what the device offers and what we want; 0 for none. */
function ringSize(offered: u32): u32 {
  if (offered == 0) return 0;
  // virtio 1.4 §4.1.4.3.2: only powers of two for split rings.
  return min((<u32>1) << (31 - clz(offered)), RING_SIZE_MAX);
}
