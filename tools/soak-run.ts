// Runs one episode of the soak: boots its guest, takes it through the steps, and after each wants
// every datagram back, no malformed frame, and no event that nobody asked for. Called by
// soak-shrink.ts and soak.ts.

import type { DeviceOptions } from "../test/harness/src/backends/backend";
import { FaultyStreamBackend } from "../test/harness/src/backends/faulty-stream";
import { TapBackend } from "../test/harness/src/backends/tap";
import { udpFrame } from "../test/harness/src/codec/packets";
import { delay } from "../test/harness/src/deadline";
import { HarnessError, messageOf } from "../test/harness/src/errors";
import { sumDrops } from "../test/harness/src/events";
import { Random } from "../test/harness/src/random";
import { Vm } from "../test/harness/src/vm";
import type { VmOptions } from "../test/harness/src/vm-options";
import { type Config, describe, type Episode, type Step } from "./soak-plan";
import { GUEST_IP, StreamTraffic, TapTraffic, type Traffic } from "./soak-traffic";

const CARD = "card0";
const MAC = "52:54:00:12:34:56";
const PORT = "pcie-root-port,id=port0,chassis=1,slot=1";
const NATIVE = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"];
const READY_MS = 40_000;
const EVENT_MS = 20_000;
const PROBE = { count: 40, window: 8, bytes: 1400 };
const ECHO_PORT = 7;
const BAD_PORT = 32_000;
const GARBAGE_BYTES = 1514;
const REST_MS = 5000;
const ANSWER_MS = 3000;

export interface Outcome {
  /** What was wrong; undefined when nothing was. */
  readonly failure?: string;
  /** Steps that were done before. */
  readonly survived: number;
  readonly commandLine: string;
}

/** What the planted fault loses is lost for good. */
const PLANTED_STALL_MS = 2000;

/**
 * For the soak's own test: a fault in the network that shows only after a link flap and a later
 * reset of the device. Frames of more than 500 bytes are then lost.
 */
class PlantedStream extends FaultyStreamBackend {
  private stage = 0;

  noteStep(kind: Step["kind"]): void {
    if (this.stage === 0 && kind === "flap") this.stage = 1;
    else if (this.stage === 1 && kind === "reset") this.stage = 2;
  }

  override async sendBurst(frames: readonly Uint8Array[]): Promise<void> {
    if (this.stage === 2 && frames[0] !== undefined && frames[0].length > 500) return;
    await super.sendBurst(frames);
  }
}

function optionsOf(config: Config): DeviceOptions {
  const { off, packed, ringSize, mtu } = config;
  const switches = Object.fromEntries(off.map((name) => [name, false]));
  const hotPlug = config.machine === "q35" ? { bus: "port0" } : {};
  const size = { rx_queue_size: ringSize, ...(mtu === 1500 ? {} : { host_mtu: mtu }) };
  return { id: CARD, mac: MAC, in_order: true, packed, ...size, ...switches, ...hotPlug };
}

function vmOptions(config: Config, image: string | undefined): Omit<VmOptions, "nics"> {
  const { machine, cpus, mode } = config;
  return {
    ...(image === undefined ? {} : { image }),
    machine,
    cpus,
    memoryMib: 192,
    append: `app=echo mode=${mode} ip=${GUEST_IP}/24 ip6=off`,
    ...(machine === "q35" ? { ports: [PORT], extraArguments: NATIVE } : {}),
    // QEMU says that it spreads packets in its own code.
    stderrAllowed: [/eBPF RSS/],
  };
}

class World {
  /** Queue pairs in use. */
  private pairs: number;

  constructor(
    private readonly vm: Vm,
    private readonly config: Config,
    private readonly traffic: Traffic,
    private readonly net: FaultyStreamBackend | TapBackend,
  ) {
    this.pairs = config.backend === "tap" ? config.cpus : 1;
  }

  private get stream(): StreamTraffic {
    if (this.traffic instanceof StreamTraffic) return this.traffic;
    throw new HarnessError("this step is for a stream");
  }

  /** Does a step, and wants all to be well after it. */
  async take(step: Step): Promise<void> {
    if (this.net instanceof PlantedStream) this.net.noteStep(step.kind);
    await this.act(step);
    await this.traffic.load(PROBE);
    this.check();
  }

