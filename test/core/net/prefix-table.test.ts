import fc from 'fast-check';
import t from 'tap';
import {
  ipAddressBytes,
  ipAddressFromBytes,
  type IpAddress,
} from '../../../core/net/ip-address.ts';
import {
  formatIpPrefix,
  networkOf,
  parseIpPrefix,
  prefixContains,
  type IpPrefix,
} from '../../../core/net/ip-prefix.ts';
import { PrefixTable } from '../../../core/net/prefix-table.ts';

/** The oracle. */
class SlowList {
  readonly entries = new Map<string, { prefix: IpPrefix; value: number }>();

  insert(prefix: IpPrefix, value: number): void {
    this.entries.set(formatIpPrefix(networkOf(prefix)), { prefix, value });
  }

  remove(prefix: IpPrefix): boolean {
    return this.entries.delete(formatIpPrefix(networkOf(prefix)));
  }

  get(prefix: IpPrefix): number | undefined {
    return this.entries.get(formatIpPrefix(networkOf(prefix)))?.value;
  }

  lookup(address: IpAddress): number | undefined {
    let best: { prefix: IpPrefix; value: number } | undefined;
    for (const entry of this.entries.values()) {
      const isLonger = best === undefined || entry.prefix.length > best.prefix.length;
      if (isLonger && prefixContains(entry.prefix, address)) best = entry;
    }
    return best?.value;
  }
}

await t.test('the longest prefix wins, and removing it uncovers the next', async (t) => {
  const table = new PrefixTable<string>();
  for (const text of [
    '0.0.0.0/0',
    '10.0.0.0/8',
    '10.1.0.0/16',
    '10.1.2.3/32',
    '::/0',
    'fd00::/8',
  ]) {
    table.insert(prefix(text), text);
  }
  const lookup = (text: string): string | undefined => table.lookup(prefix(text).address);
  t.equal(lookup('10.1.2.3'), '10.1.2.3/32');
  t.equal(lookup('10.1.2.4'), '10.1.0.0/16');
  t.equal(lookup('10.2.0.1'), '10.0.0.0/8');
  t.equal(lookup('192.0.2.1'), '0.0.0.0/0');
  t.equal(lookup('fd12::1'), 'fd00::/8');
  t.equal(lookup('2001:db8::1'), '::/0');

  t.equal(table.remove(prefix('10.1.2.3/32')), true);
  t.equal(table.remove(prefix('10.1.2.3/32')), false);
  t.equal(table.remove(prefix('10.1.2.0/24')), false, 'a prefix that is not there');
  t.equal(lookup('10.1.2.3'), '10.1.0.0/16');
  table.remove(prefix('0.0.0.0/0'));
  t.equal(lookup('192.0.2.1'), undefined);
  t.equal(
    table.removeWhere((value) => value.includes(':')),
    2,
  );
  t.equal(lookup('fd12::1'), undefined);
  t.same(
    [...table.entries()].map(([p]) => formatIpPrefix(p)),
    ['10.0.0.0/8', '10.1.0.0/16'],
  );
  t.equal(table.size, 2);
});

await t.test('an address is looked up where it lies in a packet', async (t) => {
  const table = new PrefixTable<number>();
  table.insert(prefix('192.0.2.128/25'), 1);
  const bytes = Uint8Array.of(1, 2, 3, 192, 0, 2, 200, 4);
  t.equal(table.lookupBytes(bytes, 3, 4), 1);
  t.equal(table.lookupBytes(bytes, 2, 4), undefined);
});

