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
    const drain = (...options: readonly string[]) => {
      const command = [process.execPath, 'dist/culvert.cjs', 'drain', '--socket', a.daemon.socket];
      return sites.lab.spawn('a', [...command, ...options]);
    };
    const isDraining = () =>
      eventually(
        () => a.daemon.status(),
        (status) => status.drain !== undefined,
        15_000,
      );

    const cancelled = drain();
    t.match(await isDraining(), { phase: 'draining', drain: { peers: ['site-b'] } });
    const cancel = drain('--cancel');
    t.equal(await cancel.ended, 0);
    t.same(cancel.lines, ['stays: running']);
    t.equal(await cancelled.ended, 1);
    t.match(cancelled.lines.at(-1), 'the drain was cancelled');

    const drained = drain();
    await isDraining();
    await pings.end();
    const began = performance.now();
    t.equal(await drained.ended, 0);
    const took = performance.now() - began;
    t.ok(took > 8_000 && took < 20_000, `${took.toFixed(0)} ms after the last packet`);
    t.match(drained.lines[0], /^waiting for site-b \(at most 5 min\)$/);
    t.equal(drained.lines.at(-1), 'drained');
    t.equal(await running.ended, 0);
    const log = running.lines.join('\n');
    t.match(log, /"message":"drained"[^]*"message":"stopping","reason":"leaving"/);
  },
);
