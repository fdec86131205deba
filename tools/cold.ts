/**
 * Which functions of the generated code are compiled for size: everything that runs at boot, on a
 * command or on a failure, but not per packet. It keeps the image small; the packet path stays
 * compiled for speed. Called by build-image.ts.
 */

/** Modules, or beginnings of functions in them, by the names that wasm2c makes of them. */
const COLD = [
  "kernel/(acpi|config|console|control|cpus|crew|device-stats|events|hotplug|interrupts|memory)",
  "kernel/(nic/|nics-forward|nics/(bring|find|print|announce|are)|stats|text|words)",
  "kernel/worker/(boot|obey|readSetup|setUp|postOf|start|turn|adopt|Post)",
  "kernel/lanes/make",
  "kernel/main/(boot|features|obey|open|end)",
  "kernel/net/(address|arp|dhcp|relay)",
  "kernel/(acpi|config|console|control|cpus|crew|device-stats|events|interrupts|memory|watchdog)",
  "kernel/(nic|stats|text|words|worker/boot)",
  "kernel/main/(boot|find|features|obey|open|end|announce|print)",
  "kernel/net/(address/|address6/(parse|write)|arp|dad|dhcp|mirror6|mld|nd|nd-message|relay|slaac)",
  "kernel/net/stack/Stack#(poll|constructor|announce|mirror)",
  "kernel/net/stack6/Stack6#(discover|constructor|begin|announce|poll|nextHop)",
  "kernel/net/addresses6/Addresses6#(set|setLinkLocal|sourceFor|writeGroups|isOnLink|free|remove)",
  "kernel/net/ipv6-extensions",
  "kernel/apps/source-frame",
  "drivers/virtio/buffer-ids/BufferIds#(constructor|reset|bend|abandon)",
  "kernel/apps/source/Source#(align|prepare|ask|whatCannotBeSent|constructor|build)",
  "drivers/pci",
  "drivers/virtio/(transport|capabilities|features)",
  "drivers/net/(commands|control-queue|device|net-config|rss|settings|hash-report/HashParameters|queue-reset)",
  "drivers/virtio/\\w+-(ring|offer)/\\w+#(constructor|reset|offerCommand|isLeftBehind|abandon)",
  "drivers/net/(commands|control-queue|device|net-config|rss|settings)",
  "drivers/net/packet/PacketPool#(constructor|reset)",
  "drivers/net/queue-pair/QueuePair#(constructor|empty|takeBack|renew|describe|start|fault)",
  "drivers/net/queue-pair/QueuePair#(constructor|renew|start)",
  "drivers/net/[^ (]*letGo",
  "kernel/lane/Lane#constructor",
  "~lib",
  "~start",
];

function mangled(pattern: string): string {
  return pattern.replace(/[/#~-]/g, (character) => {
    const code = character.charCodeAt(0).toString(16).toUpperCase();
    return `0x${code}`;
  });
}

/** Declarations for the C compiler, made from the prototypes in wasm2c's output. */
export function coldDeclarations(generated: string): string {
  const cold = new RegExp(` w2c_vireo_(${COLD.map(mangled).join("|")})`);
  const prototypes = generated
    .split("\n")
    .filter((line) => /^(static )?\w+ w2c_vireo_\w+\(w2c_vireo\*.*\);$/.test(line));
  const chosen = prototypes.filter((line) => cold.test(line));
  if (chosen.length === 0) {
    throw new Error("no prototype of a cold function in wasm2c's output: check tools/cold.ts");
  }
  return chosen.map((line) => `${line.slice(0, -1)} __attribute__((cold));\n`).join("");
}
