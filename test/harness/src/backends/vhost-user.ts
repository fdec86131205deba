// The `vhost-user` backend: DPDK's testpmd in a process of its own reads and writes the guest's
// rings directly. Forwarding modes: rxonly counts what the guest sends, txonly floods it, io and
// macswap send back what comes.
//
// testpmd polls on CPU 1 and QEMU is kept on CPU 0; on shared CPUs every rate would be noise. For
// the same reason both go before the host's other work, where that is allowed (root).

import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EnvironmentError } from "../errors";
import { findProgram } from "../processes";
import { findQemu, vhostUserUnavailable } from "../qemu";
import { atExit, scratchDirectory, uniqueName } from "../run-scope";
import type { Artifact, Backend } from "./backend";
import { type PortStats, Testpmd } from "./testpmd";

export interface VhostUserOptions {
  readonly mode: "rxonly" | "txonly" | "io" | "macswap";
  readonly queues?: number;
  /** Bytes of a frame that txonly sends, without FCS; 60 unless given. */
  readonly frameBytes?: number;
  readonly burst?: number;
  /** Where txonly's frames go; QEMU's default MAC for the first card unless given. */
  readonly guestMac?: string;
  /** CPUs of testpmd's polling core and of QEMU. */
  readonly pollCpu?: number;
  readonly qemuCpus?: string;
  /** QEMU connects again when testpmd has gone; for `crash` and `restart`. */
  readonly reconnect?: boolean;
  /** Further properties of DPDK's vhost device, such as `tso=1`. */
  readonly deviceArguments?: string;
}

const PROGRAM = "dpdk-testpmd";
const HUGEPAGES = "/proc/sys/vm/nr_hugepages";
const HUGEPAGES_WANTED = 256;
const MEMORY_MIB = 300;
const FIRST_MAC = "52:54:00:12:34:56";
/**
 * Where the kernel groups processes by session, a niceness counts within the session only, and the
 * session has one of its own.
 */
const FIRST = '{ echo -15 >/proc/self/autogroup; } 2>/dev/null; exec nice -n -15 "$0" "$@"';
const SOCKET_TIMEOUT_MS = 30_000;
const RECONNECT_MS = 200;

export class VhostUserBackend implements Backend {
  readonly name = "vhost-user";
  readonly sharedMemory = true;
  /** Where testpmd listens, once started. */
  socketPath = "";
  private testpmd: Testpmd | undefined;
  private restorePages: () => void = () => undefined;

  constructor(private readonly options: VhostUserOptions) {}

  async available(): Promise<string | undefined> {
    if (findProgram(PROGRAM) === undefined) return `needs ${PROGRAM} (apt install dpdk-dev)`;
    return vhostUserUnavailable(findQemu());
  }

  get wrapper(): readonly string[] {
    if (findProgram("taskset") === undefined) return priority();
    return [...priority(), "taskset", "-c", this.options.qemuCpus ?? "0"];
  }

  async start(): Promise<void> {
    const directory = scratchDirectory();
    this.socketPath = join(directory, "vhost");
    await this.launch(this.reserveHugepages());
  }

  private async launch(hugepages: boolean): Promise<void> {
    const testpmd = new Testpmd(this.command(hugepages));
    this.testpmd = testpmd;
    const listening = () => (existsSync(this.socketPath) ? true : undefined);
    await testpmd.until(listening, SOCKET_TIMEOUT_MS, `vhost-user socket ${this.socketPath}`);
  }

  /** Ends testpmd as a crash would: at once, and with its socket left behind. */
  async crash(): Promise<void> {
    await this.running.stop();
  }

  /** Starts another testpmd on the same socket, with counters from zero. */
  async restart(): Promise<void> {
    rmSync(this.socketPath, { force: true });
    await this.launch(this.reserveHugepages());
  }

  /** Reserves hugepages for the time of the test, where that is allowed. */
  private reserveHugepages(): boolean {
    if (process.getuid?.() !== 0 || !existsSync("/dev/hugepages")) return false;
    const before = readFileSync(HUGEPAGES, "utf8").trim();
    if (Number(before) < HUGEPAGES_WANTED) {
      const restore = () => writeFileSync(HUGEPAGES, before);
      const forget = atExit(restore);
      this.restorePages = () => {
        forget();
        restore();
      };
      writeFileSync(HUGEPAGES, String(HUGEPAGES_WANTED));
    }
    return Number(readFileSync(HUGEPAGES, "utf8")) >= HUGEPAGES_WANTED;
  }

