import fc from 'fast-check';
import t from 'tap';
import {
  MOST_HOSTS_ADDRESSES,
  MOST_HOSTS_LINES,
  MOST_HOSTS_NAMES,
  parseHosts,
} from '../../../core/dns/hosts.ts';
import { nameOf } from './messages.ts';

await t.test(
  'each name of a line has its address, in any case, and comments are none',
  async (t) => {
    const hosts = parse(
      '# of the site',
      '192.168.7.5\tDB.Site.Example  db  # the old one',
      '   fd00::0005 db',
      '192.168.7.6 web.site.example.\r',
      '192.168.7.7 mail#mx',
    );
    t.same(hosts, {
      'db.site.example': ['192.168.7.5'],
      db: ['192.168.7.5', 'fd00::5'],
      'web.site.example': ['192.168.7.6'],
      mail: ['192.168.7.7'],
    });
  },
);

await t.test('files are read one after the other, and nothing is named twice', async (t) => {
  const hosts = parseHosts(['10.0.0.1 a\n10.0.0.1 a', '10.0.0.2 a\n10.0.0.1 a b']);
  t.same(hosts.get(nameOf('a')), ['10.0.0.1', '10.0.0.2']);
  t.same(hosts.get(nameOf('b')), ['10.0.0.1']);
});

await t.test('lines and words that are none are left out', async (t) => {
  const hosts = parse(
    '',
    '10.0.0.1',
    'db 10.0.0.1',
    '10.0.0 a',
    '010.0.0.1 b',
    '10.0.0.1/8 c',
    'fe80::1%eth0 d',
    '10.0.0.1 a..b bücher.example ok',
    `10.0.0.1 ${'x'.repeat(64)}.example`,
  );
  t.same(hosts, { ok: ['10.0.0.1'] });
});

await t.test('what is read is bounded', async (t) => {
  const lines = Array.from({ length: MOST_HOSTS_LINES + 5 }, (_, i) => `10.0.0.1 h${i}`);
  t.equal(parseHosts([lines.join('\n')]).has(nameOf(`h${MOST_HOSTS_LINES}`)), false);
  const words = Array.from({ length: MOST_HOSTS_NAMES + 5 }, (_, i) => `w${i}`);
  t.equal(parseHosts([`10.0.0.1 ${words.join(' ')}`, '10.0.0.2 x']).size, MOST_HOSTS_NAMES);
  const addresses = Array.from({ length: 255 }, (_, i) => `10.0.0.${i} many`);
  t.equal(parse(...addresses)['many']?.length, MOST_HOSTS_ADDRESSES);
});

await t.test('arbitrary text never throws', async (t) => {
  const word = fc.oneof(
    fc.constantFrom('10.0.0.1', '::1', '#', '\n', '\t', '\\', '\\300', '.', 'a.b', '\0', '%'),
    fc.string({ unit: 'binary' }),
  );
  fc.assert(
    fc.property(fc.array(word), (words) => {
      for (const addresses of parseHosts([words.join(' '), words.join('')]).values()) {
        if (addresses.length === 0) throw new Error('a name without addresses');
      }
    }),
    { numRuns: 3_000 },
  );
  t.pass();
});

function parse(...lines: readonly string[]): Readonly<Record<string, readonly string[]>> {
  return Object.fromEntries(parseHosts([lines.join('\n')]));
}
