// Control commands on the model: bytes of those that QEMU does not have, what the device refuses,
// what it does not answer, and what it is told again after a reset. virtio 1.4 §5.1.9.5

import { assert, type GuestEvent, suite, type TestContext } from "qemu-test-harness";
import { makeGuest } from "../model/guest";
import { type ControlAnswer, type ControlCommand, respondTo } from "../model/net/control-responder";

const test = suite("control");

const OK: ControlAnswer = { ack: 0 };
const REFUSED: ControlAnswer = { ack: 1 };
/** ctrl_vq, ctrl_rx, ctrl_vlan, device_stats, vq_notf_coal, notf_coal. */
const FEATURES = [17n, 18n, 19n, 50n, 52n, 53n].reduce((set, n) => set | (1n << n), 0n);

function start(
  t: TestContext,
  answer: (command: ControlCommand) => ControlAnswer | undefined = () => OK,
) {
  const guest = makeGuest(t, { net: { moreFeatures: FEATURES, controlSize: 64 } });
  const said: string[] = [];
  respondTo(guest.nic, (command) => {
    said.push(`${command.id} ${command.data.toString("hex")}`.trim());
    return answer(command);
  });
  guest.start();
  return { guest, said };
}

for (const [line, bytes] of [
  ["coal rx 10 20", "6.1 140000000a000000"],
  ["coal tx 4294967295 1", "6.0 01000000ffffffff"],
  ["coal vq 1 3 4", "6.2 010000000400000003000000"],
  ["vlan add 4094", "2.0 fe0f"],
  ["rx allmulti on", "0.1 01"],
  ["mac table - -", "1.0 0000000000000000"],
] as const) {
  test(`${line}: its bytes, and again after a reset`, (t) => {
    const { guest, said } = start(t);
    assert.is(guest.command(line).result, "ok");
    assert.equal(said, [bytes]);
    assert.is(guest.command("reset").result, "ok");
    assert.equal(said, [bytes, bytes]);
  });

  test(`${line}: refused, and not told again`, (t) => {
    const { guest, said } = start(t, () => REFUSED);
    assert.is(guest.command(line).result, "refused");
    assert.is(guest.command("reset").result, "ok");
    assert.equal(said, [bytes]);
  });
}

test("coal rx undoes what single receive queues had", (t) => {
  const { guest, said } = start(t);
  for (const line of ["coal vq 0 1 1", "coal vq 1 2 2", "coal rx 3 3"]) guest.command(line);
  said.length = 0;
  guest.command("reset");
  assert.equal(said, ["6.1 0300000003000000", "6.2 010000000200000002000000"]);
});

test("coal vq: what was read is printed; not if the device refused (§5.1.9.5.10.5)", (t) => {
  let ack = 0;
  const result = Buffer.from("0700000009000000", "hex");
  const { guest, said } = start(t, () => ({ ack, result }));
  const { usecs, packets } = guest.command("coal vq 1");
  assert.equal([usecs, packets], [9, 7]);
  assert.equal(said, ["6.3 01000000"]);
  ack = 1;
  const refused = guest.command("coal vq 0");
  assert.equal([refused.result, refused.usecs], ["refused", undefined]);
});

test("coal vq: only of a queue in use, the control queue is none", (t) => {
  const { guest, said } = start(t);
  for (const queue of [2, 3, 65535]) guest.machine.console.type(`coal vq ${queue} 1 1`);
  guest.settle();
  assert.is(guest.errors().length, 3);
  assert.equal(said, []);
});

function reply(type: number, queue: number, counters: readonly number[]): Buffer {
  const bytes = Buffer.alloc(8 + 8 * counters.length);
  bytes.writeUInt8(type, 0);
  bytes.writeUInt16LE(queue, 2);
  bytes.writeUInt16LE(bytes.length, 6);
  counters.forEach((value, i) => {
    bytes.writeBigUInt64LE(BigInt(value), 8 + 8 * i);
  });
  return bytes;
}

test("devstats: only types that the device has and that fit the queue (§5.1.9.5.11.13)", (t) => {
  // rx_basic, rx_speed, tx_basic and the control queue's; and one that nobody knows.
  const supported = 0x1n | 0x8n | 0x10000n | (1n << 32n) | (1n << 60n);
  const { guest, said } = start(t, ({ id, data }) => {
    if (id === "8.0") {
      const result = Buffer.alloc(8);
      result.writeBigUInt64LE(supported);
      return { ack: 0, result };
    }
    const queue = data.readUInt16LE(0);
    if (queue === 2) return { ack: 0, result: reply(32, 2, [5, 4]) };
    if (queue === 1) return { ack: 0, result: reply(16, 1, [1, 2, 3, 4, 5, 6]) };
    // A later version has a counter more and a type that we do not know.
    const basic = reply(0, 0, [11, 12, 13, 14, 15, 16, 17]);
    return { ack: 0, result: Buffer.concat([basic, reply(77, 0, [1]), reply(3, 0, [8, 9])]) };
  });
  assert.is(guest.command("devstats").result, "ok");
  assert.equal(said, [
    "8.0",
    "8.1 00000000000000000900000000000000",
    "8.1 01000000000000000000010000000000",
    "8.1 02000000000000000000000001000000",
  ]);
  const [rx, tx, control] = guest.machine.console.all("devstats") as GuestEvent[];
  assert.equal([rx?.kind, rx?.packets, rx?.drop_overruns], ["rx", 12, 16]);
  assert.is(rx?.packets_allowance_exceeded, 8);
  assert.equal([tx?.kind, tx?.bytes, tx?.drop_malformed], ["tx", 3, 6]);
  assert.equal([control?.kind, control?.queue, control?.ok_num], ["control", 2, 4]);
});

for (const size of [0, 7, 9, 4096, 65535]) {
  test(`devstats: a reply that says that it has ${size} bytes does no harm`, (t) => {
    const { guest } = start(t, ({ id }) => {
      if (id === "8.0") return { ack: 0, result: Buffer.from("0100000000000000", "hex") };
      const result = reply(0, 0, [1, 2, 3]);
      result.writeUInt16LE(size, 6);
      return { ack: 0, result };
    });
    assert.is(guest.command("devstats").result, "ok");
    guest.echo(Buffer.from("still here"));
  });
}

test("no answer: failed in bounded time, a reset, and packets pass before and after", (t) => {
  let answers = true;
  const { guest, said } = start(t, () => (answers ? OK : undefined));
  guest.command("vlan add 3");
  answers = false;
  guest.machine.console.type("vlan add 4");
  guest.machine.console.type("rx allmulti on");
  guest.echo(Buffer.from("while the command is under way"));
  guest.until(() => said.length === 2, "it is sent");
  answers = true;
  const results = () =>
    guest.machine.console.all("control").map((event) => `${event.command} ${event.result}`);
  guest.until(() => results().length === 3, "both have ended", { us: 10e6 });
  assert.equal(results(), ["vlan add 3 ok", "vlan add 4 failed", "rx allmulti on ok"]);
  assert.equal(guest.errors(), ["the device does not answer a command"]);
  // What had been agreed to is told again, what failed is not.
  assert.equal(said, ["2.0 0300", "2.0 0400", "2.0 0300", "0.1 01"]);
  guest.echo(Buffer.from("after the reset"));
});

test("an ack that the device did not write counts as a refusal", (t) => {
  const { guest } = start(t, () => ({ ack: 0xff }));
  assert.is(guest.command("vlan add 3").result, "refused");
});

test.run();
