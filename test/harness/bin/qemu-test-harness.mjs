#!/usr/bin/env node
// The executable: bundles the command line (TypeScript, which Node 20 cannot run) into
// build/harness/cli.mjs and starts it. Bundling takes some tens of milliseconds, so it is done
// every time and can never be stale.

import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const source = join(dirname(fileURLToPath(import.meta.url)), '../src/cli.ts');
const outfile = 'build/harness/cli.mjs';
await build({
  entryPoints: [source],
  outfile,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  sourcemap: 'inline',
  logLevel: 'error',
  external: ['esbuild'],
});
const { start } = await import(pathToFileURL(outfile).href);
await start();
