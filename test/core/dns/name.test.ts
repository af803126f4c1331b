import fc from 'fast-check';
import t from 'tap';
import {
  encodeName,
  labelsOf,
  parseDomainName,
  readName,
  skipName,
  withoutUnderscoredLabels,
  type DomainName,
} from '../../../core/dns/name.ts';
import { addressOfReverseName, reverseName, reverseZones } from '../../../core/dns/reverse-name.ts';
import { ipAddressFromBytes, type IpAddress } from '../../../core/net/ip-address.ts';
import { parseIpPrefix, prefixContains, type IpPrefix } from '../../../core/net/ip-prefix.ts';

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);

await t.test('text becomes canonical: lower case, no last dot, odd bytes as \\DDD', async (t) => {
  const names = {
    'CRM.Corp.Example.': 'crm.corp.example',
    '.': '.',
    'a\\.b.example': 'a\\046b.example',
    'a\\\\b': 'a\\092b',
    '\\000\\255.x': '\\000\\255.x',
    '\\065\\046': 'a\\046',
    '\\@.x': '@.x',
    '*.example': '*.example',
    '_sip._tcp.x': '_sip._tcp.x',
    'a b': 'a\\032b',
  };
  for (const [text, name] of Object.entries(names)) {
    t.same(parseDomainName(text), { ok: true, value: name }, text);
    t.same(parseDomainName(name), { ok: true, value: name }, 'which stays the same');
  }
});

await t.test('text that is no name is refused with a reason', async (t) => {
  const label = 'a'.repeat(63);
  const refused = {
    '': 'empty-label',
    '..': 'empty-label',
    'a..b': 'empty-label',
    '.a': 'empty-label',
    [`a${label}.b`]: 'label-too-long',
    [`${label}.${label}.${label}.${'a'.repeat(62)}`]: 'name-too-long',
    [Array(128).fill('a').join('.')]: 'name-too-long',
    'bücher.example': 'not-ascii',
    'a\\': 'bad-escape',
    'a\\25': 'bad-escape',
    'a\\256': 'bad-escape',
    'a\\ü': 'bad-escape',
  };
  for (const [text, why] of Object.entries(refused)) {
    t.same(parseDomainName(text), { ok: false, why }, text);
  }
  t.ok(parseDomainName(`${label}.${label}.${label}.${'a'.repeat(61)}`).ok, '255 bytes');
  t.ok(parseDomainName(Array(127).fill('a').join('.')).ok, '127 labels');
});

await t.test(
  'any bytes in labels go to the wire and back (0x20: letters in lower case)',
  async (t) => {
    const label = fc.uint8Array({ minLength: 1, maxLength: 63 });
    const property = fc.property(fc.array(label, { maxLength: 3 }), (labels) => {
      const wire = Uint8Array.from([...labels.flatMap((l) => [l.length, ...l]), 0]);
      const read = readName(wire, 0);
      const lower = Array.from(wire, (byte) => (byte >= 65 && byte <= 90 ? byte + 32 : byte));
      // A length is never a letter's code: they are 63 at most, and "A" is 65.
      if (read === undefined || read.end !== wire.length) return false;
      const parsed = parseDomainName(read.name);
      return (
        encodeName(read.name).join() === lower.join() &&
        skipName(wire, 0) === wire.length &&
        labelsOf(read.name).length === labels.length &&
        parsed.ok &&
        parsed.value === read.name
      );
    });
    fc.assert(property, { seed: SEED, numRuns: 2_000 });
    t.pass(`SEED=${SEED}`);
  },
);

