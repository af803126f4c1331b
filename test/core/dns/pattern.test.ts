import fc from 'fast-check';
import t from 'tap';
import { parseDomainName, type DomainName } from '../../../core/dns/name.ts';
import {
  compareSpecificity,
  parsePattern,
  PATTERN_ERRORS,
  PatternTable,
  type Pattern,
} from '../../../core/dns/pattern.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);

await t.test('a pattern matches whole labels, whatever the case', async (t) => {
  const table: readonly (readonly [pattern: string, matches: string[], others: string[]])[] = [
    [
      'crm.corp.example',
      ['crm.corp.example', 'CRM.Corp.example.'],
      ['corp.example', 'a.crm.corp.example', 'xcrm.corp.example', 'crm.corp.example.net'],
    ],
    [
      '*.corp.example',
      ['a.corp.example', 'corp.example', '\\255.corp.example'],
      ['a.b.corp.example', 'acorp.example', 'example', 'corp.example.net'],
    ],
    [
      '**.corp.example',
      ['corp.example', 'a.corp.example', 'a.b.c.corp.example'],
      ['acorp.example', 'example'],
    ],
    ['db-?.corp.example', ['db-1.corp.example', 'db-\\255.corp.example'], ['db-12.corp.example']],
    ['a.*.example', ['a.b.example'], ['a.example', 'a.b.c.example', 'b.example']],
    ['a.**.example', ['a.example', 'a.b.c.example'], ['example', 'b.example', 'a.b.example.net']],
    ['*.**.example', ['a.example', 'a.b.example', 'example'], ['a.net']],
    ['*.*.example', ['a.b.example', 'b.example'], ['example', 'a.b.c.example']],
    ['printer', ['printer'], ['a.printer', 'printer.lan']],
    ['shop.*', ['shop.example', 'shop.net'], ['shop', 'shop.a.b', 'a.shop.example']],
  ];
  for (const [pattern, matches, others] of table) {
    const patterns = new PatternTable([[patternOf(pattern), pattern]]);
    for (const name of matches) t.same(patterns.matches(nameOf(name)), [pattern], name);
    for (const name of others) t.same(patterns.matches(nameOf(name)), [], `${pattern}: ${name}`);
    t.same(patterns.matches(nameOf('.')), [], 'the root is never a resource');
  }
});

await t.test('the most specific pattern comes first, compared from right to left', async (t) => {
  const inOrder = [
    'a.b.corp.example',
    '*.b.corp.example',
    '**.b.corp.example',
    '*.?b.corp.example',
    'a.?.corp.example',
    '*.??.corp.example',
    'a.*.corp.example',
    '*.*.corp.example',
    'a.**.corp.example',
    '**.corp.example',
    'a.**.example',
    '**.example',
  ];
  const shuffled = [...inOrder].sort();
  t.same(
    shuffled.sort((a, b) => compareSpecificity(patternOf(a), patternOf(b))),
    inOrder,
  );
  const table = new PatternTable(
    ['**.example', '*.corp.example', 'crm.corp.example', 'cr?.corp.example'].map((p) => [
      patternOf(p),
      p,
    ]),
  );
  t.same(table.matches(nameOf('crm.corp.example')), [
    'crm.corp.example',
    'cr?.corp.example',
    '*.corp.example',
    '**.example',
  ]);
});

await t.test('resources with the same pattern are all found, in their order', async (t) => {
  const pattern = patternOf('crm.example');
  const table = new PatternTable([
    [pattern, 1],
    [pattern, 2],
  ]);
  t.same(table.matches(nameOf('crm.example')), [1, 2]);
  t.equal(table.size, 2);
});

await t.test('a pattern that cannot be meant is refused with a reason', async (t) => {
  const refused = {
    '': 'empty-label',
    '.': 'empty-label',
    'a..b': 'empty-label',
    '.a': 'empty-label',
    'a.b..': 'empty-label',
    [`${'a'.repeat(64)}.b`]: 'label-too-long',
    [Array(128).fill('a').join('.')]: 'name-too-long',
    'bücher.example': 'bad-character',
    'a b.example': 'bad-character',
    'a\\.b.example': 'bad-character',
    'db-*.example': 'wildcard-in-label',
    '***.example': 'wildcard-in-label',
    '?*.example': 'wildcard-in-label',
    '**.a.**.example': 'repeated-any-depth',
    '*': 'no-literal-label',
    '**': 'no-literal-label',
    '*.?': 'no-literal-label',
  } as const;
  for (const [text, why] of Object.entries(refused)) {
    t.same(parsePattern(text), { ok: false, why }, text);
    t.match(PATTERN_ERRORS[why as keyof typeof PATTERN_ERRORS], /^(must|may) /);
  }
  t.equal(patternOf('CRM.Example.'), 'crm.example');
});

