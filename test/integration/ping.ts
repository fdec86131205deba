// Pings from a namespace. Used by all tests that have the Linux kernel as their peer.

import { assert } from "qemu-test-harness";

/** Where programs run: the namespace of a tap, or the world outside a switch. */
interface Shell {
  exec(
    argv: readonly string[],
    options?: { timeoutMs?: number },
  ): Promise<{ readonly stdout: string; readonly stderr: string }>;
}

const LATE_MS = 5000;
const LOOK_MS = 50;

/**
 * Pings `address` (IPv4 or IPv6) with these options of ping(8); every ping has to be answered.
 *
 * ping waits for the last answers only for two of the round trips that it has seen, and calls the
 * others lost. On a busy host they may only be late: then the kernel's counter decides, within 5 s.
 */
export async function ping(net: Shell, words: string, address: string): Promise<void> {
  const before = await answers(net);
  const argv = ["ping", "-q", "-W", "2", ...words.split(" "), address];
  const { stdout, stderr } = await net.exec(argv, { timeoutMs: 60_000 });
  if (stdout.includes(" 0% packet loss")) return;
  const sent = Number(/(\d+) packets transmitted/.exec(stdout)?.[1]);
  assert.ok(sent > 0, `${argv.join(" ")}: ${stdout}${stderr}`);
  const deadline = Date.now() + LATE_MS;
  let arrived = 0;
  while (arrived < sent && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    arrived = (await answers(net)) - before;
  }
  assert.is(arrived, sent, `${argv.join(" ")}: ${stdout}${stderr}`);
}

/** Echo replies of both protocols that the kernel has received in this namespace. */
async function answers(net: Shell): Promise<number> {
  const { stdout } = await net.exec(["cat", "/proc/net/snmp", "/proc/net/snmp6"]);
  const six = /^Icmp6InEchoReplies\s+(\d+)/m.exec(stdout)?.[1];
  const [names = "", values = ""] = stdout.split("\n").filter((line) => line.startsWith("Icmp: "));
  const four = values.split(" ")[names.split(" ").indexOf("InEchoReps")];
  assert.ok(four !== undefined && six !== undefined, `no counters of ICMP: ${stdout}`);
  return Number(four) + Number(six);
}
