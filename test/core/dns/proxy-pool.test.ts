import t from 'tap';
import { MOST_PROXY_NAMES, ProxyPool, type Proxies } from '../../../core/dns/proxy-pool.ts';
import { ipAddressFromBytes, type IpAddress } from '../../../core/net/ip-address.ts';
import { prefixContains } from '../../../core/net/ip-prefix.ts';
import { nameOf, pool, prefixOf, RANGES } from './messages.ts';

await t.test('names get four addresses of each family, in the order of asking', async (t) => {
  const proxies = pool();
  t.same(assign(proxies, 'a.example'), {
    ipv4: ['100.96.0.4', '100.96.0.5', '100.96.0.6', '100.96.0.7'],
    ipv6: [4, 5, 6, 7].map((i) => `fd12:3456:789a:8000::${i}`),
  });
  t.equal(assign(proxies, 'b.example')?.ipv4[0], '100.96.0.8');
  t.equal(assign(proxies, 'b.example')?.ipv4[0], '100.96.0.8', 'and keep them');
  t.same(proxies.addressBytes(1, 4)[3], Uint8Array.of(100, 96, 0, 11));
  t.same(
    proxies.addressBytes(1, 6).map(ipAddressFromBytes),
    proxies.get(nameOf('b.example'))?.ipv6,
  );
  t.equal(proxies.get(nameOf('c.example')), undefined);
  t.equal(proxies.size, 2);
});

await t.test('an address leads to the name that has it, all others to none', async (t) => {
  const proxies = pool();
  proxies.assign(nameOf('a.example'));
  proxies.assign(nameOf('b.example'));
  for (const address of ['100.96.0.8', '100.96.0.11', 'fd12:3456:789a:8000::b']) {
    t.equal(proxies.nameOf(address as IpAddress), 'b.example', address);
  }
  for (const address of [
    '100.96.0.0',
    '100.96.0.3',
    '100.96.0.12',
    '100.128.0.4',
    'fd12:3456:789a:8000::c',
    'fd12:3456:789a:8000:0:1::4',
    'fd12:3456:789a:8001::4',
    '::4',
  ]) {
    t.equal(proxies.nameOf(address as IpAddress), undefined, address);
  }
});

await t.test('after a restart each name has the addresses that it had', async (t) => {
  const before = pool();
  for (let i = 0; i < 100; i++) before.assign(nameOf(`host${i}.example`));
  before.removeWhere((name) => name === 'host7.example');
  const kept: unknown = JSON.parse(JSON.stringify([...before.entries()]));
  const afterwards = new ProxyPool(RANGES, kept as Iterable<readonly [never, number]>);
  for (let i = 0; i < 100; i++) {
    const name = nameOf(`host${i}.example`);
    t.same(afterwards.get(name), before.get(name));
  }
  t.equal(afterwards.revision, 0, 'nothing to keep anew');
  t.equal(
    assign(afterwards, 'new.example')?.ipv4[0],
    '100.96.5.148',
    'what names may have got that were not kept any more is nobody’s',
  );
});

await t.test('kept entries that contradict each other or make no sense are left out', async (t) => {
  const restored = new ProxyPool(RANGES, [
    [nameOf('a.example'), 1],
    [nameOf('b.example'), 1],
    [nameOf('a.example'), 2],
    [nameOf('c.example'), -1],
    [nameOf('d.example'), 1.5],
    [nameOf('e.example'), MOST_PROXY_NAMES],
    [nameOf('f.example'), NaN],
    [nameOf('g.example'), '3' as unknown as number],
  ]);
  t.same([...restored.entries()], [['a.example', 1]]);
  t.equal(restored.nameOf('100.96.0.8' as IpAddress), 'a.example');
});

await t.test('the revision tells when there is something to keep', async (t) => {
  const proxies = pool();
  proxies.assign(nameOf('a.example'));
  const { revision } = proxies;
  proxies.assign(nameOf('a.example'));
  proxies.get(nameOf('b.example'));
  t.equal(
    proxies.removeWhere(() => false),
    0,
  );
  t.equal(proxies.revision, revision);
  t.equal(
    proxies.removeWhere(() => true),
    1,
  );
  t.not(proxies.revision, revision);
});

await t.test(
  'a range that is used up is a clear error; numbers of removed names serve then',
  async (t) => {
    const small = new ProxyPool({ ipv4: prefixOf('100.96.0.0/28'), ipv6: RANGES.ipv6 });
    t.equal(small.capacity, 3);
    for (const name of ['a', 'b', 'c']) t.ok(small.assign(nameOf(name)).ok);
    t.same(small.assign(nameOf('d')), { ok: false, why: 'proxies-exhausted' });
    t.ok(small.assign(nameOf('a')).ok, 'who has some keeps them');
    t.equal(
      small.removeWhere((name) => name === 'b'),
      1,
    );
    t.equal(small.nameOf('100.96.0.8' as IpAddress), undefined);
    t.equal(assign(small, 'd')?.ipv4[0], '100.96.0.8');
    t.notOk(small.assign(nameOf('e')).ok);
  },
);

await t.test('a freed number is used again only when all others are taken', async (t) => {
  const small = new ProxyPool({ ipv4: prefixOf('100.96.0.0/27'), ipv6: RANGES.ipv6 });
  small.assign(nameOf('a'));
  small.removeWhere(() => true);
  t.equal(assign(small, 'b')?.ipv4[0], '100.96.0.8');
});

await t.test(
  'in other ranges names keep their numbers; those without a place are removed',
  async (t) => {
    const proxies = pool();
    for (let i = 0; i < 10; i++) proxies.assign(nameOf(`host${i}`));
    const removed = proxies.setRanges({
      ipv4: prefixOf('10.9.8.32/27'),
      ipv6: prefixOf('fd00::/64'),
    });
    t.equal(removed, 3);
    t.equal(proxies.get(nameOf('host6'))?.ipv4[3], '10.9.8.63');
    t.equal(proxies.nameOf('10.9.8.63' as IpAddress), 'host6');
    t.equal(proxies.nameOf('100.96.0.4' as IpAddress), undefined);
    t.equal(proxies.get(nameOf('host7')), undefined);
  },
);

await t.test(
  '65,536 names fit into the default ranges, all within, no address twice',
  async (t) => {
    const proxies = pool();
    const seen = new Set<string>();
    for (let i = 0; i < MOST_PROXY_NAMES; i++) {
      const { ipv4 = [], ipv6 = [] } = assign(proxies, `host${i}.example`) ?? {};
      for (const address of [...ipv4, ...ipv6]) seen.add(address);
    }
    t.equal(seen.size, 8 * MOST_PROXY_NAMES);
    t.notOk(proxies.assign(nameOf('one.too.many')).ok);
    const last = proxies.get(nameOf(`host${MOST_PROXY_NAMES - 1}.example`));
    t.ok(prefixContains(RANGES.ipv4, last?.ipv4[3] as IpAddress));
    t.ok(prefixContains(RANGES.ipv6, last?.ipv6[3] as IpAddress));
  },
);

await t.test('a range without room for a name gives none', async (t) => {
  const none = new ProxyPool({ ipv4: prefixOf('100.96.0.0/30'), ipv6: RANGES.ipv6 });
  t.equal(none.capacity, 0);
  t.notOk(none.assign(nameOf('a')).ok);
});

function assign(proxies: ProxyPool, name: string): Proxies | undefined {
  return proxies.assign(nameOf(name)).ok ? proxies.get(nameOf(name)) : undefined;
}
