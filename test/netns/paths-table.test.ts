import t from 'tap';
import { whyNoInternet } from '../lab/internet.ts';
import type { NatKind } from '../lab/nat.ts';
import { PathSites } from '../lab/path-sites.ts';
import { printPaths, type PathRow } from '../lab/path-table.ts';

/** Between any two NATs there is a path, and a direct one where RFC 4787 lets there be one. */
const skip = whyNoInternet();

type Nat = Exclude<NatKind, 'none'>;

const PAIRS: readonly (readonly [a: Nat, b: Nat, path: RegExp])[] = [
  ['fullCone', 'fullCone', /^direct/],
  ['fullCone', 'portRestricted', /^direct/],
  ['fullCone', 'symmetric', /^direct/],
  ['portRestricted', 'portRestricted', /^direct/],
  ['portRestricted', 'symmetric', /^relayed/],
  ['symmetric', 'symmetric', /^relayed/],
  ['udpBlocked', 'fullCone', /^relayed/],
  ['udpBlocked', 'symmetric', /^relayed/],
  ['udpBlocked', 'udpBlocked', /^relayed/],
  ['only443ViaProxy', 'portRestricted', /^relayed/],
  ['only443ViaProxy', 'symmetric', /^relayed/],
  ['only443ViaProxy', 'udpBlocked', /^relayed/],
  ['only443ViaProxy', 'only443ViaProxy', /^relayed/],
];

await t.test('two sites meet, whatever NATs are before them', { skip }, async (t) => {
  const sites = await PathSites.create(t, 'path-tbl', {
    nats: { a: 'fullCone', b: 'fullCone' },
    relays: ['udp', 'tcp', 'tls'],
    proxy: true,
  });
  const rows: PathRow[] = [];
  for (const [a, b, expected] of PAIRS) {
    await t.test(`${a} and ${b}`, async (t) => {
      await sites.stopAndForget();
      await sites.internet.changeNat('a', a);
      await sites.internet.changeNat('b', b);
      let path = 'none';
      let ms = NaN;
      try {
        await sites.start();
        ms = await sites.meet(30_000);
        await sites.usesPath(expected, 10_000);
      } finally {
        path = await sites.pathOf('a').catch(() => 'none');
        rows.push({ a, b, path, seconds: ms / 1000 });
      }
      t.match(path, expected);
    });
  }
  printPaths(t, rows);
});

await t.test(
  'a site that can be reached takes a stream where UDP is blocked',
  { skip },
  async (t) => {
    const sites = await PathSites.create(t, 'path-str', {
      nats: { a: 'udpBlocked', b: 'none' },
      relays: [],
      streamPort: 8443,
    });
    await sites.start();
    const ms = await sites.meet(30_000);
    await sites.usesPath(/^stream/, 10_000);
    const path = await sites.pathOf('a').catch(() => 'none');
    printPaths(t, [{ a: 'udpBlocked', b: 'none', path, seconds: ms / 1000 }]);
  },
);
