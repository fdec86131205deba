/**
 * The IPv6 addresses of one interface: the link-local one and at most two others. Made by
 * interface.ts; dad.ts, nd.ts and slaac.ts change it on CPU 0, mirror6.ts on the others; ipv6.ts
 * asks it for every packet.
 *
 * An entry (ENTRY_BYTES):
 *
 *   0 address 16 | 16 state 4 | 20 prefix 4 | 24 origin 4 | 28 on link 4
 *   32 preferred until 8 | 40 valid until 8 | 48
 */
import { allocate } from "../memory/arena";
import { NEVER } from "../time";
import {
  ADDRESS6_BYTES,
  ALL_NODES,
  copy6,
  equal6,
  isLinkLocal6,
  isSolicitedNode,
  samePrefix6,
  writeGroupMac,
  writeLinkLocal,
  writeSolicitedNode,
} from "./address6";

export const ENTRIES: u32 = 3;
export const GROUPS_MAX: u32 = ENTRIES + 1;
/** The entry of the link-local address. */
export const LINK_ENTRY: u32 = 0;
const ENTRY_BYTES: usize = 48;
const LINK_PREFIX: u32 = 64;

/** RFC 4862 2: what a host may do with an address. */
export enum AddressState {
  None,
  /** Its uniqueness is being looked at: nobody hears of it, and nothing that comes to it counts. */
  Tentative,
  Preferred,
  /** Still answered for, but nothing new begins with it. */
  Deprecated,
  /** Somebody else has it. Kept, so that it is not formed again. */
  Duplicate,
}

export enum Origin {
  Link,
  Static,
  Slaac,
}

export class Addresses6 {
  /** Whether IPv6 is spoken here at all. */
  enabled: bool = false;
  /** The limit that the router wants in what we send. RFC 4861 6.3.4 */
  hopLimit: u32 = 64;
  private readonly group: usize = allocate(ADDRESS6_BYTES, 8);
  private readonly entries: usize = allocate(<usize>ENTRIES * ENTRY_BYTES, 8);

  // ---- one entry --------------------------------------------------------------------------------

  /** Its 16 bytes. */
  @inline
  at(index: u32): usize {
    return this.entries + <usize>index * ENTRY_BYTES;
  }

  @inline
  state(index: u32): AddressState {
    return <AddressState>load<u32>(this.at(index), 16);
  }

  setState(index: u32, state: AddressState): void {
    store<u32>(this.at(index), state, 16);
  }

  prefix(index: u32): u32 {
    return load<u32>(this.at(index), 20);
  }

  origin(index: u32): Origin {
    return <Origin>load<u32>(this.at(index), 24);
  }

  /** Time stamps; NEVER for an address that stays. */
  preferredUntil(index: u32): u64 {
    return load<u64>(this.at(index), 32);
  }

  validUntil(index: u32): u64 {
    return load<u64>(this.at(index), 40);
  }

  setLifetimes(index: u32, preferred: u64, valid: u64): void {
    store<u64>(this.at(index), preferred, 32);
    store<u64>(this.at(index), valid, 40);
  }

  /** Hosts with its prefix are neighbours. RFC 4861 6.3.4 */
  setOnLink(index: u32, onLink: bool): void {
    store<u32>(this.at(index), onLink ? 1 : 0, 28);
  }

  isUsable(index: u32): bool {
    const state = this.state(index);
    return state == AddressState.Preferred || state == AddressState.Deprecated;
  }

  // ---- entries come and go ----------------------------------------------------------------------

  /** A new tentative address without an end. */
  set(index: u32, address: usize, prefix: u32, origin: Origin): void {
    copy6(this.at(index), address);
    store<u32>(this.at(index), prefix, 20);
    store<u32>(this.at(index), origin, 24);
    this.setState(index, AddressState.Tentative);
    this.setOnLink(index, true);
    this.setLifetimes(index, NEVER, NEVER);
  }

  setLinkLocal(mac: usize): void {
    writeLinkLocal(this.at(LINK_ENTRY), mac);
    this.set(LINK_ENTRY, this.at(LINK_ENTRY), LINK_PREFIX, Origin.Link);
  }

  remove(index: u32): void {
    this.setState(index, AddressState.None);
  }

  /** An entry for another address, or -1. */
  free(): i32 {
    for (let i: u32 = 1; i < ENTRIES; i++) if (this.state(i) == AddressState.None) return <i32>i;
    return -1;
  }

  // ---- whose ------------------------------------------------------------------------------------

  /** The entry with this address, in whatever state, or -1. */
  find(address: usize): i32 {
    for (let i: u32 = 0; i < ENTRIES; i++) {
      if (this.state(i) != AddressState.None && equal6(this.at(i), address)) return <i32>i;
    }
    return -1;
  }

  /** Whether it is ours and may be used. */
  isOurs(address: usize): bool {
    const index = this.find(address);
    return index >= 0 && this.isUsable(<u32>index);
  }

  /** Whether we hear this group: all nodes, and the solicited-node groups of our addresses. */
  hears(group: usize): bool {
    if (equal6(group, ALL_NODES)) return true;
    for (let i: u32 = 0; i < ENTRIES; i++) {
      if (this.state(i) != AddressState.None && isSolicitedNode(group, this.at(i))) return true;
    }
    return false;
  }

  /**
   * Writes the Ethernet addresses of all groups that we hear to `to`, which has room for
   * GROUPS_MAX; answers how many they are. They do not change after boot: addresses that are formed
   * later end as the link-local one does.
   */
  writeGroups(to: usize): u32 {
    if (!this.enabled) return 0;
    writeGroupMac(to, ALL_NODES);
    let count: u32 = 1;
    for (let i: u32 = 0; i < ENTRIES; i++) {
      if (this.state(i) == AddressState.None) continue;
      writeSolicitedNode(this.group, this.at(i));
      writeGroupMac(to + 6 * count++, this.group);
    }
    return count;
  }

  // ---- for what we send -------------------------------------------------------------------------

  /** The entry of our address towards `destination`, or -1. RFC 6724, rules 2, 3 and 8 */
  sourceFor(destination: usize): i32 {
    if (!this.enabled) return this.isUsable(LINK_ENTRY) ? LINK_ENTRY : -1;
    const isLink = isLinkLocal6(destination) || load<u8>(destination) == 0xff;
    if (isLink) return this.isUsable(LINK_ENTRY) ? LINK_ENTRY : -1;
    let best: i32 = -1;
    for (let i: u32 = 1; i < ENTRIES; i++) {
      if (!this.isUsable(i)) continue;
      const preferred = this.state(i) == AddressState.Preferred;
      const near = samePrefix6(this.at(i), destination, this.prefix(i));
      const better = best < 0 || (preferred && this.state(best) != AddressState.Preferred);
      if (better || (preferred && near)) best = <i32>i;
    }
    return best;
  }

  /** Whether `address` is a neighbour's. */
  isOnLink(address: usize): bool {
    if (isLinkLocal6(address)) return true;
    for (let i: u32 = 1; i < ENTRIES; i++) {
      const counts = this.isUsable(i) && load<u32>(this.at(i), 28) != 0;
      if (counts && samePrefix6(this.at(i), address, this.prefix(i))) return true;
    }
    return false;
  }
}
