// The command line: `qemu-test-harness run|list|matrix|probe|lab`. Started by bin/qemu-test-harness.mjs.
//
// Exit statuses: 0 all is well, 1 a test failed (or none passed), 2 wrong usage, 3 this machine
// lacks something.

import { parseArgs } from "node:util";
import { chooseAccelerator } from "./accelerator";
import { EnvironmentError, messageOf, UsageError } from "./errors";
import { describeLab, runInLab } from "./lab/lab";
import { MATRIX_USAGE, matrix } from "./matrix/command";
import { findQemu } from "./qemu";
import { exitOnSignals } from "./run-scope";
import { type RunOptions, run } from "./runner/run";
import { defaultImage } from "./vm-options";

const STATUS_USAGE = 2;
const STATUS_ENVIRONMENT = 3;

const USAGE = {
  main: `usage: qemu-test-harness <command> [options]

  run [paths]    runs test files (default: test/unit test/hostile test/integration)
  list [paths]   names the tests without running them
  matrix         every combination of ring features and queues on every backend
  probe          says which accelerator this machine can use, and why
  lab [command]  a shell, or a command, on a nested host with KVM, vhost-net and Open vSwitch

'qemu-test-harness <command> --help' explains a command.
exit status: 0 well, 1 failed tests, 2 wrong usage, 3 the machine lacks something`,
  run: `usage: qemu-test-harness run [options] [paths]

  --grep PATTERN     only tests whose 'suite test' matches the regular expression
  --jobs N           files at a time (default: 2; below integration/ 1, except those that
                     say in a comment '// Shares the machine: WHY')
  --list             name the tests without running them
  --image PATH       the image that tests boot (default: build/vireo.elf)
  --json PATH        results as JSON (default: build/test-results.json)
  --junit PATH       results as JUnit XML (default: build/test-results.xml)
  --artifacts PATH   files of failed tests (default: build/test-artifacts)
  --no-output MS     ends a file that says nothing for so long (default: 120000)
  --no-lab           skips what this machine cannot run, instead of running it in the lab
  --only PATH        only the tests in a JSON file: {"file": ["suite › test", ...], ...}`,
  list: `usage: qemu-test-harness list [--grep PATTERN] [paths]`,
  matrix: MATRIX_USAGE,
  probe: `usage: qemu-test-harness probe [--image PATH] [--json]`,
  lab: `usage: qemu-test-harness lab [[--] command [arguments]]

  Boots a Debian kernel under QEMU whose root is this machine's file system: read-only, with what is
  written kept in memory, except below build/. It has /dev/kvm, /dev/vhost-net and the kernel's Open
  vSwitch. Without a command it gives a shell; 'exit' ends it. The status is the command's.
  The kernel is Debian's package, downloaded once to build/lab and not installed.`,
} as const;

const LAB_GREETING = "the lab: root, KVM, vhost-net and Open vSwitch; exit ends it";
const DEFAULT_PATHS = ["test/unit", "test/hostile", "test/integration"];

/** Runs the command in `argv` (without node and script) and returns the exit status. */
export async function main(argv: readonly string[]): Promise<number> {
  const [command = "--help", ...args] = argv;
  try {
    if (command === "--help" || command === "-h" || command === "help") return help("main");
    if (!(command in USAGE)) throw new UsageError(`unknown command '${command}'`);
    if (command === "lab" && args[0] !== "--help" && args[0] !== "-h") return await lab(args);
    if (args.includes("--help") || args.includes("-h")) return help(command as keyof typeof USAGE);
    if (command === "matrix") return await matrix(args);
    if (command === "probe") return await probe(args);
    return await run(runOptions(args, command === "list"));
  } catch (error) {
    const code = (error as { code?: string }).code ?? "";
    if (error instanceof UsageError || code.startsWith("ERR_PARSE_ARGS")) {
      console.error(`${messageOf(error)}; see 'qemu-test-harness --help'`);
      return STATUS_USAGE;
    }
    if (!(error instanceof EnvironmentError)) throw error;
    console.error(error.message);
    return STATUS_ENVIRONMENT;
  }
}

function help(topic: keyof typeof USAGE): number {
  console.log(USAGE[topic]);
  return 0;
}

/** The options of `run` in `args`; `make test` uses it for its own arguments. */
export function runOptions(args: readonly string[], listOnly = false): RunOptions {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      grep: { type: "string" },
      jobs: { type: "string" },
      list: { type: "boolean", default: listOnly },
      image: { type: "string" },
      json: { type: "string", default: "build/test-results.json" },
      junit: { type: "string", default: "build/test-results.xml" },
      artifacts: { type: "string" },
      "no-output": { type: "string" },
      "no-lab": { type: "boolean", default: false },
      only: { type: "string" },
    },
  });
  const { grep, image, artifacts, only } = values;
  const jobs = positive("--jobs", values.jobs);
  const noOutputMs = positive("--no-output", values["no-output"]);
  if (grep !== undefined) checkPattern(grep);
  return {
    paths: positionals.length > 0 ? positionals : DEFAULT_PATHS,
    list: values.list,
    noLab: values["no-lab"],
    json: values.json,
    junit: values.junit,
    ...(grep === undefined ? {} : { grep }),
    ...(only === undefined ? {} : { only }),
    ...(image === undefined ? {} : { image }),
    ...(artifacts === undefined ? {} : { artifacts }),
    ...(jobs === undefined ? {} : { jobs }),
    ...(noOutputMs === undefined ? {} : { noOutputMs }),
  };
}

function positive(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) {
    throw new UsageError(`${option} wants a whole number from 1 on, not '${text}'`);
  }
  return value;
}

function checkPattern(pattern: string): void {
  try {
    new RegExp(pattern);
  } catch (error) {
    throw new UsageError(`--grep: ${messageOf(error)}`);
  }
}

async function probe(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: { image: { type: "string" }, json: { type: "boolean", default: false } },
  });
  const qemu = findQemu();
  const choice = await chooseAccelerator(values.image ?? defaultImage());
  if (values.json) {
    const { accelerator, reason } = choice;
    console.log(JSON.stringify({ accelerator, reason, qemu: qemu.version }));
  } else {
    console.log(`${choice.accelerator}: ${choice.reason}\nQEMU ${qemu.version} (${qemu.path})`);
  }
  return 0;
}

async function lab(args: readonly string[]): Promise<number> {
  const argv = args[0] === "--" ? args.slice(1) : args;
  const command = argv.length > 0 ? argv : ["sh", "-c", `echo '${LAB_GREETING}'; exec bash -i`];
  const result = await runInLab(command);
  console.error(describeLab(result));
  return result.status;
}

/** For the executable: runs the command and exits with its status. */
export async function start(): Promise<void> {
  exitOnSignals();
  process.exit(await main(process.argv.slice(2)));
}
