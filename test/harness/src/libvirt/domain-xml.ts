// The XML that describes a domain with one of our images to libvirt. Pure; used by host.ts and by
// tests.

import type { Accelerator } from "../vm-options";

export interface DomainInterfaceOptions {
  readonly mac: string;
  /** Pairs of queues; 1 unless given. */
  readonly queues?: number;
  /** Who moves the frames of a tap: the kernel (`vhost`) or QEMU. Not for vhost-user. */
  readonly driver?: "vhost" | "qemu";
  readonly rxQueueSize?: number;
  readonly eventIdx?: boolean;
  readonly packed?: boolean;
  /** Offloads for the host's (csum, tso4, …) and the guest's direction, switched on or off. */
  readonly host?: Readonly<Record<string, boolean>>;
  readonly guest?: Readonly<Record<string, boolean>>;
  /** The device's identifier in QEMU is `ua-` and this. */
  readonly alias?: string;
  /** The bus (a root port's) that it is on; libvirt chooses one unless given. */
  readonly bus?: number;
}

/** What a network card is connected to. */
export type DomainInterface = DomainInterfaceOptions &
  (
    | { readonly type: "ethernet" /** A tap that exists. */; readonly target: string }
    | {
        readonly type: "vhostuser";
        readonly path: string;
        /** QEMU's role: `client` connects to the backend, `server` waits for it. */
        readonly mode: "client" | "server";
      }
    | {
        readonly type: "openvswitch";
        readonly bridge: string;
        readonly target: string;
        readonly vlan?: number;
      }
  );

export interface DomainOptions {
  readonly name: string;
  readonly image: string;
  readonly accelerator: Accelerator;
  readonly append: string;
  readonly cpus?: number;
  readonly memoryMib?: number;
  /** A Unix socket that listens: the guest's console connects to it. */
  readonly consolePath: string;
  readonly interfaces: readonly DomainInterface[];
}

const EXIT_DEVICE = "isa-debug-exit,iobase=0xf4,iosize=0x04";
const QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0";

function escaped(text: string): string {
  const names: Record<string, string> = { "&": "amp", "<": "lt", ">": "gt", "'": "apos" };
  return text.replace(/[&<>']/g, (character) => `&${names[character]};`);
}

type Attributes = Readonly<Record<string, string | number | boolean | undefined>>;

/** An element; attributes without a value are left out, and truth values are `on` and `off`. */
function element(name: string, attributes: Attributes, children: readonly string[] = []): string {
  const words = Object.entries(attributes).flatMap(([key, value]) => {
    if (value === undefined) return [];
    const text = typeof value === "boolean" ? (value ? "on" : "off") : String(value);
    return [` ${key}='${escaped(text)}'`];
  });
  const open = `<${name}${words.join("")}`;
  return children.length === 0 ? `${open}/>` : `${open}>${children.join("")}</${name}>`;
}

function textElement(name: string, attributes: Attributes, text: string): string {
  return element(name, attributes, [escaped(text)]);
}

function connection(card: DomainInterface): string[] {
  if (card.type === "vhostuser") {
    return [element("source", { type: "unix", path: card.path, mode: card.mode })];
  }
  if (card.type === "ethernet") return [element("target", { dev: card.target, managed: "no" })];
  const tag = card.vlan === undefined ? [] : [element("tag", { id: card.vlan })];
  return [
    element("source", { bridge: card.bridge }),
    element("virtualport", { type: "openvswitch" }),
    element("target", { dev: card.target }),
    ...(tag.length === 0 ? [] : [element("vlan", {}, tag)]),
  ];
}

/** One `<interface>`, also for `virsh attach-device`. */
export function interfaceXml(card: DomainInterface): string {
  const { queues = 1, driver, rxQueueSize, eventIdx, packed, host, guest } = card;
  const settings: Attributes = {
    name: driver,
    queues: queues > 1 ? queues : undefined,
    rx_queue_size: rxQueueSize,
    event_idx: eventIdx,
    packed,
  };
  const offloads = [
    ...(host === undefined ? [] : [element("host", host)]),
    ...(guest === undefined ? [] : [element("guest", guest)]),
  ];
  const type = card.type === "openvswitch" ? "bridge" : card.type;
  return element("interface", { type }, [
    element("mac", { address: card.mac }),
    ...connection(card),
    element("model", { type: "virtio" }),
    element("driver", settings, offloads),
    element("rom", { enabled: "no" }),
    ...(card.bus === undefined ? [] : [element("address", { type: "pci", bus: card.bus })]),
    ...(card.alias === undefined ? [] : [element("alias", { name: `ua-${card.alias}` })]),
  ]);
}

function processor(accelerator: Accelerator): string {
  if (accelerator === "tcg") return element("cpu", { mode: "maximum" });
  // Some hosts' KVM refuses the architecture capabilities that the host's CPU would pass on.
  const off = element("feature", { policy: "disable", name: "arch-capabilities" });
  return element("cpu", { mode: "host-passthrough" }, [off]);
}

/** The whole domain: q35, the image as kernel, the console on a socket, isa-debug-exit. */
export function domainXml(options: DomainOptions): string {
  const { name, accelerator, cpus = 1, memoryMib = 128, interfaces } = options;
  const shared = interfaces.some(({ type }) => type === "vhostuser");
  const memory = [element("source", { type: "memfd" }), element("access", { mode: "shared" })];
  const console = element("serial", { type: "unix" }, [
    element("source", { mode: "connect", path: options.consolePath }),
    element("target", { port: 0 }),
  ]);
  const domain = { type: accelerator === "kvm" ? "kvm" : "qemu", "xmlns:qemu": QEMU_NAMESPACE };
  return element("domain", domain, [
    textElement("name", {}, name),
    textElement("memory", { unit: "MiB" }, String(memoryMib)),
    ...(shared ? [element("memoryBacking", {}, memory)] : []),
    textElement("vcpu", {}, String(cpus)),
    element("os", {}, [
      textElement("type", { arch: "x86_64", machine: "q35" }, "hvm"),
      textElement("kernel", {}, options.image),
      textElement("cmdline", {}, options.append),
    ]),
    element("features", {}, [element("acpi", {})]),
    processor(accelerator),
    textElement("on_crash", {}, "destroy"),
    element("devices", {}, [
      console,
      ...interfaces.map(interfaceXml),
      element("controller", { type: "usb", model: "none" }),
      element("memballoon", { model: "none" }),
    ]),
    element("qemu:commandline", {}, [
      element("qemu:arg", { value: "-device" }),
      element("qemu:arg", { value: EXIT_DEVICE }),
    ]),
  ]);
}