for (const family of [4, 6] as const) {
  await t.test(
    `IPv${family}: no difference from a slow list, whatever comes and goes`,
    async (t) => {
      // Few distinct bits, so that prefixes nest, part and meet again.
      const width = family === 4 ? 32 : 128;
      const address = fc
        .array(fc.constantFrom(0, 0, 1, 0x80, 0xff), { minLength: width / 8, maxLength: width / 8 })
        .map((bytes) => ipAddressFromBytes(Uint8Array.from(bytes)));
      const somePrefix = fc.record({ address, length: fc.nat(width) });
      const step = fc.record({ prefix: somePrefix, isRemoval: fc.boolean(), probe: address });
      const pool = fc.array(somePrefix, { minLength: 1, maxLength: 30 });
      fc.assert(
        fc.property(pool, fc.array(step, { maxLength: 120 }), (known, steps) => {
          const table = new PrefixTable<number>();
          const list = new SlowList();
          for (const [value, step] of steps.entries()) {
            const removed = known[value % known.length] ?? step.prefix;
            if (step.isRemoval) strictly(table.remove(removed), list.remove(removed));
            else {
              const added = value % 2 === 0 ? removed : step.prefix;
              table.insert(added, value);
              list.insert(added, value);
            }
            for (const probe of [step.probe, step.prefix.address, removed.address]) {
              strictly(table.lookup(probe), list.lookup(probe));
              strictly(table.lookupBytes(ipAddressBytes(probe), 0, family), list.lookup(probe));
            }
            strictly(table.size, list.entries.size);
            strictly(table.get(step.prefix), list.get(step.prefix));
          }
          const entries = [...table.entries()].map(([p, value]) => `${formatIpPrefix(p)} ${value}`);
          strictly(
            entries.sort().join(),
            [...list.entries]
              .map(([text, e]) => `${text} ${e.value}`)
              .sort()
              .join(),
          );
          table.removeWhere((value) => value % 3 === 0);
          for (const [text, { prefix, value }] of list.entries) {
            if (value % 3 === 0) list.entries.delete(text);
            strictly(table.get(prefix), value % 3 === 0 ? undefined : value);
          }
          strictly(
            table.lookup(prefixOrZero(steps[0]?.probe)),
            list.lookup(prefixOrZero(steps[0]?.probe)),
          );
        }),
        { numRuns: 300 },
      );
      t.pass();

      function prefixOrZero(probe: IpAddress | undefined): IpAddress {
        return probe ?? ipAddressFromBytes(new Uint8Array(width / 8));
      }
    },
  );
}

await t.test(
  '100,000 routes: looking up allocates nothing, and emptying gives all back',
  async (t) => {
    const table = new PrefixTable<number>();
    const bytes = new Uint8Array(4);
    const prefixes: IpPrefix[] = [];
    for (let i = 0; i < 100_000; i++) {
      new DataView(bytes.buffer).setUint32(0, Math.imul(i, 2_654_435_761));
      prefixes.push({ address: ipAddressFromBytes(bytes), length: 24 + (i % 9) });
    }
    for (const [i, prefix] of prefixes.entries()) table.insert(prefix, i);
    const lookups = (): number => {
      let found = 0;
      for (let i = 0; i < 200_000; i++) {
        bytes[0] = i;
        bytes[1] = i >> 8;
        bytes[2] = i >> 4;
        if (table.lookupBytes(bytes, 0, 4) !== undefined) found++;
      }
      return found;
    };
    lookups();
    const before = process.memoryUsage().heapUsed;
    lookups();
    const grown = process.memoryUsage().heapUsed - before;
    t.ok(grown < 1_000_000, `200,000 lookups left ${grown} bytes on the heap`);
    for (const prefix of prefixes) table.remove(prefix);
    t.equal(table.size, 0);
    t.same([...table.entries()], []);
  },
);

await t.test('routes that come and go leave nothing behind', async (t) => {
  const table = new PrefixTable<number>();
  const bytes = new Uint8Array(16);
  const route = (i: number): IpPrefix => {
    // Neighbours in pairs, so that each pair needs a fork of its own.
    new DataView(bytes.buffer).setUint32(4, (Math.imul(i >> 1, 2_654_435_761) << 1) | (i & 1));
    return { address: ipAddressFromBytes(bytes), length: 64 };
  };
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 30_000; i++) {
    table.insert(route(i), i);
    if (i >= 10) table.remove(route(i - 10));
  }
  const grown = process.memoryUsage().arrayBuffers - before;
  t.equal(table.size, 10);
  t.ok(grown < 500_000, `${grown} bytes`);
});

function prefix(text: string): IpPrefix {
  const parsed = parseIpPrefix(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}

function strictly(actual: unknown, expected: unknown): void {
  if (!Object.is(actual, expected)) throw new Error(`${String(actual)} is not ${String(expected)}`);
}
