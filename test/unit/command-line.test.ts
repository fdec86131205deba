// Command lines that are wrong: one `error` event that names what is wrong, and status 35. And
// some that are right and change what happens.

import { assert, suite } from "qemu-test-harness";
import { makeGuest, STATIC_IP, startGuest } from "../model/guest";

const test = suite("command line");

/** A wrong line, and what its error must name. */
const WRONG: readonly (readonly [string, RegExp])[] = [
  ["speed=11", /speed.*not a key/],
  ["nonsense", /nonsense.*not key=value/],
  ["app=serve", /app: "serve"/],
  ["app=", /app: "" is empty/],
  ["ip=192.0.2.2", /ip: "192.0.2.2"/],
  ["ip=192.0.2.256/24", /ip: "192.0.2.256/],
  ["ip=192.0.2.0/24", /ip: "192.0.2.0\/24"/],
  ["ip=192.0.2.2/33", /ip: "192.0.2.2\/33"/],
  ["ip=192.0.2.2/24 gw=203.0.113.1", /gw: "203.0.113.1"/],
  ["queues=0", /queues: "0"/],
  ["queues=99999", /queues: "99999"/],
  ["ring=round", /ring: "round"/],
  ["mode=lazy", /mode: "lazy"/],
  ["features=mrg_rxbuf", /features: "mrg_rxbuf"/],
  ["features=-no_such_thing", /features: "-no_such_thing"/],
  ["app=source size=59", /size: "59"/],
  ["app=source size=9015", /size: "9015"/],
  ["app=source burst=65", /burst: "65"/],
  ["app=source dst=52:54:00:12:34", /dst: "52:54:00:12:34"/],
  ["app=source dstport=65536", /dstport: "65536"/],
  ["app=source count=-1", /count: "-1"/],
  ["stats=often", /stats: "often"/],
  ["log=all", /log: "all"/],
  ["mode=irq mode=poll", /mode=poll.*repeats/],
  [`app=${"x".repeat(2100)}`, /longer than 2048/],
];

for (const [line, pattern] of WRONG) {
  test(`'${line.slice(0, 40)}' is refused by name`, (t) => {
    const guest = makeGuest(t, { commandLine: line });
    guest.machine.boot();
    const errors = guest.errors();
    assert.is(errors.length, 1, errors.join("; "));
    assert.match(errors[0] ?? "", pattern);
    assert.is(guest.machine.console.find("exit")?.status, "failure");
    assert.is(guest.exitStatus(), 35);
    assert.is(guest.machine.log.lines(/common/).length, 0, "the device was touched");
  });
}

for (const mode of ["adaptive", "poll", "irq"] as const) {
  test(`mode=${mode} carries traffic`, (t) => {
    const guest = startGuest(t, { commandLine: `${STATIC_IP} mode=${mode}` });
    assert.is(guest.machine.console.find("ready")?.mode, mode);
    for (let i = 0; i < 20; i++) assert.equal(guest.echo(Buffer.of(i)), Buffer.of(i));
  });
}

test("log=quiet leaves out boot, device, features and link", (t) => {
  const guest = startGuest(t, { commandLine: `${STATIC_IP} log=quiet` });
  const names = guest.machine.console.events.map(({ event }) => event);
  assert.equal(names, ["ready"]);
});

test("stats=1 prints stats every second", (t) => {
  const guest = startGuest(t, { commandLine: `${STATIC_IP} stats=1` });
  const { console } = guest.machine;
  guest.until(() => console.all("stats").length === 3, "three stats", { us: 3_500_000 });
  const [first, second, third] = console.all("stats").map(({ us }) => us);
  assert.ok(Math.abs((second ?? 0) - (first ?? 0) - 1_000_000) < 50_000);
  assert.ok(Math.abs((third ?? 0) - (second ?? 0) - 1_000_000) < 50_000);
});

test.run();
