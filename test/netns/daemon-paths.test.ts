import t from 'tap';
import { eventually } from '../lab/daemon.ts';
import { whyNoLab } from '../lab/namespaces.ts';
import { TwoSites } from '../lab/two-sites.ts';

/** What `culvert paths` and `culvert status` say of daemons that run. */
const skip = whyNoLab();

await t.test('culvert paths shows a path, and a relay that refuses to be', { skip }, async (t) => {
  const sites = await TwoSites.create(t, 'dmn-paths');
  const { a, b } = sites;
  for (const site of [a, b]) {
    const relays = [{ url: 'turn:10.9.0.77:3478', username: 'u', credential: 'c' }];
    const configuration = sites.configurationOf(site, {}, { kind: 'culvert' });
    site.daemon.configure(site === a ? { ...configuration, relays } : configuration);
  }
  await Promise.all([a.daemon.start(), b.daemon.start()]);
  await sites.ping(t, 'a', b.ipv4);
  await eventually(
    () => a.daemon.status(),
    ({ peers }) => peers[0]?.path?.report !== undefined,
    10_000,
  );

  const show = async (...command: readonly string[]): Promise<string> => {
    const { stdout } = await a.daemon.command(...command, '--socket', a.daemon.socket);
    return stdout;
  };
  const text = await show('paths', 'site-b');
  t.match(text, /^site-b +connected +direct +\d+\.\d ms$/m);
  t.match(text, /^ {2}way +10\.9\.0\.1:\d+ → 10\.9\.0\.2:\d+$/m);
  t.match(text, /^ {2}peer +sends direct, \d+\.\d ms$/m);
  t.match(text, /^turn:10\.9\.0\.77:3478\?transport=udp +(connecting|waiting) +-$/m);
  t.ok(
    text.split('\n').every((line) => line.length <= 100),
    text,
  );
  t.match(JSON.parse(await show('paths', '--json')), { peers: [{ id: 'site-b', kind: 'direct' }] });
  t.match(await show('status'), /0 of 1 relays ready\n\n.*\nsite-b +connected +direct \d+\.\d ms/);
  const { code, stderr } = await a.daemon.command('paths', 'x', '--socket', a.daemon.socket);
  t.match({ code, stderr }, { code: 1, stderr: /'x'/ });
});
