import t from 'tap';
import { TwoSites } from '../../sim/two-sites.ts';

const SECOND = 1000;
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
t.comment(`SEED=${SEED}`);

const NOWHERE = '192.0.2.66';
const B = '192.0.2.2';

await t.test('a peer is found by its name, and packets wait for the answer', async (t) => {
  const sites = namedSites({ 'b.example': [B] });
  sites.send('a', 1);
  sites.advance(SECOND);
  t.same(sites.received('b'), [1]);
  t.match(sites.a.engine.status().peers, [{ state: 'connected', endpoint: '192.0.2.2:51820' }]);
  t.same(sites.lookUps, ['b.example']);
});

await t.test('a name that does not resolve yet is asked for again', async (t) => {
  const sites = namedSites({});
  sites.advance(25 * SECOND);
  t.equal(sites.lookUps.length, 3, 'at 0, 10 and 20 seconds');
  sites.names.set('b.example', [B]);
  sites.advance(10 * SECOND);
  sites.send('a', 1);
  sites.advance(SECOND);
  t.same(sites.received('b'), [1]);
});

await t.test('an address of the name that leads nowhere is passed over', async (t) => {
  const sites = namedSites({ 'b.example': [NOWHERE, '2001:db8::66', B] });
  for (let second = 0; second < 300; second++) {
    sites.send('a', second);
    sites.advance(SECOND);
  }
  t.match(sites.a.engine.status().peers, [{ state: 'connected', endpoint: '192.0.2.2:51820' }]);
  t.equal(sites.received('b').at(-1), 299);
  t.same(sites.lookUps, ['b.example'], 'without asking again');
});

await t.test('a peer whose name moves is found again', async (t) => {
  const sites = namedSites({ 'b.example': [NOWHERE] });
  sites.advance(SECOND);
  sites.send('a', 1);
  sites.names.set('b.example', [B]);
  sites.advance(100 * SECOND);
  sites.send('a', 2);
  sites.advance(SECOND);
  t.same(sites.received('b'), [2]);
});

await t.test(
  'a name that was taken out of the configuration is never asked for again',
  async (t) => {
    const sites = namedSites({ 'b.example': [NOWHERE] });
    sites.advance(SECOND);
    sites.a.configure(documentOf(sites, {}));
    sites.send('a', 1);
    sites.advance(300 * SECOND);
    t.same(sites.lookUps, ['b.example']);
    t.match(sites.a.engine.status().peers, [{ endpoint: `${NOWHERE}:51820` }], 'the address stays');

    sites.a.configure(documentOf(sites, { endpoint: 'late.example:51820' }));
    sites.a.configure(documentOf(sites, {}));
    sites.names.set('late.example', [B]);
    sites.advance(SECOND);
    t.match(
      sites.a.engine.status().peers,
      [{ endpoint: `${NOWHERE}:51820` }],
      'and no answer moves it',
    );
  },
);

await t.test('the answer for a name that was replaced meanwhile is not used', async (t) => {
  const sites = namedSites({ 'b.example': [NOWHERE], 'new.example': [B] });
  sites.a.configure(documentOf(sites, { endpoint: 'new.example:51820' }));
  sites.advance(SECOND);
  t.same(sites.lookUps, ['b.example', 'new.example']);
  t.match(sites.a.engine.status().peers, [{ endpoint: '192.0.2.2:51820' }]);
});

/** Two sites of which a knows b by the name b.example alone, and b does not know where a is. */
function namedSites(names: Readonly<Record<string, readonly string[]>>): TwoSites {
  const sites = new TwoSites(SEED);
  for (const [host, addresses] of Object.entries(names)) sites.names.set(host, addresses);
  const a = { id: 'a', publicKey: sites.a.publicKey, allowedIps: ['10.0.0.1/32'] };
  sites.a.configure({ interface: { addresses: ['10.0.0.1/24'] }, peers: [] });
  sites.b.configure({ interface: { addresses: ['10.0.0.2/24'] }, peers: [] });
  sites.b.configure({ interface: { addresses: ['10.0.0.2/24'] }, peers: [a] });
  sites.a.configure(documentOf(sites, { endpoint: 'b.example:51820' }));
  return sites;
}

function documentOf({ b }: TwoSites, endpoint: { readonly endpoint?: string }): object {
  const peer = { id: 'b', publicKey: b.publicKey, allowedIps: ['10.0.0.2/32'], ...endpoint };
  return { interface: { addresses: ['10.0.0.1/24'] }, peers: [peer] };
}
