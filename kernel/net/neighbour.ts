/**
 * What ARP and neighbour discovery have in common: asking for the MAC of the one next hop until it
 * is known, and telling the network whose our addresses are. arp.ts and nd.ts say in their
 * protocol's words what this decides when to say.
 */
import { NEVER, deadlineIn } from "../time";
import { allocate } from "../memory/arena";
import { copyMac } from "./address";
import { Interface, RESEND_US } from "./interface";

/** RFC 5227 1.1, ANNOUNCE_NUM; RFC 4861 7.2.6 allows three. */
const ANNOUNCEMENTS: u32 = 2;

/** RFC 1122 2.3.2.1, RFC 4861 10: one a second at most; then ever rarer, to one in 16 s. */
const ASK_US: u64 = 1_000_000;
const BACK_OFF_MAX: u32 = 4;
/** RFC 4861 10, MAX_MULTICAST_SOLICIT: after so many without an answer there is a warning. */
const ASKS_BEFORE_WARNING: u32 = 3;

export abstract class Neighbour {
  /** When poll() has something to do. */
  deadline: u64 = NEVER;
  /** The next hop's six bytes, valid when known. */
  readonly mac: usize = allocate(8);
  known: bool = false;
  protected conflictSeen: bool = false;

  private asks: u32 = 0;
  private askAt: u64 = NEVER;
  private announcements: u32 = 0;
  private announceAt: u64 = NEVER;

  /** `announceUs`: the time between two announcements. */
  constructor(
    readonly net: Interface,
    private readonly announceUs: u64,
  ) {}

  /** Asks once; false when there is no packet for it. */
  protected abstract sendQuestion(): bool;

  /** Tells once whose our addresses are; false when there are not packets enough. */
  protected abstract sendAnnouncement(): bool;

  /** Nobody answers: said once. */
  protected abstract warnUnanswered(): void;

  /** Tells the network whose our addresses are: when they became ours, and when the link moved. */
  announce(): void {
    this.conflictSeen = false;
    this.announcements = ANNOUNCEMENTS;
    this.announceAt = 0;
    this.deadline = 0;
  }

  /** Our address is gone: nothing more to say of it. */
  silence(): void {
    this.announceAt = NEVER;
  }

  poll(now: u64): void {
    if (now >= this.announceAt) this.tell();
    if (now >= this.askAt) this.ask();
    this.deadline = min(this.announceAt, this.askAt);
  }

  /** There is a next hop, which is not known yet. */
  protected beginAsking(): void {
    this.known = false;
    this.asks = 0;
    this.askAt = 0;
    this.deadline = 0;
  }

  /** The next hop has said what its MAC is. */
  protected learnMac(mac: usize): void {
    copyMac(this.mac, mac);
    this.known = true;
    this.askAt = NEVER;
  }

  private tell(): void {
    if (!this.sendAnnouncement()) {
      this.announceAt = deadlineIn(RESEND_US);
      return;
    }
    this.announcements--;
    this.announceAt = this.announcements > 0 ? deadlineIn(this.announceUs) : NEVER;
  }

  private ask(): void {
    if (!this.sendQuestion()) {
      this.askAt = deadlineIn(RESEND_US);
      return;
    }
    this.askAt = deadlineIn(ASK_US << min(this.asks, BACK_OFF_MAX));
    if (++this.asks == ASKS_BEFORE_WARNING + 1) this.warnUnanswered();
  }
}