  check(): void {
    const problem = this.traffic.complaint() ?? this.vm.problem();
    if (problem !== undefined) throw new HarnessError(problem);
  }

  private act(step: Step): Promise<void> {
    switch (step.kind) {
      case "load":
        return this.traffic.load(step);
      case "garbage":
        return this.garbage(step.count, step.seed);
      case "bad-network":
        return this.badNetwork(step.count, step.seed);
      case "flap":
        return this.amid(step.noise, () => this.flap(step.times));
      case "stop":
        return this.stopAndGoOn(step.ms);
      case "pause":
        return this.pause(step.ms);
      case "reset":
        return this.amid(step.noise, () => this.command("reset"));
      case "reset-queue":
        if (step.queue >= 2 * this.pairs) return Promise.resolve();
        return this.amid(step.noise, () => this.command(`reset ${step.queue}`));
      case "queues":
        this.pairs = step.pairs;
        return this.amid(step.noise, () => this.command(`queues ${step.pairs}`));
      case "replug":
        return this.amid(step.noise, () => this.replug());
      case "command":
        return this.command(step.line);
      case "idle":
        return delay(step.ms);
    }
  }

  private async amid(noise: boolean, act: () => Promise<void>): Promise<void> {
    const done = act();
    // Its failure is thrown below, also when the noise fails first.
    done.catch(() => undefined);
    if (noise) await this.traffic.noise(done);
    await done;
  }

  private async command(line: string): Promise<void> {
    const where = (event: { command: string }) => event.command === line;
    const answer = this.vm.waitFor("control", { where, fresh: true, timeoutMs: EVENT_MS });
    this.vm.send(line);
    const { result } = await answer;
    if (result !== "ok") throw new HarnessError(`'${line}' ended as ${result}`);
  }

  private async flap(times: number): Promise<void> {
    for (let i = 0; i < times; i++) {
      for (const up of [false, true]) {
        const where = (link: { up: boolean }) => link.up === up;
        const event = this.vm.waitFor("link", { fresh: true, where, timeoutMs: EVENT_MS });
        await this.vm.qmp.execute("set_link", { arguments: { name: CARD, up } });
        await event;
      }
    }
  }

  private async stopAndGoOn(ms: number): Promise<void> {
    const load = this.traffic.load({ ...PROBE, count: 500 });
    // Its failure is thrown below, and must not end the process before.
    load.catch(() => undefined);
    await this.vm.qmp.execute("stop");
    await delay(ms);
    await this.vm.qmp.execute("cont");
    await load;
  }

  private async pause(ms: number): Promise<void> {
    const { net } = this.stream;
    const load = this.traffic.load({ ...PROBE, count: 500, window: 200 });
    load.catch(() => undefined);
    await net.pause();
    await delay(ms);
    net.resume();
    await load;
  }

  private async replug(): Promise<void> {
    const { vm } = this;
    const removed = vm.waitFor("removed", { fresh: true, timeoutMs: EVENT_MS });
    await vm.qmp.execute("device_del", { arguments: { id: CARD } });
    await removed;
    let deleted: unknown;
    // The card's parts are reported as well, and first.
    while (deleted !== CARD) deleted = (await vm.qmp.waitFor("DEVICE_DELETED")).data?.device;
    const ready = vm.waitFor("ready", { fresh: true, timeoutMs: EVENT_MS });
    const card = { driver: "virtio-net-pci", netdev: "net0", romfile: "" };
    await vm.qmp.execute("device_add", { arguments: { ...card, ...optionsOf(this.config) } });
    await ready;
  }

  /** Frames that are none, or nearly right ones; some are for the guest's MAC. */
  private async garbage(count: number, seed: number): Promise<void> {
    const { net } = this.stream;
    const random = new Random(seed);
    const route = await this.stream.route();
    const mac = Buffer.from(MAC.replaceAll(":", ""), "hex");
    for (let i = 0; i < count; i++) {
      const kind = random.below(3);
      if (kind === 0) await net.send(random.bytes(1 + random.below(GARBAGE_BYTES)));
      else if (kind === 1) {
        const rest = random.bytes(8 + random.below(GARBAGE_BYTES - 14));
        await net.send(Buffer.concat([mac, rest]));
      } else {
        const payload = random.bytes(random.below(600));
        const fields = { sourcePort: BAD_PORT, destinationPort: ECHO_PORT, payload };
        const frame = Buffer.from(udpFrame(route, fields));
        const at = 12 + random.below(frame.length - 12);
        frame.writeUInt8(random.below(256), at);
        await net.send(frame.subarray(0, 14 + random.below(frame.length - 13)));
      }
    }
  }

