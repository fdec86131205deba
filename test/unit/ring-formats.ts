// The ring formats that tests are run with, each by the features that make it. Used by the tests of
// whatever must work the same way in all of them.

import {
  IN_ORDER_FEATURES,
  PACKED_FEATURES,
  PACKED_IN_ORDER_FEATURES,
  USUAL_FEATURES,
} from "../model/net/net-device";
import type { FeatureName } from "../model/virtio/features";

export interface RingFormat {
  readonly name: string;
  readonly features: readonly FeatureName[];
  readonly packed: boolean;
  readonly inOrder: boolean;
}

export const SPLIT: RingFormat = {
  name: "split",
  features: USUAL_FEATURES,
  packed: false,
  inOrder: false,
};
export const SPLIT_IN_ORDER: RingFormat = {
  name: "split in order",
  features: IN_ORDER_FEATURES,
  packed: false,
  inOrder: true,
};
export const PACKED: RingFormat = {
  name: "packed",
  features: PACKED_FEATURES,
  packed: true,
  inOrder: false,
};
export const PACKED_IN_ORDER: RingFormat = {
  name: "packed in order",
  features: PACKED_IN_ORDER_FEATURES,
  packed: true,
  inOrder: true,
};

export const FORMATS = [SPLIT, SPLIT_IN_ORDER, PACKED, PACKED_IN_ORDER] as const;
/** All but the one that a test's own name stands for already. */
export const OTHER_FORMATS = [SPLIT_IN_ORDER, PACKED, PACKED_IN_ORDER] as const;

export function without(format: RingFormat, ...names: readonly FeatureName[]): FeatureName[] {
  return format.features.filter((name) => !names.includes(name));
}

/** What the names of tests begin with; those for the split ring have no beginning. */
export function prefixOf(format: RingFormat): string {
  return format === SPLIT ? "" : `${format.name}: `;
}
