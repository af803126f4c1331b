import fc from 'fast-check';
import t from 'tap';
import { doPrefixesOverlap, parseIpPrefix, type IpPrefix } from '../../../core/net/ip-prefix.ts';

await t.test('prefixes overlap where one lies in the other', async (t) => {
  const overlap = (a: string, b: string): boolean => doPrefixesOverlap(prefix(a), prefix(b));
  t.ok(overlap('10.0.0.0/8', '10.9.8.0/24'));
  t.ok(overlap('10.9.8.0/24', '10.0.0.0/8'));
  t.ok(overlap('10.9.8.0/24', '10.9.8.0/24'));
  t.ok(overlap('0.0.0.0/0', '192.0.2.1/32'));
  t.notOk(overlap('10.9.8.0/24', '10.9.9.0/24'));
  t.notOk(overlap('100.64.0.0/11', '100.96.0.0/11'));
  t.ok(overlap('fd00::/8', 'fd00:1::/64'));
  t.notOk(overlap('fd00::/64', 'fd00:0:0:1::/64'));
  t.notOk(overlap('0.0.0.0/0', '::/0'), 'of different families');
});

await t.test('a network overlaps its halves, and these not each other', async () => {
  fc.assert(
    fc.property(fc.nat(0xffff), fc.integer({ min: 16, max: 31 }), (low, length) => {
      const first = prefix(`10.9.${low >> 8}.${low & 255}/${length}`);
      const bytes = first.address.split('.').map(Number) as [number, number, number, number];
      const value = bytes[2] * 256 + bytes[3] + 2 ** (31 - length);
      const one = { ...first, length: length + 1 };
      const other = prefix(`10.9.${value >> 8}.${value & 255}/${length + 1}`);
      return (
        doPrefixesOverlap(first, one) &&
        doPrefixesOverlap(other, first) &&
        !doPrefixesOverlap(one, other)
      );
    }),
  );
});

function prefix(text: string): IpPrefix {
  const parsed = parseIpPrefix(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
