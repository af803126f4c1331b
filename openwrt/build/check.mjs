#!/usr/bin/env node
/**
 * `npm run check`: types, lint, format, and the tests of the house rules (purity of core, arrows
 * between folders, budgets). With `--static` without those tests.
 */
import { spawnSync } from 'node:child_process';
import { root } from './paths.mjs';

const tool = (name) => `node_modules/.bin/${name}`;
const checks = [
  ['types of core', tool('tsc'), '-p', 'core'],
  ['types', tool('tsc'), '-p', '.'],
  ['lint', tool('oxlint'), '--type-aware', '--format=unix'],
  ['format', tool('prettier'), '--check', '--log-level=warn', '--no-color', '.'],
];
if (!process.argv.includes('--static')) {
  checks.push(['house rules', 'node', 'test/run.mjs', 'test/architecture', 'test/budget']);
}

const failed = checks.filter(
  ([name, command, ...parameters]) => !passes(name, command, parameters),
);
if (failed.length > 0) {
  console.error(`\nfailed: ${failed.map(([name]) => name).join(', ')}`);
  process.exitCode = 1;
}

function passes(name, command, parameters) {
  const started = performance.now();
  const { status, stdout, stderr } = spawnSync(command, parameters, {
    cwd: root,
    encoding: 'utf8',
  });
  const ok = status === 0;
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}  ${Math.round(performance.now() - started)} ms`);
  if (!ok) console.log(`${stdout}${stderr}`.trim());
  return ok;
}