  private async badNetwork(count: number, seed: number): Promise<void> {
    const { net, peer } = this.stream;
    const route = await this.stream.route();
    let answers = 0;
    peer.onUdp(BAD_PORT, () => {
      answers++;
    });
    const random = new Random(seed);
    net.faults(seed, { drop: 0.05, duplicate: 0.05, corrupt: 0.05, reorder: 0.05 });
    for (let i = 0; i < count; i++) {
      const payload = random.bytes(32 + random.below(900));
      const fields = { sourcePort: BAD_PORT, destinationPort: ECHO_PORT, payload };
      await net.send(udpFrame(route, fields));
    }
    await net.calm();
    await peer.ping(GUEST_IP);
    if (answers !== net.delivered.intact) {
      throw new HarnessError(`${answers} answers to ${net.delivered.intact} intact frames`);
    }
  }
}

async function poolFree(vm: Vm): Promise<number> {
  const { queues } = await vm.stats();
  return queues.reduce((sum, queue) => sum + queue.pool_free, 0);
}

/** The packets that were free at boot are free again; a sent one is noticed a moment later. */
async function checkPool(vm: Vm, atBoot: number): Promise<void> {
  const begin = performance.now();
  for (;;) {
    const free = await poolFree(vm);
    if (free === atBoot) return;
    if (performance.now() - begin > REST_MS) {
      throw new HarnessError(`packets have leaked: ${free} are free, at boot ${atBoot}`);
    }
    await delay(50);
  }
}

/** What the guest has counted, if it still answers. */
async function counters(vm: Vm | undefined): Promise<string> {
  if (vm?.running !== true) return "";
  try {
    const stats = await vm.stats({ timeoutMs: ANSWER_MS });
    const drops = { rx: sumDrops(stats, "rx"), tx: sumDrops(stats, "tx") };
    const packets = stats.queues.map(({ rx, tx }) => `rx ${rx.packets} tx ${tx.packets}`);
    return `; ${packets.join(", ")}, drops ${JSON.stringify(drops)}`;
  } catch (error) {
    return `; and it does not answer: ${messageOf(error).split("\n")[0]}`;
  }
}

function backendOf({ backend, cpus }: Config, planted: boolean) {
  if (backend === "tap") return new TapBackend({ queues: cpus });
  return planted ? new PlantedStream() : new FaultyStreamBackend();
}

function trafficOf(net: FaultyStreamBackend | TapBackend): StreamTraffic | TapTraffic {
  if (net instanceof TapBackend) return new TapTraffic(net);
  return net instanceof PlantedStream
    ? new StreamTraffic(net, PLANTED_STALL_MS)
    : new StreamTraffic(net);
}

/** Runs the steps one after the other, up to the first that fails. */
export async function runEpisode(
  { config, steps }: Episode,
  options: { image?: string; planted?: boolean } = {},
): Promise<Outcome> {
  const net = backendOf(config, options.planted === true);
  const nics = [{ backend: net, options: optionsOf(config) }];
  let vm: Vm | undefined;
  let traffic: TapTraffic | StreamTraffic | undefined;
  let survived = 0;
  let at = "at boot";
  try {
    vm = await Vm.start({ ...vmOptions(config, options.image), nics });
    await vm.waitFor("ready", { timeoutMs: READY_MS });
    traffic = trafficOf(net);
    const world = new World(vm, config, traffic, net);
    await traffic.load(PROBE);
    const free = await poolFree(vm);
    for (const [index, step] of steps.entries()) {
      at = `in step ${index + 1}, ${describe(step)}`;
      await world.take(step);
      survived++;
    }
    at = "at the end";
    await checkPool(vm, free);
    await vm.stop();
    world.check();
    return { survived, commandLine: vm.commandLine };
  } catch (error) {
    // What QEMU or the guest has said is the cause of what was then missing.
    const said = vm?.problem() ?? messageOf(error);
    const failure = `${at}: ${said}${await counters(vm)}`;
    return { failure, survived, commandLine: vm?.commandLine ?? "" };
  } finally {
    if (traffic instanceof TapTraffic) await traffic.stop();
    await vm?.kill();
  }
}
