// A libvirtd of one test, with virsh to command it and the consoles of its domains. It runs in
// namespaces of its own: of processes, so that its QEMUs end with it, and of mounts, so that it
// neither sees nor changes the machine's own libvirt; and in the network namespace it is given.

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { join, resolve } from "node:path";
import { delay } from "../deadline";
import { DeadlineError, HarnessError } from "../errors";
import { EventLog, type WaitOptions } from "../event-log";
import type { EventNamed, StatsEvent } from "../events";
import { inLab, packageDirectory } from "../lab/lab";
import { lineSplitter } from "../lines";
import { type CommandResult, type ManagedProcess, runCommand, startProcess } from "../processes";
import { scratchDirectory } from "../run-scope";
import { type DomainOptions, domainXml } from "./domain-xml";

export interface LibvirtOptions {
  /** The network namespace in which libvirtd and its QEMUs are. */
  readonly namespace: string;
  /** For libvirtd; OVS_RUNDIR leads its ovs-vsctl to another Open vSwitch than the machine's. */
  readonly environment?: Readonly<Record<string, string>>;
}

const START_MS = 60_000;
const POLL_MS = 50;
const VIRSH_MS = 40_000;
const CACHE = "libvirt-cache";

/** The daemon's own settings; nobody but us can reach its socket. */
const SETTINGS = ['auth_unix_rw = "none"', 'auth_unix_ro = "none"'];
/** No users, no confinement, no cgroups: a container has none of them to give. */
const QEMU_SETTINGS = [
  ...['user = "root"', 'group = "root"', 'security_driver = "none"', "namespaces = [ ]"],
  ...["cgroup_controllers = [ ]", 'stdio_handler = "file"', "dynamic_ownership = 0"],
  "remember_owner = 0",
];

export class LibvirtHost {
  private readonly directory = scratchDirectory();
  private readonly output: string[] = [];
  private daemon: ManagedProcess | undefined;
  readonly domains: LibvirtDomain[] = [];

  constructor(private readonly options: LibvirtOptions) {}

  private get socketPath(): string {
    return join(this.directory, "libvirt-sock");
  }

  /** Starts libvirtd and waits until it answers. */
  async start(): Promise<void> {
    const settings = [`unix_sock_dir = "${this.directory}"`, ...SETTINGS];
    writeFileSync(join(this.directory, "libvirtd.conf"), `${settings.join("\n")}\n`);
    writeFileSync(join(this.directory, "qemu.conf"), `${QEMU_SETTINGS.join("\n")}\n`);
    const cache = resolve(inLab() ? "build/lab" : "build", CACHE);
    mkdirSync(cache, { recursive: true });
    const script = join(packageDirectory(), "lab/libvirtd.sh");
    const spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    const inside = ["netns", "exec", this.options.namespace, ...spaces];
    const command = ["/bin/sh", script, this.directory, cache];
    const daemon = startProcess("ip", [...inside, ...command], {
      environment: { ...this.options.environment },
    });
    this.daemon = daemon;
    daemon.child.stdout?.on("data", (chunk: Buffer) => this.output.push(chunk.toString()));
    daemon.child.stderr?.on("data", (chunk: Buffer) => this.output.push(chunk.toString()));
    const begin = performance.now();
    while (!existsSync(this.socketPath)) {
      if (!daemon.running) throw new HarnessError(`libvirtd has ended\n${this.tail()}`);
      if (performance.now() - begin > START_MS) {
        throw new DeadlineError(`libvirtd is not there within ${START_MS} ms\n${this.tail()}`);
      }
      await delay(POLL_MS);
    }
    await this.virsh("version");
  }

  private tail(): string {
    return this.output.join("").split("\n").slice(-15).join("\n");
  }

  /** Runs virsh to its end, whatever its status. */
  async tryVirsh(...args: string[]): Promise<CommandResult> {
    const uri = `qemu+unix:///system?socket=${this.socketPath}`;
    const result = await runCommand(["virsh", "-q", "-c", uri, ...args], { timeoutMs: VIRSH_MS });
    this.output.push(`$ virsh ${args.join(" ")}\n${result.stdout}${result.stderr}`);
    return result;
  }

  /** Runs virsh, which must succeed. */
  async virsh(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await this.tryVirsh(...args);
    if (status === 0) return stdout;
    throw new HarnessError(`virsh ${args.join(" ")} ended with ${status}: ${stderr.trim()}`);
  }

