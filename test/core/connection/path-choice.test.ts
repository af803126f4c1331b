import t from 'tap';
import {
  bestOf,
  isBetter,
  isSamePair,
  pathKindOf,
  tierOf,
} from '../../../core/connection/path-choice.ts';
import type { ValidPair } from '../../../core/ice/agent.ts';
import type { Candidate } from '../../../core/ice/candidate.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { at, candidate } from '../ice/network.ts';

const isStream = (base: string): boolean => base.startsWith('stream');

function pair(
  options: {
    readonly base?: string;
    readonly local?: Candidate['type'];
    readonly remote?: Candidate['type'];
    readonly family?: 4 | 6;
    readonly rtt?: number;
  } = {},
): ValidPair {
  const { base = 'udp', local = 'host', remote = 'host', family = 4, rtt = 50 } = options;
  const [own, other] =
    family === 4
      ? ['192.0.2.1:1000', '198.51.100.1:2000']
      : ['[2001:db8::1]:1000', '[2001:db8::2]:2000'];
  return {
    base,
    remote: at(other),
    local: candidate(local, own),
    remoteCandidate: candidate(remote, other),
    rtt,
    heardAt: instantAt(0),
    answeredAt: instantAt(0),
  };
}

const BY_TIER = [
  pair({ family: 6 }),
  pair(),
  pair({ local: 'relay' }),
  pair({ local: 'relay', remote: 'relay' }),
  pair({ base: 'stream' }),
  pair({ base: 'stream to a relay', local: 'relay' }),
];

await t.test(
  'direct, by IPv6 first; over one relay, over two; a stream; a relay reached by a stream',
  async (t) => {
    const tiers = BY_TIER.map((each) => tierOf(each, isStream));
    t.same(
      tiers,
      [...tiers].sort((a, b) => a - b),
    );
    t.equal(new Set(tiers).size, BY_TIER.length);
    const kinds = BY_TIER.map((each) => pathKindOf(each, isStream));
    t.same(kinds, ['direct', 'direct', 'relayed', 'relayed', 'stream', 'relayed']);
  },
);

await t.test('a relay is one, whose ever it is', async (t) => {
  t.equal(tierOf(pair({ remote: 'relay' }), isStream), tierOf(pair({ local: 'relay' }), isStream));
});

await t.test('how a direct address was found out does not matter', async (t) => {
  for (const remote of ['srflx', 'prflx'] as const) {
    t.equal(tierOf(pair({ remote }), isStream), tierOf(pair(), isStream));
  }
});

await t.test('a better tier wins, however slow, and a poorer one never', async (t) => {
  BY_TIER.forEach((better, i) => {
    for (const poorer of BY_TIER.slice(i + 1)) {
      t.ok(isBetter({ ...better, rtt: 900 }, { ...poorer, rtt: 1 }, isStream));
      t.notOk(isBetter({ ...poorer, rtt: 1 }, { ...better, rtt: 900 }, isStream));
    }
  });
});

await t.test('within a tier a pair must be faster by 10 ms and by a fifth', async (t) => {
  for (const [rtt, than, expected] of [
    [40, 50, true],
    [41, 50, false],
    [10, 20, true],
    [11, 20, false],
    [1, 10, false],
    [160, 200, true],
    [161, 200, false],
    [50, 50, false],
    [60, 50, false],
  ] as const) {
    t.equal(isBetter(pair({ rtt }), pair({ rtt: than }), isStream), expected, `${rtt} ${than}`);
  }
});

await t.test('no two pairs are better than each other', async (t) => {
  const pairs = BY_TIER.flatMap((each) => [1, 9, 20, 50, 400].map((rtt) => ({ ...each, rtt })));
  for (const a of pairs) {
    for (const b of pairs) {
      t.notOk(isBetter(a, b, isStream) && isBetter(b, a, isStream));
    }
  }
});

await t.test('the best is the fastest of the best tier', async (t) => {
  const fastest = pair({ rtt: 30 });
  const others = [pair({ rtt: 31 }), pair({ local: 'relay', rtt: 1 }), pair({ base: 'stream' })];
  t.equal(bestOf([...others, fastest], isStream), fastest);
  t.equal(bestOf([fastest, ...others], isStream), fastest);
  t.equal(bestOf([], isStream), undefined);
});

await t.test('a pair is its base and its remote address', async (t) => {
  t.ok(isSamePair(pair({ rtt: 1 }), pair({ rtt: 2 })));
  t.notOk(isSamePair(pair(), pair({ base: 'other' })));
  t.notOk(isSamePair(pair(), pair({ family: 6 })));
  t.notOk(isSamePair(undefined, undefined));
});
