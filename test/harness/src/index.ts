// The package's public interface: what a test file imports from 'qemu-test-harness'.

export * as assert from "uvu/assert";
export { type Choice, chooseAccelerator } from "./accelerator";
export type { Artifact, Backend, DeviceOptions } from "./backends/backend";
export { DgramBackend, dgram } from "./backends/dgram";
export { FaultyStreamBackend, faultyStream } from "./backends/faulty-stream";
export { FramePort } from "./backends/frame-port";
export { OvsPort, type OvsPortOptions } from "./backends/ovs-port";
export {
  type Datapath,
  OUTSIDE,
  type OvsCounters,
  type OvsOptions,
  OvsSwitch,
  ovs,
  TRUNK,
} from "./backends/ovs-switch";
export { StreamBackend, stream } from "./backends/stream";
export { TAP_NAME, TapBackend, type TapOptions, tap } from "./backends/tap";
export { TapPair, type TapPairOptions, TapSide, tapPair } from "./backends/tap-pair";
export type { PortStats } from "./backends/testpmd";
export { freeUdpPort, UserBackend, type UserOptions, user } from "./backends/user";
export { VhostNetBackend, type VhostWorker, vhostNet } from "./backends/vhost-net";
export { VhostUserBackend, type VhostUserOptions, vhostUser } from "./backends/vhost-user";
export {
  USUAL_FEATURES,
  VhostUserDevice,
  type VhostUserDeviceOptions,
  vhostUserDevice,
} from "./backends/vhost-user-device";
export type { GuestMemory } from "./backends/vhost-user-device-memory";
export { type DeviceFeature, GSO, type NetHeaderFields } from "./backends/vhost-user-device-net";
export { F_AVAIL, F_USED, PackedDeviceRing } from "./backends/vhost-user-device-packed";
export type { DeviceQueue } from "./backends/vhost-user-device-queue";
export {
  type Area,
  type Chain,
  DESC_BYTES,
  type DeviceRing,
} from "./backends/vhost-user-device-ring";
export { SplitDeviceRing } from "./backends/vhost-user-device-split";
export * from "./codec/index";
export { delay, Inbox, withDeadline } from "./deadline";
export { DhcpServer, type DhcpServerOptions } from "./dhcp-server";
export * from "./errors";
export type { WaitOptions } from "./event-log";
export * from "./events";
export {
  type FaultCounts,
  FaultLine,
  type FaultRates,
  type LineFrame,
  REORDER_FRAMES,
} from "./fault-line";
export type { LabImage } from "./lab/image";
export { inLab, prepareLab, runInLab } from "./lab/lab";
export {
  type DomainInterface,
  type DomainInterfaceOptions,
  type DomainOptions,
  domainXml,
  interfaceXml,
} from "./libvirt/domain-xml";
export { LibvirtDomain, LibvirtHost, type LibvirtOptions, libvirt } from "./libvirt/host";
export { lineSplitter } from "./lines";
export { type CapturedFrame, Recording, readPcap, writePcap } from "./pcap";
export { Peer, type PeerOptions, type ReceivedEcho, type ReceivedUdp } from "./peer";
export {
  type CommandResult,
  ManagedProcess,
  mustRun,
  runCommand,
  startProcess,
} from "./processes";
export { findQemu, type Qemu } from "./qemu";
export { Qmp, type QmpEvent } from "./qmp";
export { Random } from "./random";
export { exitOnSignals } from "./run-scope";
export { TestContext } from "./runner/context";
export type { Requirement } from "./runner/requirements";
export { type Handler, type Suite, type SuiteOptions, suite } from "./runner/suite";
export { type Failed, type Finished, Vm } from "./vm";
export {
  type Accelerator,
  commandLine,
  defaultImage,
  MACHINES,
  type Machine,
  type NicOptions,
  printable,
  type VmOptions,
} from "./vm-options";
