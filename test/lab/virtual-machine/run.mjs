#!/usr/bin/env node
/**
 * `npm run lab`: runs suites on a Debian kernel in QEMU, for what the kernel of this machine may lack.
 * `lab.ts` says what can be asked for (`npm run lab -- --help`).
 */
import { register } from 'node:module';
import { chdir } from 'node:process';
import { fileURLToPath } from 'node:url';
import { installPackages, isInstalled } from '../../run/npm.mjs';

chdir(fileURLToPath(new URL('../../..', import.meta.url)));
if (!isInstalled()) installPackages();
register('../../run/typescript-hooks.mjs', import.meta.url);
const { lab } = await import('./lab.ts');
process.exitCode = await lab(process.argv.slice(2));
