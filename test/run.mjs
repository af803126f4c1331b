#!/usr/bin/env node
/**
 * `npm test`: the one test command. It starts on a bare Debian machine with Node.js and npm, installs
 * what is missing, builds, checks and runs every test. Without root it says what it leaves out.
 *
 *   npm test                        everything
 *   npm test -- test/core test/x.test.ts   the test files there only, nothing installed or built
 *
 * The last line is `N passed, N failed, N skipped`. With CI set, a skipped test is a failure.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { chdir } from 'node:process';
import { fileURLToPath } from 'node:url';
import { install, missingPackages } from './run/debian.mjs';
import { installPackages, isInstalled } from './run/npm.mjs';
import { runFiles } from './run/tap.mjs';

/** Folders whose tests build networks or measure: as root, and one file at a time. */
const SERIAL = ['test/netns/', 'test/interop/', 'test/lab/'];
/** Those that only wait, for WireGuard's rekeying after 120 s or for lifetimes of a relay, do so beside others. */
const WAITING = ['test/interop/wireguard-go.test.ts', 'test/interop/coturn.test.ts'];

chdir(fileURLToPath(new URL('..', import.meta.url)));
const isRoot = process.getuid() === 0;
const isCi = Boolean(process.env.CI) && process.env.CI !== 'false';
const wanted = process.argv.slice(2);
const counts = { passed: 0, failed: 0, skipped: 0 };
const started = Date.now();

try {
  await main();
} catch (error) {
  counts.failed++;
  console.error(error.message);
}
console.log(`\n${Math.round((Date.now() - started) / 1000)} s`);
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = counts.failed > 0 || (isCi && counts.skipped > 0) ? 1 : 0;

async function main() {
  if (wanted.length === 0) prepare();
  const files = testFiles();
  const isSerial = (file) => SERIAL.some((folder) => file.startsWith(folder));
  const isWaiting = (file) => isRoot && WAITING.includes(file);
  heading('tests');
  const parallel = files.filter((file) => !isSerial(file));
  const counted = await Promise.all([
    runFiles(parallel, { jobs: 2, timeoutSeconds: 300 }),
    runFiles(files.filter(isWaiting), { jobs: 1, timeoutSeconds: 300 }),
  ]);
  counted.forEach(add);
  const serial = files.filter((file) => isSerial(file) && !isWaiting(file));
  if (isRoot) {
    add(await runFiles(serial, { jobs: 1, timeoutSeconds: 300 }));
  } else if (serial.length > 0) {
    console.log(`skipped: ${serial.length} files of tests that need root (network namespaces)`);
    counts.skipped += serial.length;
  }
}

function prepare() {
  const missing = missingPackages();
  if (missing.length > 0) {
    heading('Debian packages');
    if (isRoot && existsSync('/usr/bin/apt-get')) {
      const left = install(missing);
      if (left.length > 0) fail(`could not be installed: ${names(left)}`);
    } else {
      console.log(`not installed (needs root and apt-get): ${names(missing)}`);
    }
  }
  if (!isInstalled()) {
    heading('npm packages');
    installPackages();
  }
  buildIndependentReader();
  heading('build');
  step('the build', 'node', 'openwrt/build/build.mjs');
  heading('check');
  step('the check', 'node', 'openwrt/build/check.mjs', '--static');
}

/**
 * node-netlink reads back, as an independent program, what our netlink code did. Its two addons are
 * one C file each that need nothing but the headers of Node-API, so gcc alone builds them.
 */
function buildIndependentReader() {
  for (const [folder, name] of [
    ['syscall-napi', 'syscall'],
    ['buffer2address', 'buffer2address'],
  ]) {
    const out = `node_modules/${folder}/build/Release/${name}.node`;
    if (existsSync(out)) continue;
    mkdirSync(`node_modules/${folder}/build/Release`, { recursive: true });
    const flags = ['-O2', '-w', '-shared', '-fPIC', '-Inode_modules/node-api-headers/include'];
    const source = `node_modules/${folder}/native/${name}.c`;
    run('gcc', ...flags, `-DNODE_GYP_MODULE_NAME=${name}`, '-o', out, source);
  }
}

/** The test files asked for, or all of them, in the order of their paths. */
function testFiles() {
  const all = readdirSync('test', { recursive: true, encoding: 'utf8' })
    .map((name) => `test/${name}`)
    .filter((path) => path.endsWith('.test.ts'))
    .sort();
  const files =
    wanted.length === 0
      ? all
      : all.filter((file) => wanted.some((path) => file === path || file.startsWith(folder(path))));
  if (files.length === 0) throw new Error(`no test files in ${wanted.join(', ') || 'test'}`);
  return files;
}

function folder(path) {
  return path.replace(/\/*$/, '/');
}

/** Runs a command whose failure is a failed test, so that the tests still get to run. */
function step(name, command, ...parameters) {
  const { status } = spawnSync(command, parameters, { stdio: 'inherit' });
  if (status !== 0) fail(name);
}

function run(command, ...parameters) {
  execFileSync(command, parameters, { stdio: 'inherit' });
}

function fail(what) {
  console.log(`FAIL ${what}`);
  counts.failed++;
}

function add({ passed, failed, skipped }) {
  counts.passed += passed;
  counts.failed += failed;
  counts.skipped += skipped;
}

function heading(text) {
  console.log(`\n— ${text}`);
}

function names(packages) {
  return packages.map(({ debian }) => debian).join(' ');
}
