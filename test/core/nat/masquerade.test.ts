import t from 'tap';
import fc from 'fast-check';
import { parseIpPrefix } from '../../../core/net/ip-prefix.ts';
import { masqueradeRuleset } from '../../../core/nat/masquerade.ts';
import { formatData } from '../../../core/netlink/nftables/data-type.ts';

await t.test('asks for no table when it is off or without sources', async (t) => {
  const absent = [{ family: 'inet', name: 'culvert', isAbsent: true, chains: [] }];
  t.strictSame(masqueradeRuleset({ ...options('100.64.0.1'), isOn: false }), absent);
  t.strictSame(masqueradeRuleset(options()), absent);
});

await t.test('does not belong to one process, which older kernels could not do', async (t) => {
  t.notOk(masqueradeRuleset(options('100.64.0.1'))[0]?.isOwned);
});

await t.test('sorts sources by family', async (t) => {
  t.strictSame(elements('fd00::1', '100.64.0.9', '100.64.0.1', 'fd00::/64'), {
    sources4: ['100.64.0.1 - 100.64.0.1', '100.64.0.9 - 100.64.0.9'],
    sources6: ['fd00:: - fd00::ffff:ffff:ffff:ffff'],
  });
});

await t.test('says once what lies in others, and keeps neighbours', async (t) => {
  const { sources4 } = elements(
    '10.1.0.0/16',
    '10.0.0.0/16',
    '10.1.7.0/24',
    '10.1.0.0/16',
    '9.0.0.1',
  );
  t.strictSame(sources4, [
    '9.0.0.1 - 9.0.0.1',
    '10.0.0.0 - 10.0.255.255',
    '10.1.0.0 - 10.1.255.255',
  ]);
});

await t.test('has every source, and no overlap', async (t) => {
  const source = fc
    .record({ bits: fc.integer({ min: 0, max: 255 }), length: fc.integer({ min: 24, max: 32 }) })
    .map(({ bits, length }) => `10.0.0.${bits}/${length}`);
  fc.assert(
    fc.property(fc.array(source, { minLength: 1, maxLength: 20 }), (sources) => {
      const ranges = elements(...sources)['sources4']!.map((text) =>
        text.split(' - ').map((address) => Number(address.split('.')[3])),
      );
      const covered = ranges.flatMap(([first = 0, last = 0]) =>
        Array.from({ length: last - first + 1 }, (_, i) => first + i),
      );
      const wanted = sources.flatMap((text) => {
        const { address, length } = prefix(text);
        const first = Number(address.split('.')[3]);
        return Array.from({ length: 2 ** (32 - length) }, (_, i) => first + i);
      });
      t.strictSame(new Set(covered), new Set(wanted));
      t.equal(new Set(covered).size, covered.length);
    }),
    { numRuns: 200 },
  );
});

function options(...sources: readonly string[]) {
  return { device: 'culvert0', isOn: true, sources: sources.map(prefix) };
}

function elements(...sources: readonly string[]): Record<string, readonly string[]> {
  const [table] = masqueradeRuleset(options(...sources));
  return Object.fromEntries(
    (table?.sets ?? []).map(({ name, key, elements }) => [
      name,
      (elements ?? []).map(
        (element) =>
          `${formatData(element.key, key)} - ${formatData(element.lastKey ?? element.key, key)}`,
      ),
    ]),
  );
}

function prefix(text: string) {
  const parsed = parseIpPrefix(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}
