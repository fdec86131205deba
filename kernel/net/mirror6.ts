/**
 * How lanes of other CPUs know the IPv6 addresses that CPU 0 has found: words of mail, published by
 * crew.ts and taken over by worker.ts together with all that is in mail.NicState.
 *
 *   0 enabled | 1 hop limit | 2 + 5 i state of entry i | 3 + 5 i its address, 4 words
 */
import * as mail from "../mail";
import { AddressState, Addresses6, ENTRIES } from "./addresses6";

const ENABLED: u32 = 0;
const HOP_LIMIT: u32 = 1;
const FIRST: u32 = 2;
const ENTRY_WORDS: u32 = 5;

/** On CPU 0. True if anything has changed. */
export function publish(nic: u32, six: Addresses6): bool {
  let changed = change(nic, ENABLED, six.enabled ? 1 : 0);
  changed = change(nic, HOP_LIMIT, six.hopLimit) || changed;
  for (let i: u32 = 0; i < ENTRIES; i++) {
    const word = FIRST + i * ENTRY_WORDS;
    changed = change(nic, word, six.state(i)) || changed;
    for (let part: u32 = 0; part < 4; part++) {
      changed = change(nic, word + 1 + part, load<u32>(six.at(i) + (part << 2))) || changed;
    }
  }
  return changed;
}

function change(nic: u32, word: u32, value: u32): bool {
  if (mail.state6(nic, word) == value) return false;
  mail.setState6(nic, word, value);
  return true;
}

/** On another CPU. */
export function adopt(nic: u32, six: Addresses6): void {
  six.enabled = mail.state6(nic, ENABLED) != 0;
  six.hopLimit = mail.state6(nic, HOP_LIMIT);
  for (let i: u32 = 0; i < ENTRIES; i++) {
    const word = FIRST + i * ENTRY_WORDS;
    six.setState(i, <AddressState>mail.state6(nic, word));
    for (let part: u32 = 0; part < 4; part++) {
      store<u32>(six.at(i) + (part << 2), mail.state6(nic, word + 1 + part));
    }
  }
}
