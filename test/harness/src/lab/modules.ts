// Which kernel modules the lab loads, and in which order: each after those it depends on. Read from
// the modules themselves (`depends=` in their .modinfo), so that no depmod is needed. Called by
// image.ts.

import { EnvironmentError } from "../errors";

/** What the lab is for, and what it is built on. */
export const WANTED_MODULES: readonly string[] = [
  ...["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"],
  ...["tun", "vhost_net", "kvm_amd", "veth", "bridge", "8021q", "crc32c_generic", "openvswitch"],
  ...["virtio_net", "pktgen"],
];

/** What a Linux guest on the same kernel needs, to be compared with; a part of the above. */
export const GUEST_MODULES: readonly string[] = ["virtio_pci", "virtio_net", "pktgen"];

/** Reads a module by its name, with `_` or `-`; undefined when the kernel has no such module. */
export type ModuleReader = (name: string) => Buffer | undefined;

/** Module names are written with `_` or `-`, and mean the same. */
export function plainName(name: string): string {
  return name.replaceAll("-", "_");
}

/** The names in a module's `depends=`. */
export function dependenciesOf(module: Buffer): string[] {
  const key = Buffer.from("\0depends=");
  const at = module.indexOf(key);
  if (at < 0) return [];
  const start = at + key.length;
  const text = module.subarray(start, module.indexOf(0, start)).toString();
  return text.split(",").filter((name) => name !== "");
}

/** All modules that `wanted` needs, each after its dependencies. Throws when one is missing. */
export function loadOrder(wanted: readonly string[], read: ModuleReader): Map<string, Buffer> {
  const order = new Map<string, Buffer>();
  const visit = (name: string) => {
    const plain = plainName(name);
    if (order.has(plain)) return;
    const module = read(plain);
    if (module === undefined) {
      throw new EnvironmentError(`lab: the kernel has no module ${name}: use Debian's linux-image`);
    }
    for (const dependency of dependenciesOf(module)) visit(dependency);
    order.set(plain, module);
  };
  for (const name of wanted) visit(name);
  return order;
}