await t.test('a compressed name is read, a pointer that cannot be meant is refused', async (t) => {
  const header = Array<number>(12).fill(0);
  const message = (...bytes: number[]) => Uint8Array.from([...header, ...bytes]);
  const one = message(1, 97, 0, 1, 98, 0xc0, 12);
  t.same(readName(one, 15), { name: 'b.a', end: 19 });
  t.equal(skipName(one, 15), 19);
  t.equal(readName(message(0xc0, 12), 12), undefined, 'to itself');
  t.equal(readName(message(1, 97, 0xc0, 12), 12), undefined, 'to its own beginning');
  t.equal(readName(message(0xc0, 14, 0), 12), undefined, 'forward');
  t.equal(readName(message(0xc0, 4), 12), undefined, 'into the header');
  t.equal(readName(message(0xc0), 12), undefined, 'cut off');
  t.equal(readName(message(5, 97), 12), undefined, 'label over the end');
  t.equal(readName(message(0x40, 97, 0), 12), undefined, 'of a reserved kind');
  const chain = message(...Array(63).fill([1, 97]).flat(), 0);
  t.equal(readName(chain, 12)?.name.length, 125);
  const long = message(...Array(70).fill([3, 97, 97, 97]).flat(), 0);
  t.equal(readName(long, 12), undefined, 'more than 255 bytes');
  t.equal(skipName(long, 12), undefined);
});

await t.test('underscored labels in front speak about the rest', async (t) => {
  const names = {
    '_sip._tcp.crm.example': 'crm.example',
    '_dmarc.crm.example': 'crm.example',
    'crm.example': 'crm.example',
    'a._x.example': 'a._x.example',
    _x: '_x',
    '_x._y': '_x._y',
    '.': '.',
  };
  for (const [name, host] of Object.entries(names)) {
    t.equal(withoutUnderscoredLabels(name as DomainName), host);
  }
});

await t.test('reverse names lead to their address and back', async (t) => {
  t.equal(reverseName('192.0.2.7' as IpAddress), '7.2.0.192.in-addr.arpa');
  t.equal(reverseName('2001:db8::1' as IpAddress), `1.${'0.'.repeat(23)}8.b.d.0.1.0.0.2.ip6.arpa`);
  const address = fc
    .oneof(
      fc.uint8Array({ minLength: 4, maxLength: 4 }),
      fc.uint8Array({ minLength: 16, maxLength: 16 }),
    )
    .map(ipAddressFromBytes);
  const property = fc.property(address, (a) => addressOfReverseName(reverseName(a)) === a);
  fc.assert(property, { seed: SEED });
  for (const other of [
    'in-addr.arpa',
    '2.0.192.in-addr.arpa',
    '1.7.2.0.192.in-addr.arpa',
    '07.2.0.192.in-addr.arpa',
    '256.2.0.192.in-addr.arpa',
    'x.2.0.192.in-addr.arpa',
    'ip6.arpa',
    `1.${'0.'.repeat(22)}8.b.d.0.1.0.0.2.ip6.arpa`,
    '7.2.0.192.in-addr.arpa.example',
    '.',
  ]) {
    t.equal(addressOfReverseName(other as DomainName), undefined, other);
  }
});

await t.test('the reverse zones of a prefix hold its addresses and no others', async (t) => {
  t.same(reverseZones(prefixOf('192.168.1.0/24')), ['1.168.192.in-addr.arpa']);
  t.same(reverseZones(prefixOf('192.168.4.0/23')), [
    '4.168.192.in-addr.arpa',
    '5.168.192.in-addr.arpa',
  ]);
  t.equal(reverseZones(prefixOf('10.0.0.0/9')).length, 128);
  t.same(reverseZones(prefixOf('0.0.0.0/0')), ['in-addr.arpa']);
  t.same(reverseZones(prefixOf('fd00:1::/32')), ['1.0.0.0.0.0.d.f.ip6.arpa']);
  t.equal(reverseZones(prefixOf('fd00:1::/33')).length, 8);
  const property = fc.property(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.nat(32),
    fc.nat(32),
    (bytes, length, bit) => {
      const address = ipAddressFromBytes(bytes);
      const prefix = prefixOf(`${address}/${length}`);
      const other = bytes.slice();
      other[bit >> 3] = (other[bit >> 3] ?? 0) ^ (0x80 >> (bit & 7));
      const zones = reverseZones(prefix);
      return [bytes, other.slice(0, 4)].map(ipAddressFromBytes).every((one) => {
        const name = reverseName(one);
        return (
          zones.some((zone) => name.endsWith(`.${zone}`) || name === zone) ===
          prefixContains(prefix, one)
        );
      });
    },
  );
  fc.assert(property, { seed: SEED, numRuns: 1_000 });
});

function prefixOf(text: string): IpPrefix {
  const parsed = parseIpPrefix(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
