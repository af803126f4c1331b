#!/usr/bin/env node
/**
 * `npm run demo`: two sites, an internet between them, and a fleet that configures them. Installs what
 * is missing, builds, then runs `demo.ts`.
 */
import { spawnSync } from 'node:child_process';
import { chdir } from 'node:process';
import { fileURLToPath } from 'node:url';
import { install, missingPackages } from '../run/debian.mjs';
import { installPackages, isInstalled } from '../run/npm.mjs';

/** Programs that the demo cannot do without, as Debian packages. */
const NEEDED = ['iproute2', 'iputils-ping', 'gcc', 'libc6-dev'];

chdir(fileURLToPath(new URL('../..', import.meta.url)));
const unknown = process.argv.slice(2).filter((option) => option !== '--keep');
if (unknown.length > 0) {
  console.error(`unknown: ${unknown.join(' ')}. Usage: npm run demo [-- --keep]`);
  process.exit(2);
}
if (process.getuid() !== 0) {
  console.error('The demo builds network namespaces, which needs root: sudo npm run demo');
  process.exit(1);
}
const missing = missingPackages().filter(({ debian }) => NEEDED.includes(debian));
if (missing.length > 0) {
  console.log(`installing ${missing.map(({ debian }) => debian).join(' ')} ...`);
  const left = install(missing);
  if (left.length > 0) {
    console.error(`could not be installed: ${left.map(({ debian }) => debian).join(' ')}`);
    process.exit(1);
  }
}
if (!isInstalled()) installPackages();
step(process.execPath, 'openwrt/build/build.mjs');

const { build } = await import('esbuild');
await build({
  entryPoints: ['test/demo/demo.ts'],
  outfile: 'dist/demo.mjs',
  bundle: true,
  platform: 'node',
  format: 'esm',
  logLevel: 'warning',
});
const { demo } = await import('../../dist/demo.mjs');
process.exitCode = await demo({ keep: process.argv.includes('--keep') });

/** Runs a command quietly; shows what it said only when it fails. */
function step(command, ...parameters) {
  const { status, stdout, stderr } = spawnSync(command, parameters, { encoding: 'utf8' });
  if (status === 0) return;
  console.error(`${stdout}${stderr}\nfailed: ${command} ${parameters.join(' ')}`);
  process.exit(1);
}
