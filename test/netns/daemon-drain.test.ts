import t from 'tap';
import { eventually } from '../lab/daemon.ts';
import { whyNoLab } from '../lab/namespaces.ts';
import { TwoSites } from '../lab/two-sites.ts';

/** `culvert drain`, and the daemon that it ends. */
const skip = whyNoLab();

await t.test(
  'culvert drain waits for the traffic, then the daemon is gone',
  { skip },
  async (t) => {
    const sites = await TwoSites.create(t, 'dmn-drain');
    const { a, b } = sites;
    for (const site of [a, b]) site.daemon.configure(sites.configurationOf(site));
    const [running] = await Promise.all([a.daemon.start(), b.daemon.start()]);
    const pings = await sites.startPings('b', a.ipv4);
    const drain = (...options: readonly string[]) =>
      a.daemon.command('drain', '--socket', a.daemon.socket, ...options);
    const isDraining = () =>
      eventually(
        () => a.daemon.status(),
        ({ drain }) => drain !== undefined,
        15_000,
      );

    const cancelled = drain();
    t.match(await isDraining(), { phase: 'draining', drain: { peers: ['site-b'] } });
    t.match(await drain('--cancel'), { code: 0, stdout: 'not draining: running\n' });
    t.match(await cancelled, { code: 1, stderr: /the drain was cancelled/ });

    const drained = drain();
    await isDraining();
    await pings.end();
    const began = performance.now();
    t.match(await drained, { code: 0, stdout: /^waiting for site-b .*\n[^]*drained\n$/ });
    const took = performance.now() - began;
    t.ok(took > 8_000 && took < 20_000, `${took.toFixed(0)} ms after the last packet`);
    t.equal(await running.ended, 0);
    const log = running.lines.join('\n');
    t.match(log, /"message":"drained"[^]*"message":"stopping","reason":"leaving"/);
  },
);
