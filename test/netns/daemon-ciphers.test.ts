import t from 'tap';
import type { DaemonStatus } from '../../openwrt/daemon-status.ts';
import type { CipherName } from '../../openwrt/fast-path.ts';
import { whyNoLab } from '../lab/namespaces.ts';
import { TwoSites, type Site } from '../lab/two-sites.ts';

const skip = whyNoLab();

await t.test('a daemon takes the fastest cipher and says why', { skip }, async (t) => {
  const sites = await TwoSites.create(t, 'cph-fast');
  await sites.start();
  const { cipher, provider, trials } = await cryptoOf(sites.a);
  t.equal(provider, 'node');
  const speeds = trials.map((trial) => ('skip' in trial ? 0 : trial.packetsPerSecond));
  const fastest = trials[speeds.indexOf(Math.max(...speeds))];
  t.equal(cipher, fastest?.name);
  t.same(
    trials.map(({ name }) => name),
    ['openssl', 'wasm-simd', 'node', 'noble'],
  );
  t.notOk(trials[0] && 'skip' in trials[0], 'OpenSSL is inside of this Node.js');
  await sites.ping(t, 'a', sites.b.ipv4);
});

const PAIRS: readonly (readonly [CipherName, CipherName])[] = [
  ['openssl', 'wasm-simd'],
  ['wasm', 'node'],
  ['noble', 'openssl'],
];
for (const [cipherOfA, cipherOfB] of PAIRS) {
  await t.test(`${cipherOfA} understands ${cipherOfB}`, { skip }, async (t) => {
    const sites = await TwoSites.create(t, 'cph');
    const { a, b, lab } = sites;
    for (const site of [a, b]) site.daemon.configure(sites.configurationOf(site));
    await Promise.all([
      a.daemon.start('--cipher', cipherOfA),
      b.daemon.start('--cipher', cipherOfB),
    ]);
    t.equal((await cryptoOf(a)).cipher, cipherOfA);
    t.equal((await cryptoOf(b)).cipher, cipherOfB);
    await sites.ping(t, 'a', b.ipv6);

    const server = lab.spawn('b', ['iperf3', '-s', '-1', '--forceflush']);
    await server.waitFor(/Server listening/, 5000);
    const { code, stdout } = await lab.exec('a', ['iperf3', '-c', b.ipv4, '-n', '8M', '--bidir']);
    t.equal(code, 0, code === 0 ? '8 MB pass in each direction' : stdout.slice(-500));
    const { drops } = await a.daemon.status();
    t.notOk(drops['not-authentic'], 'and all of it is authentic');
  });
}

async function cryptoOf({ daemon }: Site): Promise<DaemonStatus['crypto']> {
  return ((await daemon.status()) as DaemonStatus).crypto;
}
