// Attacks by what a vhost-user device says of received frames: used lengths, net headers, num_buffers.
// Part of the list in hostile-backend-attacks.ts.

import { GSO, type NetHeaderFields } from "qemu-test-harness";
import { type BackendAttack, takeOne } from "./hostile-backend-attack";
import { ringOf, type Scene } from "./hostile-backend-scene";

const HEADER_BYTES = 12;
/** A datagram that takes several buffers. */
const LARGE_BYTES = 8900;

/** Gives one buffer back with a length of its own. */
function giveWith(scene: Scene, pair: number, bytes: (room: number) => number): void {
  const queue = scene.rx(pair);
  const ring = ringOf(queue);
  const chain = takeOne(scene, pair);
  scene.oracle.show(chain);
  const room = chain.segments.reduce((sum, segment) => sum + segment.bytes, 0);
  for (const { address } of chain.segments) {
    // A header that says 1 buffer, so that it is the length that is judged.
    scene.net.memory.write(address, Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
  }
  ring.give(chain, bytes(room));
  queue.flush(ring);
}

const LENGTHS: readonly BackendAttack[] = (
  [
    ["0", () => 0, "used_length"],
    ["a byte less than the header", () => HEADER_BYTES - 1, "used_length"],
    ["the header alone", () => HEADER_BYTES, "any"],
    ["a byte more than the buffer", (room: number) => room + 1, "used_length"],
    ["2 GiB", () => 0x8000_0000, "used_length"],
    ["all bits set", () => 0xffff_ffff, "used_length"],
  ] as const
).map(([what, bytes, drop]) => ({
  name: `§5.1.9.4: a used length is ${what}`,
  ...{ queue: "receive" as const, drop },
  run: (scene: Scene, pair: number) => giveWith(scene, pair, bytes),
}));

function lyingHeader(name: string, header: NetHeaderFields, drop?: string): BackendAttack {
  return {
    name,
    queue: "receive",
    ...(drop === undefined ? {} : { drop }),
    run: (scene, pair) => scene.net.sendWith(scene.datagram("header"), header, pair),
  };
}

const PARTIAL = { flags: 1, csumStart: 34, csumOffset: 6, hdrLen: 42 };
const HEADERS: readonly BackendAttack[] = [
  lyingHeader("§5.1.9.4.2: csum_start far outside", { ...PARTIAL, csumStart: 0xffff }, "offload"),
  lyingHeader("§5.1.9.4.2: csum_offset far outside", { ...PARTIAL, csumOffset: 0xffff }, "offload"),
  lyingHeader(
    "§5.1.9.4.2: the sum of csum_start and csum_offset wraps",
    { ...PARTIAL, csumStart: 0xffff, csumOffset: 3 },
    "offload",
  ),
  lyingHeader(
    "§5.1.9.4.2: the checksum's last byte outside",
    { ...PARTIAL, csumStart: 53 },
    "offload",
  ),
  lyingHeader("§5.1.9.4.2: a partial checksum within the addresses", { ...PARTIAL, csumStart: 2 }),
  lyingHeader("§5.1.9.4.2: hdr_len far outside", { ...PARTIAL, hdrLen: 0xffff }),
  lyingHeader("§5.1.9.4.1: gso_type without a partial checksum", { gsoType: GSO.TCPV4 }, "offload"),
  lyingHeader(
    "§5.1.9.4.1: a gso_type that was not negotiated",
    { ...PARTIAL, gsoType: GSO.UDP_L4 },
    "offload",
  ),
  lyingHeader("§5.1.9.4.1: a gso_type that there is not", { ...PARTIAL, gsoType: 0x7f }, "offload"),
  lyingHeader("§5.1.9.4.1: gso_size 0 for a datagram", {
    ...{ ...PARTIAL, gsoType: GSO.TCPV4, gsoSize: 0 },
  }),
  lyingHeader("§5.1.9.4.1: gso_size beyond everything", {
    ...{ ...PARTIAL, gsoType: GSO.TCPV6, gsoSize: 0xffff },
  }),
  lyingHeader("§5.1.9.4.1: num_buffers is 0", { numBuffers: 0 }, "num_buffers"),
];

const MERGE_ERROR = /^receive queue: num_buffers is more than the ring holds/;
const MERGES: readonly BackendAttack[] = [
  {
    name: "§5.1.9.4.1: num_buffers is one more than the ring",
    ...{ queue: "receive", error: MERGE_ERROR },
    run: (scene, pair) => {
      const numBuffers = scene.rx(pair).size + 1;
      return scene.net.sendWith(scene.datagram("merge"), { numBuffers }, pair);
    },
  },
  {
    name: "§5.1.9.4.1: num_buffers has all bits set",
    ...{ queue: "receive", error: MERGE_ERROR },
    run: (scene, pair) => scene.net.sendWith(scene.datagram("merge"), { numBuffers: 0xffff }, pair),
  },
  {
    name: "§5.1.9.4.1: num_buffers is 3 for one: the next two belong to it",
    ...{ queue: "receive" },
    run: async (scene, pair) => {
      await scene.net.sendWith(scene.datagram("merge"), { numBuffers: 3 }, pair);
      for (let i = 0; i < 2; i++) await scene.net.sendWith(scene.datagram("lost"), {}, pair);
    },
  },
  {
    name: "§5.1.9.4.1: num_buffers is 1 for several",
    ...{ queue: "receive", drop: "any" },
    run: (scene, pair) =>
      scene.net.sendWith(scene.datagram(Buffer.alloc(LARGE_BYTES)), { numBuffers: 1 }, pair),
  },
  {
    name: "§5.1.9.4.1: a ring full of one packet that never ends",
    ...{ queue: "receive", spoils: true },
    run: async (scene, pair) => {
      const { size } = scene.rx(pair);
      await scene.net.sendWith(scene.datagram("merge"), { numBuffers: size }, pair);
      for (let i = 2; i < size; i++) await scene.net.sendWith(scene.datagram("more"), {}, pair);
    },
  },
];

export const FRAME_ATTACKS: readonly BackendAttack[] = [...LENGTHS, ...HEADERS, ...MERGES];
