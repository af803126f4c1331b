import type { PathKind } from '../../core/peering/message.ts';
import type { Millis } from '../../core/sansio/instant.ts';
import type { Arenas } from './arenas.ts';
import { directPathPossible, relayPossible, streamPossible } from './oracle.ts';
import { endOfUpsets, formatScenario, makeScenario, type Scenario } from './scenario.ts';
import { Stage, STREAM_PORT } from './stage.ts';

type Kind = PathKind | 'none';

/** What came of a story. */
export interface Outcome {
  readonly seed: number;
  /** Of the path in the end, at both sides. */
  readonly kinds: readonly [Kind, Kind];
  /** How long after the last upset it was there for good. */
  readonly recovery: Millis;
  /** What happened last, before it was there. */
  readonly lastUpset: string;
  /** What is wrong with it, with the story. */
  readonly failure: string | undefined;
}

const INTERVAL: Millis = 1_000;
/** The path is taken for good when it was right, and packets came, this often in a row. */
const STEADY = 5;
/** After the last upset: longer than the longest pause between attempts, and than ICE then takes. */
const SETTLING: Millis = 90_000;
/** Every so many seeds the path is watched for a minute more. */
const WATCHED_SEEDS = 20;
const WATCHED: Millis = 60_000;

/** Plays the story of a seed to its end, and judges it by the oracle. */
export function play(seed: number, arenas: Arenas): Outcome {
  const scenario = makeScenario(seed);
  const lastUpset = scenario.upsets.at(-1)?.upset.type ?? 'start';
  const stage = new Stage(scenario, arenas);
  try {
    const { recovery, kinds, wrong } = judge(stage, scenario);
    const failure = wrong === undefined ? undefined : `${wrong}; ${formatScenario(scenario)}`;
    return { seed, kinds, recovery, lastUpset, failure };
  } catch (error) {
    const failure = `${(error as Error).stack}\n${formatScenario(scenario)}`;
    return { seed, kinds: ['none', 'none'], recovery: 0, lastUpset, failure };
  } finally {
    stage.dispose();
  }
}

function judge(stage: Stage, scenario: Scenario) {
  const { world } = stage;
  const [a, b] = [stage.sides.a.device, stage.sides.b.device];
  let number = 0;
  const talk = (): void => {
    a.send(b, ++number);
    b.send(a, number);
    world.timeline.in(INTERVAL, talk);
  };
  talk();
  world.run(endOfUpsets(scenario));
  const expected = expectedKinds(stage, scenario);
  const kindsNow = (): readonly [Kind, Kind] => [
    a.path(b)?.kind ?? 'none',
    b.path(a)?.kind ?? 'none',
  ];
  const isLossy = scenario.loss > 0 || scenario.bursts !== undefined;
  /** Whether in so many intervals enough packets arrive at both, and the path stays as expected. */
  const holds = (intervals: number): boolean => {
    const before = [a, b].map(({ received }) => received.length);
    for (let i = 0; i < intervals; i++) {
      world.run(INTERVAL);
      if (!isExpected(kindsNow(), expected)) return false;
    }
    const least = expected.includes('none') ? 0 : intervals * (isLossy ? 0.4 : 0.9);
    return [a, b].every(({ received }, i) => received.length - before[i]! >= least);
  };
  for (let recovery = 0; recovery <= SETTLING;) {
    const began = world.now;
    if (holds(STEADY)) {
      const kinds = kindsNow();
      const isLong = scenario.seed % WATCHED_SEEDS === 0;
      const wrong =
        isLong && !holds(WATCHED / INTERVAL)
          ? `${expected.join('/')} expected, did not hold but became ${kindsNow().join(' and ')}`
          : undefined;
      return { kinds, recovery, wrong };
    }
    recovery += world.now - began;
  }
  const kinds = kindsNow();
  const counts = [a, b].map(({ received }) => received.length);
  const wrong = `${expected.join('/')} expected, ${kinds.join(' and ')} found, ${counts.join(' and ')} of ${number} arrived`;
  return { kinds, recovery: SETTLING, wrong };
}

/** Both sides have the same kind of path, and it is one of the best that there can be. */
function isExpected([a, b]: readonly [Kind, Kind], expected: readonly Kind[]): boolean {
  return a === b && expected.includes(a);
}

/** The best kind of path; where the sides may see that differently, either. */
function expectedKinds(stage: Stage, { hasStreams }: Scenario): readonly Kind[] {
  const { world, sides } = stage;
  const [a, b] = [sides.a.host, sides.b.host];
  if (directPathPossible(a, b)) return ['direct'];
  const relays = stage.relays.map(({ host, server }) => ({ host, isRunning: server.isRunning }));
  if (relayPossible(world, a, b, relays, { overTcp: false })) return ['relayed'];
  if (!hasStreams) return ['none'];
  // A relay that one side reaches by a stream is worse to it than a stream, and better to the other.
  const kinds: Kind[] = [];
  if (streamPossible(world, a, b, STREAM_PORT)) kinds.push('stream');
  if (relayPossible(world, a, b, relays, { overTcp: true })) kinds.push('relayed');
  return kinds.length === 0 ? ['none'] : kinds;
}
