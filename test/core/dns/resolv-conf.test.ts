import fc from 'fast-check';
import t from 'tap';
import { MOST_NAMESERVERS, parseResolvConf } from '../../../core/dns/resolv-conf.ts';
import { parseSocketAddress } from '../../../core/net/socket-address.ts';

await t.test('name servers are read in order, with port 53, each once', async (t) => {
  const text = [
    '# Interface wan',
    'nameserver 192.0.2.1',
    'nameserver\t2001:DB8::0:53   # the other',
    'nameserver 192.0.2.1',
    'search lan',
    'options edns0 trust-ad\r',
    'nameserver 127.0.0.53\r',
  ].join('\n');
  t.same(parseResolvConf(text), ['192.0.2.1:53', '[2001:db8::53]:53', '127.0.0.53:53']);
});

await t.test(
  'lines that are none are left out, and servers that are found by a zone',
  async (t) => {
    const lines = [
      ' nameserver 192.0.2.1',
      '#nameserver 192.0.2.2',
      ';nameserver 192.0.2.3',
      'nameserver',
      'nameserver dns.example',
      'nameserver 192.0.2.4:53',
      'nameservers 192.0.2.5',
      'nameserver fe80::1%eth0',
      'nameserver fe80::1',
      'Nameserver 192.0.2.6',
    ];
    t.same(parseResolvConf(lines.join('\n')), []);
    t.same(parseResolvConf(''), []);
  },
);

await t.test('what is read is bounded', async (t) => {
  const lines = Array.from({ length: 200 }, (_, i) => `nameserver 192.0.2.${i}`);
  const servers = parseResolvConf(lines.join('\n'));
  t.equal(servers.length, MOST_NAMESERVERS);
  t.same(parseResolvConf(`${'\n'.repeat(1e6)}nameserver 192.0.2.1`), []);
});

await t.test('arbitrary text never throws, and what comes out are socket addresses', async (t) => {
  const word = fc.oneof(
    fc.constantFrom('nameserver', ' ', '\n', '192.0.2.1', '::1', '%', 'fe80::1', '\0'),
    fc.string({ unit: 'binary' }),
  );
  fc.assert(
    fc.property(fc.array(word), (words) => {
      for (const server of parseResolvConf(words.join(''))) {
        if (!parseSocketAddress(server).ok) throw new Error(server);
      }
    }),
    { numRuns: 3_000 },
  );
  t.pass();
});
