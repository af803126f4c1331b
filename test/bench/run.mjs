#!/usr/bin/env node
/**
 * `npm run bench`: measures the product against its peers, in ratios of one run. Installs what is
 * missing, builds, then runs `bench.ts`, which says what can be asked for (`npm run bench -- --help`).
 */
import { spawnSync } from 'node:child_process';
import { chdir } from 'node:process';
import { fileURLToPath } from 'node:url';
import { commit, sourceDate, version } from '../../openwrt/build/version.mjs';
import { install, missingPackages } from '../run/debian.mjs';
import { installPackages, isInstalled } from '../run/npm.mjs';

/** Programs that it cannot do without, as Debian packages. */
const NEEDED = [
  'iproute2',
  'iputils-ping',
  'iperf3',
  'wireguard-go',
  'wireguard-tools',
  'nftables',
  'mosquitto',
  'coturn',
  'dnsmasq-base',
  'dnsperf',
  'bind9-dnsutils',
  'unbound',
  'openssl',
  'gcc',
  'libc6-dev',
];

chdir(fileURLToPath(new URL('../..', import.meta.url)));
if (process.getuid() !== 0) {
  console.error('The benchmarks build network namespaces, which needs root: sudo npm run bench');
  process.exit(1);
}
const missing = missingPackages().filter(({ debian }) => NEEDED.includes(debian));
if (missing.length > 0) {
  console.log('installing from Debian:');
  const left = install(missing);
  for (const { debian } of left) console.error(`could not be installed: ${debian}`);
}
if (!isInstalled()) installPackages();
step(process.execPath, 'openwrt/build/build.mjs');

const { build } = await import('esbuild');
await build({
  entryPoints: {
    bench: 'test/bench/bench.ts',
    micro: 'test/bench/micro/main.ts',
    relay: 'test/bench/relay/main.ts',
  },
  outdir: 'dist/bench',
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  define: {
    __VERSION__: JSON.stringify(version),
    __COMMIT__: JSON.stringify(commit),
    __SOURCE_DATE__: String(sourceDate),
  },
  loader: { '.wasm': 'binary' },
  logLevel: 'warning',
});
const { bench } = await import('../../dist/bench/bench.mjs');
process.exitCode = await bench(process.argv.slice(2));

/** Runs a command quietly; shows what it said only when it fails. */
function step(command, ...parameters) {
  const { status, stdout, stderr } = spawnSync(command, parameters, { encoding: 'utf8' });
  if (status === 0) return;
  console.error(`${stdout}${stderr}\nfailed: ${command} ${parameters.join(' ')}`);
  process.exit(1);
}