  /** Writes `xml` to a file, for a command of virsh. */
  file(name: string, xml: string): string {
    const path = join(this.directory, name);
    writeFileSync(path, xml);
    return path;
  }

  /** Defines a domain; it is not started. */
  async define(options: Omit<DomainOptions, "consolePath">): Promise<LibvirtDomain> {
    const domain = await LibvirtDomain.listen(this, options.name, this.directory);
    this.domains.push(domain);
    const xml = domainXml({ ...options, consolePath: domain.consolePath });
    await this.virsh("define", "--validate", this.file(`${options.name}.xml`, xml));
    return domain;
  }

  /** Ends libvirtd and every domain with it. */
  async stop(): Promise<void> {
    for (const domain of this.domains) domain.close();
    if (this.daemon?.running) await this.daemon.stop();
  }

  artifacts() {
    const consoles = this.domains.map(({ name, log }) => ({
      name: `${name}-console.log`,
      content: log.lines.map((line) => `${line}\n`).join(""),
    }));
    return [{ name: "libvirt.log", content: this.output.join("") }, ...consoles];
  }
}

/** A defined domain and its console. libvirt does not tell QEMU's exit status; the console does. */
export class LibvirtDomain {
  readonly log = new EventLog(() => undefined);
  private socket: Socket | undefined;

  private constructor(
    private readonly host: LibvirtHost,
    readonly name: string,
    readonly consolePath: string,
    private readonly server: Server,
  ) {
    server.on("connection", (socket) => this.attach(socket));
  }

  static async listen(host: LibvirtHost, name: string, directory: string): Promise<LibvirtDomain> {
    const path = join(directory, `${name}.console`);
    const server = createServer();
    await new Promise<void>((done, reject) => {
      server.once("error", reject);
      server.listen(path, done);
    });
    return new LibvirtDomain(host, name, path, server);
  }

  private attach(socket: Socket): void {
    this.socket = socket;
    const lines = lineSplitter((line) => this.log.add(line));
    socket.on("data", lines);
    // QEMU's end is seen by what the console lacks.
    socket.on("error", () => undefined);
    socket.on("close", () => {
      lines.end();
      this.log.end(`the console of domain ${this.name} is closed`);
    });
  }

  async start(): Promise<void> {
    await this.host.virsh("start", this.name);
  }

  /** As virsh has it: `running`, `shut off`, … */
  async state(): Promise<string> {
    return (await this.host.virsh("domstate", this.name)).trim();
  }

  /** The first event of that name, past or future; see Vm.waitFor. */
  waitFor<Name extends string>(name: Name, options?: WaitOptions<EventNamed<Name>>) {
    return this.log.waitFor(name, options);
  }

  /** Asks the guest for its counters. */
  stats(): Promise<StatsEvent> {
    const answer = this.waitFor("stats", { fresh: true });
    this.socket?.write("stats\n");
    return answer;
  }

  /** Asks the guest to exit, and waits until it says that all is well and libvirt that it ended. */
  async stop(timeoutMs = 15_000): Promise<void> {
    this.socket?.write("exit\n");
    const { status, message } = await this.waitFor("exit", { timeoutMs });
    if (status !== "success") throw new HarnessError(`${this.name} ended with '${message}'`);
    const begin = performance.now();
    while ((await this.state()) !== "shut off") {
      if (performance.now() - begin > timeoutMs) {
        throw new DeadlineError(`${this.name} does not end; ${this.log.tail()}`);
      }
      await delay(POLL_MS);
    }
  }

  /** QEMU's process, as this machine numbers it. */
  pid(): number {
    const mark = `guest=${this.name},`;
    const pids = readdirSync("/proc").map(Number).filter(Number.isInteger);
    const own = pids.find((pid) => {
      const path = `/proc/${pid}/cmdline`;
      return existsSync(path) && readCommand(path).some((word) => word.startsWith(mark));
    });
    if (own === undefined) throw new HarnessError(`domain ${this.name} has no QEMU`);
    return own;
  }

  close(): void {
    this.socket?.destroy();
    this.server.close();
  }
}

/** Empty for a process that has just ended. */
function readCommand(path: string): string[] {
  try {
    return readFileSync(path, "utf8").split("\0");
  } catch {
    return [];
  }
}

/** A new libvirtd, to be started by the test and stopped after it. */
export function libvirt(options: LibvirtOptions): LibvirtHost {
  return new LibvirtHost(options);
}
