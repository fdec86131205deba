// What `make features` starts: the image behind each kind of backend on this machine, and one table
// of what was offered, what the driver accepted, and why it declined the rest.

import { parseArgs } from "node:util";
import { EnvironmentError, messageOf } from "../test/harness/src/errors";
import { exitOnSignals } from "../test/harness/src/run-scope";
import { askAll } from "./features-ask";
import { formatTable } from "./features-table";

const USAGE = `usage: make features [FEATURES='options']

  --json     the columns as JSON instead of a table
  --image F  another image than build/vireo.elf

Backends that this machine cannot run (no root, no DPDK) are named with the reason.`;

const STATUS_FAILED = 1;
const STATUS_USAGE = 2;
const STATUS_ENVIRONMENT = 3;

async function main(): Promise<number> {
  let values: { json: boolean; help: boolean; image?: string | undefined };
  try {
    ({ values } = parseArgs({
      options: {
        json: { type: "boolean", default: false },
        image: { type: "string" },
        help: { type: "boolean", short: "h", default: false },
      },
    }));
  } catch (error) {
    console.error(`${messageOf(error)}; see --help`);
    return STATUS_USAGE;
  }
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  try {
    const columns = await askAll(values.image);
    console.log(values.json ? JSON.stringify(columns, null, 2) : formatTable(columns));
    return 0;
  } catch (error) {
    console.error(messageOf(error));
    return error instanceof EnvironmentError ? STATUS_ENVIRONMENT : STATUS_FAILED;
  }
}

exitOnSignals();
process.exit(await main());
