// What the matrix is made of: every combination of ring features and queues, on every backend. Pure;
// used by everything else in this directory.
//
// A cell's name is its backend, ring, features that are on, and queue pairs: `tap/packed+mrg/2`.

export const BACKENDS = [
  "user",
  "stream",
  "tap",
  "vhost-user",
  "vhost-net",
  "ovs-userspace",
  "ovs-kernel",
] as const;
export type BackendName = (typeof BACKENDS)[number];

/** The feature bits that a cell switches on or off, by the specification's names. */
export interface Features {
  readonly ring_packed: boolean;
  readonly in_order: boolean;
  readonly mrg_rxbuf: boolean;
  readonly event_idx: boolean;
  readonly indirect_desc: boolean;
}

export type FeatureName = keyof Features;

/** In the order in which tables and names have them, with the short form for names. */
export const FEATURES: readonly { readonly name: FeatureName; readonly short: string }[] = [
  { name: "ring_packed", short: "packed" },
  { name: "in_order", short: "order" },
  { name: "mrg_rxbuf", short: "mrg" },
  { name: "event_idx", short: "event" },
  { name: "indirect_desc", short: "indirect" },
];

export const QUEUES = [1, 2, 4] as const;

export interface Cell {
  readonly backend: BackendName;
  readonly features: Features;
  readonly queues: number;
}

export function idOf({ backend, features, queues }: Cell): string {
  const on = FEATURES.filter(({ name }) => name !== "ring_packed" && features[name]);
  const ring = features.ring_packed ? "packed" : "split";
  return `${backend}/${[ring, ...on.map(({ short }) => short)].join("+")}/${queues}`;
}

/** All combinations of the features, split and plain first. */
function combinations(): Features[] {
  const all: Features[] = [];
  for (let bits = 0; bits < 1 << FEATURES.length; bits++) {
    const on = (index: number) => ((bits >> (FEATURES.length - 1 - index)) & 1) === 1;
    all.push({
      ring_packed: on(0),
      in_order: on(1),
      mrg_rxbuf: on(2),
      event_idx: on(3),
      indirect_desc: on(4),
    });
  }
  return all;
}

/** Every cell of a backend, those with few queues first. */
export function cellsOf(backend: BackendName): Cell[] {
  return QUEUES.flatMap((queues) =>
    combinations().map((features) => ({ backend, features, queues })),
  );
}

/** Which values of which two parameters a cell has together. */
function pairsOf({ features, queues }: Cell): string[] {
  const values = [...FEATURES.map(({ name }) => `${name}=${features[name]}`), `queues=${queues}`];
  return values.flatMap((first, i) => values.slice(i + 1).map((second) => `${first} ${second}`));
}

/**
 * Few of `cells` in which every two values that any cell has together are still together in one.
 * Always the same ones for the same cells.
 */
export function pairwise(cells: readonly Cell[]): Cell[] {
  const open = new Set(cells.flatMap(pairsOf));
  const gain = (cell: Cell) => pairsOf(cell).filter((pair) => open.has(pair)).length;
  const chosen: Cell[] = [];
  while (open.size > 0) {
    const best = cells.reduce((a, b) => (gain(b) > gain(a) ? b : a));
    chosen.push(best);
    for (const pair of pairsOf(best)) open.delete(pair);
  }
  return chosen;
}

/** A way through DPDK's virtio driver, and the cells that go the same way through the rings. */
export interface Path {
  readonly name: string;
  readonly matches: (features: Features) => boolean;
}

function pathsOf(packed: boolean): Path[] {
  const ring = packed ? "packed" : "split";
  const path = (name: string, inOrder: boolean, mergeable: boolean): Path => ({
    name: `${ring}, ${name}`,
    matches: ({ ring_packed, in_order, mrg_rxbuf }) =>
      ring_packed === packed && in_order === inOrder && mrg_rxbuf === mergeable,
  });
  return [
    path("in order, mergeable", true, true),
    path("in order, not mergeable", true, false),
    path("mergeable", false, true),
    path("not mergeable", false, false),
    {
      // DPDK's vectors want the plainest ring; with packed ones it must be in order as well.
      name: `${ring}, as for vectors`,
      matches: ({ ring_packed, in_order, mrg_rxbuf, event_idx, indirect_desc }) =>
        ring_packed === packed && in_order === packed && !mrg_rxbuf && !event_idx && !indirect_desc,
    },
  ];
}

/** The ten ways that DPDK's own tests of virtio take. */
export const PATHS: readonly Path[] = [...pathsOf(false), ...pathsOf(true)];

/** Frame sizes of the same tests, with the four bytes of FCS. */
export const FRAME_SIZES = [64, 128, 256, 512, 1024, 1280, 1518] as const;
const OVERHEAD_BYTES = 14 + 20 + 8 + 4;

/** The UDP payloads that make those frames. */
export const PAYLOADS: readonly number[] = FRAME_SIZES.map((size) => size - OVERHEAD_BYTES);

/** Flows for each number of queue pairs: with so many a hash leaves no queue out. */
export function flowsFor(queues: number): number {
  return queues === 1 ? 8 : 16 * queues;
}