  private command(hugepages: boolean): string[] {
    const {
      mode,
      queues = 1,
      frameBytes = 60,
      burst = 64,
      pollCpu = 1,
      guestMac = FIRST_MAC,
    } = this.options;
    const extra =
      this.options.deviceArguments === undefined ? "" : `,${this.options.deviceArguments}`;
    const device = `net_vhost0,iface=${this.socketPath},queues=${queues}${extra}`;
    // In memory: no files on hugetlbfs that a testpmd ended by force would leave behind.
    const memory = hugepages ? ["--in-memory"] : ["--no-huge"];
    return [
      ...priority(),
      PROGRAM,
      // Lcore 1 polls; lcore 0 prints now and then, and not at the cost of the guest.
      ...["--lcores", `0@${pollCpu},1@${pollCpu}`, "-m", String(MEMORY_MIB)],
      ...memory,
      ...[`--file-prefix=${uniqueName()}`, "--no-pci", "--vdev", device, "--"],
      ...["--auto-start", `--forward-mode=${mode}`, "--stats-period", "1", `--burst=${burst}`],
      ...["--total-num-mbufs=16384", `--rxq=${queues}`, `--txq=${queues}`],
      ...(mode === "txonly" ? [`--txpkts=${frameBytes}`, `--eth-peer=0,${guestMac}`] : []),
    ];
  }

  private get again(): string {
    return this.options.reconnect ? `,reconnect-ms=${RECONNECT_MS}` : "";
  }

  /** Where testpmd listens, for a front end that is not QEMU; after `start`. */
  get socket(): string {
    return this.socketPath;
  }

  netdev(id: string): readonly string[] {
    const { queues = 1 } = this.options;
    const several = queues > 1 ? `,queues=${queues}` : "";
    return [
      ...["-chardev", `socket,id=${id}-chardev,path=${this.socketPath}${this.again}`],
      ...["-netdev", `vhost-user,id=${id},chardev=${id}-chardev${several}`],
    ];
  }

  get deviceOptions() {
    const { queues = 1 } = this.options;
    return queues > 1 ? { mq: true, vectors: 2 * queues + 2 } : {};
  }

  private get running(): Testpmd {
    if (this.testpmd === undefined) throw new EnvironmentError("vhost-user: not started");
    return this.testpmd;
  }

  /** The latest statistics, at most a second old; waits for a first one. */
  stats(timeoutMs = 5000): Promise<PortStats> {
    const { running } = this;
    return running.until(() => running.history.at(-1), timeoutMs, "statistics");
  }

  /** The next `count` statistics. testpmd's period of a second may last up to two. */
  async sample(count: number): Promise<readonly PortStats[]> {
    const { running } = this;
    const from = running.history.length;
    const enough = () => (running.history.length >= from + count ? true : undefined);
    await running.until(enough, (2 * count + 5) * 1000, `${count} statistics`);
    return running.history.slice(from, from + count);
  }

  /** Waits until testpmd itself has counted that much. */
  waitFor(condition: (stats: PortStats) => boolean, timeoutMs: number): Promise<PortStats> {
    const { running } = this;
    return running.until(
      () => running.history.find(condition),
      timeoutMs,
      "statistics of the wanted kind",
    );
  }

  /** Stops testpmd where it is, as a host does that has no time for it; and lets it go on. */
  freeze(): void {
    this.running.signal("SIGSTOP");
  }

  thaw(): void {
    this.running.signal("SIGCONT");
  }

  async stop(): Promise<void> {
    await this.testpmd?.stop();
    this.restorePages();
    this.restorePages = () => undefined;
  }

  artifacts(): readonly Artifact[] {
    const lines = this.testpmd?.lines ?? [];
    return [{ name: "testpmd.log", content: lines.map((line) => `${line}\n`).join("") }];
  }
}

/** Words that start what follows them ahead of the host's other work; none without root. */
function priority(): readonly string[] {
  return process.getuid?.() === 0 ? ["sh", "-c", FIRST] : [];
}

/** A new vhost-user backend with a testpmd of its own, for one VM. */
export function vhostUser(options: VhostUserOptions): VhostUserBackend {
  return new VhostUserBackend(options);
}
