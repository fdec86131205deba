/**
 * Which functions of the generated code are compiled for size: everything that runs at boot, on a
 * command or on a failure, but not per packet. It keeps the image small; the packet path stays
 * compiled for speed. Called by build-image.ts.
 */

/** Modules, or beginnings of functions in them, by the names that wasm2c makes of them. */
const COLD = [
  "kernel/(acpi|command-line|config|console|control|cpus|crew|device-stats|events|hotplug)",
  "kernel/(interrupts|memory|nic/|nics-forward|stats|text|watchdog|words)",
  "kernel/nics/(announce|are|bring|find|print)",
  "kernel/worker/(Post|adopt|boot|obey|postOf|readSetup|setUp|start|turn)",
  "kernel/lane/Lane#constructor",
  "kernel/lanes/make",
  "kernel/main/(announce|boot|end|features|find|obey|open|print)",
  "kernel/net/(address|arp|dad|dhcp|ipv6-extensions|mirror6|nd|neighbour|relay|slaac)",
  "kernel/net/stack/Stack#(announce|constructor|mirror|poll)",
  "kernel/net/stack6/Stack6#(announce|begin|constructor|discover|nextHop|poll)",
  "kernel/net/addresses6/Addresses6#(free|isOnLink|remove|set|sourceFor|writeGroups)",
  "kernel/apps/source-frame",
  "kernel/apps/source/Source#(align|ask|build|constructor|prepare|whatCannotBeSent)",
  "drivers/pci",
  "drivers/virtio/(capabilities|features|transport)",
  "drivers/virtio/buffer-ids/BufferIds#(abandon|bend|constructor|reset)",
  "drivers/virtio/\\w+-(ring|offer)/\\w+#(abandon|constructor|isLeftBehind|offerCommand|reset)",
  "drivers/net/(commands|control-queue|device|net-config|queue-reset|rss|settings)",
  "drivers/net/hash-report/HashParameters",
  "drivers/net/packet/PacketPool#(constructor|reset)",
  "drivers/net/queue-pair/QueuePair#(constructor|describe|empty|fault|renew|start|takeBack)",
  "drivers/net/[^ (]*letGo",
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