await t.test(`random names find what a naive matcher finds (SEED=${SEED})`, async (t) => {
  const label = fc.constantFrom('a', 'b', 'ab', 'ba', 'abc');
  const patternLabel = fc.constantFrom('a', 'b', 'ab', '?', '?b', 'a?', '??', '*', '**');
  const patternText = fc
    .array(patternLabel, { minLength: 1, maxLength: 5 })
    .map((labels) => labels.join('.'))
    .filter((text) => parsePattern(text).ok);
  const property = fc.property(
    fc.array(patternText, { maxLength: 30 }),
    fc.array(fc.array(label, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 10 }),
    (patterns, names) => {
      const table = new PatternTable(patterns.map((text) => [patternOf(text), text]));
      for (const labels of names) {
        const found = table.matches(labels.join('.') as DomainName);
        const expected = patterns
          .filter((text) => isNaiveMatch(text.split('.'), labels))
          .sort((a, b) => compareSpecificity(a as Pattern, b as Pattern));
        if (found.join(' ') !== expected.join(' ')) {
          throw new Error(`${labels.join('.')}: ${found.join(' ')} not ${expected.join(' ')}`);
        }
      }
    },
  );
  fc.assert(property, { seed: SEED, numRuns: 3_000 });
  t.pass('3,000 tables');
});

await t.test('ten thousand patterns cost a lookup little more than ten', async (t) => {
  const random = new SeededRandom(SEED);
  const forms = ['H', '*.H', '**.H', 'a-?.H'];
  const make = (count: number) =>
    new PatternTable(
      Array.from({ length: count }, (_, i) => {
        const form = forms[i % forms.length] ?? 'H';
        return [patternOf(form.replace('H', `host${i}.site${i % 97}.example`)), i] as const;
      }),
    );
  const names = Array.from({ length: 1_000 }, () =>
    nameOf(`x.host${random.next() % 10_000}.site${random.next() % 97}.example`),
  );
  const time = (table: PatternTable<number>) => {
    let found = 0;
    const start = performance.now();
    for (let round = 0; round < 50; round++) {
      for (const name of names) found += table.matches(name).length;
    }
    return { ns: ((performance.now() - start) / (50 * names.length)) * 1e6, found };
  };
  const few = make(10);
  const many = make(10_000);
  time(few);
  time(many);
  const [a, b] = [time(few), time(many)];
  t.comment(`${a.ns.toFixed(0)} ns among 10, ${b.ns.toFixed(0)} ns among 10,000`);
  // Hundreds of times as much if each pattern were compared.
  t.ok(b.ns < 50_000);
});

function isNaiveMatch(pattern: readonly string[], labels: readonly string[]): boolean {
  const match = (p: readonly string[], l: readonly string[]): boolean => {
    const [first, ...rest] = p;
    if (first === undefined) return l.length === 0;
    if (first === '**') return match(rest, l) || (l.length > 0 && match(p, l.slice(1)));
    const [label] = l;
    if (label === undefined) return false;
    const isSame = first === '*' || new RegExp(`^${first.replaceAll('?', '.')}$`, 's').test(label);
    return isSame && match(rest, l.slice(1));
  };
  return match(pattern, labels) || (pattern[0] === '*' && match(pattern.slice(1), labels));
}

function patternOf(text: string): Pattern {
  const parsed = parsePattern(text);
  if (!parsed.ok) throw new Error(`${text}: ${parsed.why}`);
  return parsed.value;
}

function nameOf(text: string): DomainName {
  const parsed = parseDomainName(text);
  if (!parsed.ok) throw new Error(`${text}: ${parsed.why}`);
  return parsed.value;
}
