import type { Millis } from '../../core/sansio/instant.ts';
import type { Bursts } from './link.ts';
import { NAT_KINDS, type NatKind } from './nat.ts';
import { SeededRandom } from './seeded-random.ts';

export type SideName = 'a' | 'b';

/** What is between one router and the Internet. */
export interface SideScenario {
  readonly nat: NatKind;
  /** Whether its NAT is behind that of a carrier. */
  readonly isBehindCarrier: boolean;
  readonly ipv6: 'none' | 'firewalled' | 'open';
  /** When its daemon first starts. */
  readonly startsAt: Millis;
}

/** What may go wrong, once it runs. */
export type Upset =
  | { readonly type: 'rebind' | 'readdress'; readonly side: SideName }
  | { readonly type: 'restart'; readonly side: SideName; readonly for: Millis }
  | { readonly type: 'partition' | 'outage'; readonly side: SideName; readonly for: Millis }
  | {
      readonly type: 'sleep';
      readonly side: SideName;
      readonly for: Millis;
      /** Whether the monotonic clock counts it. */
      readonly isCounted: boolean;
    }
  | { readonly type: 'relay-reboot' | 'relay-stop'; readonly relay: number }
  | { readonly type: 'block-direct'; readonly for: Millis };

export interface TimedUpset {
  readonly at: Millis;
  readonly upset: Upset;
}

/** One story of two sites, all of it made from the seed. */
export interface Scenario {
  readonly seed: number;
  readonly a: SideScenario;
  readonly b: SideScenario;
  /** Both behind the same carrier's NAT, where both are behind one. */
  readonly isSameCarrier: boolean;
  readonly loss: number;
  readonly bursts: Bursts | undefined;
  readonly relays: readonly ('runs' | 'dead')[];
  /** Whether relays take TCP too, and routers listen on it. */
  readonly hasStreams: boolean;
  readonly upsets: readonly TimedUpset[];
}

const FIRST_UPSET: Millis = 20_000;
const BETWEEN_UPSETS: Millis = 20_000;
const MOST_UPSETS = 3;
/** Of sleeps: an hour of trying costs as much as twenty other stories. */
const LONG_SLEEPS = 0.1;

export function makeScenario(seed: number): Scenario {
  const random = new SeededRandom(seed);
  const chance = (share: number): boolean => random.fraction() < share;
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random.fraction() * from.length)]!;
  const side = (): SideScenario => ({
    nat: pick(NAT_KINDS),
    isBehindCarrier: chance(0.15),
    ipv6: chance(0.75) ? 'none' : pick(['firewalled', 'open'] as const),
    startsAt: chance(0.5) ? 0 : Math.floor(random.fraction() * 15_000),
  });
  const [a, b] = [side(), side()];
  const relays = Array.from({ length: Math.floor(random.fraction() * 4) }, () =>
    chance(0.2) ? ('dead' as const) : ('runs' as const),
  );
  const upset = (): Upset => {
    const at = pick(['a', 'b'] as const);
    const kinds: (() => Upset)[] = [
      () => ({ type: 'rebind', side: at }),
      () => ({ type: 'readdress', side: at }),
      () => ({ type: 'restart', side: at, for: pick([200, 5_000, 40_000]) }),
      () => ({ type: 'partition', side: at, for: chance(0.2) ? 200_000 : 10_000 }),
      () => ({ type: 'outage', side: at, for: pick([3_000, 30_000]) }),
      () => ({
        type: 'sleep',
        side: at,
        for: chance(LONG_SLEEPS) ? 3_600_000 : 40_000,
        isCounted: chance(0.5),
      }),
      () => ({ type: 'block-direct', for: pick([10_000, 40_000]) }),
    ];
    if (relays.length > 0) {
      const relay = Math.floor(random.fraction() * relays.length);
      kinds.push(() => ({ type: pick(['relay-reboot', 'relay-stop'] as const), relay }));
    }
    return pick(kinds)();
  };
  let at = FIRST_UPSET;
  const upsets = Array.from({ length: Math.floor(random.fraction() * (MOST_UPSETS + 1)) }, () => {
    const timed = { at: Math.floor(at), upset: upset() };
    at += random.fraction() * BETWEEN_UPSETS + ('for' in timed.upset ? timed.upset.for : 0);
    return timed;
  });
  const isSameCarrier = a.isBehindCarrier && b.isBehindCarrier && chance(0.5);
  const loss = pick([0, 0, 0.01, 0.05, 0.2]);
  const bursts = chance(0.15) ? { goodToBad: 0.01, badToGood: 0.2, lossWhenBad: 0.8 } : undefined;
  const isBlocked = [a, b].some(({ nat }) => nat === 'udpBlocked');
  const hasStreams = chance(isBlocked ? 0.5 : 0.1);
  return { seed, a, b, isSameCarrier, loss, bursts, relays, hasStreams, upsets };
}

/** When the last upset is over. */
export function endOfUpsets({ a, b, upsets }: Scenario): Millis {
  const ends = upsets.map(({ at, upset }) => at + ('for' in upset ? upset.for : 0));
  return Math.max(a.startsAt, b.startsAt, ...ends);
}

/** The story in one line, which the seed makes again. */
export function formatScenario(scenario: Scenario): string {
  const { seed, a, b, isSameCarrier, loss, bursts, relays, hasStreams, upsets } = scenario;
  const carrier = isSameCarrier ? ' same carrier,' : '';
  const lossy = loss === 0 ? '' : ` loss ${loss},`;
  const bursty = bursts === undefined ? '' : ' bursts,';
  const story = upsets.map(({ at, upset }) => `${at / 1_000}s ${formatUpset(upset)}`).join(', ');
  return (
    `SEED=${seed} a ${formatSide(a)}, b ${formatSide(b)},${carrier}${lossy}${bursty}` +
    ` relays [${relays.join(' ')}],${hasStreams ? ' streams,' : ''} ${story === '' ? 'nothing happens' : story}`
  );
}

function formatSide({ nat, isBehindCarrier, ipv6, startsAt }: SideScenario): string {
  const carrier = isBehindCarrier ? ' behind a carrier' : '';
  return `${nat}${carrier} IPv6 ${ipv6} from ${startsAt / 1_000}s`;
}

function formatUpset(upset: Upset): string {
  const where = 'side' in upset ? ` ${upset.side}` : 'relay' in upset ? ` ${upset.relay}` : '';
  const howLong = 'for' in upset ? ` for ${upset.for / 1_000}s` : '';
  const uncounted = upset.type === 'sleep' && !upset.isCounted ? ' uncounted' : '';
  return `${upset.type}${where}${howLong}${uncounted}`;
}
