import t from 'tap';
import { eventually } from '../lab/daemon.ts';
import { whyNoLab } from '../lab/namespaces.ts';
import { TwoSites } from '../lab/two-sites.ts';

/** The resolver of the system under the daemon; what becomes of its answers is tested in simulation. */
const skip = whyNoLab();

await t.test(
  'a peer is found by a name, and by the other name after a reload',
  { skip },
  async (t) => {
    const sites = await TwoSites.create(t, 'dmn-names');
    const { a, b, lab } = sites;
    const named = (host: string): object => {
      return sites.configurationOf(a, {}, { endpoint: `${host}:51820` });
    };
    lab.hosts('a', ['127.0.0.1 localhost', '10.9.0.2 b.example', 'fd09::2 b6.example']);
    b.daemon.configure(sites.configurationOf(b));
    a.daemon.configure(named('B.example'));
    await b.daemon.start();
    const running = await a.daemon.start();
    await sites.ping(t, 'a', b.ipv4);
    t.match(await a.daemon.status(), { peers: [{ endpoint: b.endpoints.ipv4 }] });

    a.daemon.configure(named('b6.example'));
    running.signal('SIGHUP');
    const moved = await eventually(
      () => a.daemon.status(),
      ({ peers }) => peers[0]?.endpoint === b.endpoints.ipv6,
      10_000,
    );
    t.match(moved, { peers: [{ endpoint: b.endpoints.ipv6 }] });
    await sites.ping(t, 'a', b.ipv4);
  },
);
