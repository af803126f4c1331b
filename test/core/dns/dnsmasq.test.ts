import t from 'tap';
import { dnsmasqText, zonesOf } from '../../../core/dns/dnsmasq.ts';
import type { DomainName } from '../../../core/dns/name.ts';
import { parsePattern } from '../../../core/dns/pattern.ts';
import type { SocketAddress } from '../../../core/net/socket-address.ts';

function zones(...patterns: readonly string[]): readonly string[] {
  return zonesOf(
    patterns.map((text) => {
      const pattern = parsePattern(text);
      if (!pattern.ok) throw new Error(`${text}: ${pattern.why}`);
      return pattern.value;
    }),
  );
}

await t.test('the zone of a pattern is what it ends with', async (t) => {
  t.strictSame(zones('crm.corp.example'), ['crm.corp.example']);
  t.strictSame(zones('*.corp.example'), ['corp.example']);
  t.strictSame(zones('**.example'), ['example']);
  t.strictSame(zones('db?.corp.example'), ['corp.example']);
  t.strictSame(zones('a.*.db?.corp.example'), ['corp.example']);
  t.strictSame(zones('a.**.corp.example'), ['corp.example']);
});

await t.test('a zone below another is not named', async (t) => {
  t.strictSame(
    zones('crm.corp.example', '*.corp.example', 'xcorp.example', 'a.test', 'corp.example'),
    ['a.test', 'corp.example', 'xcorp.example'],
  );
});

await t.test('the order of the patterns does not matter', async (t) => {
  t.strictSame(zones('b.test', 'a.test', 'b.test'), zones('a.test', 'b.test'));
});

await t.test('a pattern that ends with a wildcard has no zone', async (t) => {
  t.strictSame(zones('crm.*', 'crm.examp?e', 'crm.**'), []);
});

await t.test(
  'the file sends each zone to the server and lets private addresses pass',
  async (t) => {
    const names = ['a.test', 'corp.example'] as DomainName[];
    t.equal(
      dnsmasqText(names, '192.168.1.1:5353' as SocketAddress),
      '# Made by culvert for as long as it runs.\n' +
        'server=/a.test/192.168.1.1#5353\nrebind-domain-ok=/a.test/\n' +
        'server=/corp.example/192.168.1.1#5353\nrebind-domain-ok=/corp.example/\n',
    );
    t.match(dnsmasqText(names, '[fd00::1]:53' as SocketAddress), 'server=/a.test/fd00::1#53\n');
  },
);

await t.test('what could be read as something else is left out', async (t) => {
  const odd = ['a/b', 'a#b', '#', '.', 'a\\010server=8.8.8.8', 'a b', ''] as DomainName[];
  t.equal(dnsmasqText(odd, '192.168.1.1:53' as SocketAddress), '');
});
