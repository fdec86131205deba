// What the integration tests share: a guest that echoes on a stream backend, and loads of numbered
// echo frames.

import {
  type DeviceOptions,
  type FramePort,
  HarnessError,
  Peer,
  type ReadyEvent,
  type StreamBackend,
  stream,
  type TestContext,
  udpFrame,
  type Vm,
  type VmOptions,
} from "qemu-test-harness";

export const GUEST_IP = "192.0.2.2";
/** Without IPv6, which speaks unasked: most tests count frames. */
export const STATIC_ADDRESS = `ip=${GUEST_IP}/24 ip6=off`;
export const ECHO_PORT = 7;
export const DISCARD_PORT = 9;
/** Ethernet (14), IPv4 (20) and UDP (8) headers. */
export const UDP_OVERHEAD_BYTES = 42;

const LOAD_PORT = 30_000;
const STALL_MS = 10_000;

export interface EchoGuest {
  readonly vm: Vm;
  readonly net: StreamBackend;
  readonly peer: Peer;
  readonly ready: ReadyEvent;
}

/** Boots a guest with a static address on a stream backend and waits until it is ready. */
export async function bootEcho(
  t: TestContext,
  options: Omit<VmOptions, "nics"> & { device?: DeviceOptions } = {},
): Promise<EchoGuest> {
  const { device = {}, append = STATIC_ADDRESS, ...rest } = options;
  const net = stream();
  const vm = await t.vm({ ...rest, append, nics: [{ backend: net, options: device }] });
  const ready = await vm.waitFor("ready", { timeoutMs: 30_000 });
  return { vm, net, peer: new Peer(net), ready };
}

export interface EchoLoad {
  /** Datagrams to send, each with its number in the first four bytes. */
  readonly count: number;
  /** Frames on their way at a time. */
  readonly window: number;
  /** Bytes of the frame with this number, without FCS. */
  readonly frameBytes: (number: number) => number;
}

/** The payload of datagram `number`: its number, then bytes that depend on number and position. */
function payloadOf(number: number, length: number): Buffer {
  const payload = Buffer.alloc(length, (number * 31 + length) & 0xff);
  payload.writeUInt32BE(number);
  if (length > 4) payload.writeUInt8(number & 0xff, length - 1);
  return payload;
}

/**
 * Sends a load to the echo port and resolves when all of it has come back unchanged, each datagram
 * once.
 */
export async function echoLoad(
  { net, peer, vm }: Omit<EchoGuest, "net"> & { readonly net: FramePort },
  load: EchoLoad,
): Promise<void> {
  const route = await peer.route(GUEST_IP);
  const back = new Uint8Array(load.count);
  let returned = 0;
  let wrong: string | undefined;
  let wake: () => void = () => undefined;
  peer.onUdp(LOAD_PORT, ({ udp }) => {
    const number = udp.payload.readUInt32BE(0);
    const wanted = load.frameBytes(number) - UDP_OVERHEAD_BYTES;
    if (back[number] !== 0) wrong ??= `datagram ${number} came back twice or was never sent`;
    if (!udp.payload.equals(payloadOf(number, wanted))) wrong ??= `datagram ${number} has changed`;
    back[number] = 1;
    returned++;
    wake();
  });
  const progress = () =>
    new Promise<void>((resolve, reject) => {
      const fail = () => {
        const lost = back.indexOf(0);
        reject(
          new HarnessError(`${returned}/${load.count} came back; ${lost} lacks; ${vm.tail()}`),
        );
      };
      const timer = setTimeout(fail, STALL_MS);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  for (let number = 0; number < load.count; number++) {
    while (number - returned >= load.window) await progress();
    if (wrong !== undefined) throw new HarnessError(wrong);
    const payload = payloadOf(number, load.frameBytes(number) - UDP_OVERHEAD_BYTES);
    const fields = { sourcePort: LOAD_PORT, destinationPort: ECHO_PORT, payload };
    await net.send(udpFrame(route, fields));
  }
  while (returned < load.count) await progress();
  if (wrong !== undefined) throw new HarnessError(wrong);
  if (peer.malformed.length > 0) throw new HarnessError(`malformed: ${peer.malformed[0]}`);
}
