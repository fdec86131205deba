#!/usr/bin/env node
// The executable: bundles the command line (TypeScript, which Node 20 cannot run) into
// build/harness/cli.mjs and starts it. Bundling takes some tens of milliseconds, so it is done
// every time and can never be stale.

import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const source = join(dirname(fileURLToPath(import.meta.url)), '../src/cli.ts');
const outfile = 'build/harness/cli.mjs';
const STATUS_ENVIRONMENT = 3;
const options = {
  entryPoints: [source],
  outfile,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  sourcemap: 'inline',
  logLevel: 'silent',
  external: ['esbuild'],
};
await build(options).catch((error) => {
  // Without its first words, which are the bundler's.
  console.error(`${source} cannot be bundled: ${error.errors?.[0]?.text ?? error.message}`);
  process.exit(STATUS_ENVIRONMENT);
});
const { start } = await import(pathToFileURL(outfile).href);
await start();
