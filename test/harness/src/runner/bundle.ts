// Bundles a test file into one JavaScript module that Node can run. Called by the runner for each
// file.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { HarnessError, messageOf } from "../errors";
import { inLab } from "../lab/lab";

const OUTPUT = "build/harness/tests";

/** Packages with files of their own beside their code, which must be loaded from node_modules. */
const EXTERNAL = ["assemblyscript", "binaryen", "esbuild", "koffi", "typescript", "wabt"];

/**
 * Bundles `file` and returns the module's path. Throws with the compiler's message. What `isPart` of
 * a run that goes on in the lab has been bundled by that run, in the build directory that the two
 * share; the lab is slow.
 */
export async function bundleTest(file: string, isPart: boolean): Promise<string> {
  const output = join(OUTPUT, file.replace(/\.ts$/, ".mjs"));
  if (isPart && inLab() && existsSync(output)) return output;
  try {
    await build({
      entryPoints: [file],
      outfile: output,
      bundle: true,
      platform: "node",
      target: "node20",
      format: "esm",
      sourcemap: "inline",
      logLevel: "silent",
      external: EXTERNAL,
    });
  } catch (error) {
    throw new HarnessError(`${file} does not compile: ${messageOf(error)}`);
  }
  return output;
}
