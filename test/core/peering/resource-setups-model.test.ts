import fc from 'fast-check';
import t from 'tap';
import { parseIpAddress, type IpAddress } from '../../../core/net/ip-address.ts';
import type { DomainStatus } from '../../../core/peering/message.ts';
import { ResourceSetups, type SetupKey } from '../../../core/peering/resource-setups.ts';
import { instantAt } from '../../../core/sansio/instant.ts';
import { NaiveSetups, text, type Happenings } from './naive-setups.ts';

type Step =
  | { readonly type: 'request' | 'unreachable'; readonly key: SetupKey }
  | { readonly type: 'hold'; readonly key: SetupKey; readonly packet: number }
  | { readonly type: 'status'; readonly key: SetupKey; readonly status: DomainStatus }
  | { readonly type: 'answers' | 'requests'; readonly peer: number }
  | { readonly type: 'lost' | 'remove-peer'; readonly peer: number }
  | { readonly type: 'remove-resource'; readonly resource: string }
  | { readonly type: 'wait'; readonly ms: number };

const PROXY = ip('100.96.0.1');

const KEYS: readonly SetupKey[] = [1, 2].flatMap((peer) =>
  ['crm', 'git'].flatMap((resource) =>
    ['a.example', 'b.example', 'c.example', 'd.example', 'e.example', 'f.example'].map(
      (domain) => ({ peer, resource, domain }),
    ),
  ),
);

/** The set-ups and their rules, side by side. */
class World {
  readonly setups = new ResourceSetups();
  readonly trace: string[] = [];
  readonly #naive = new NaiveSetups();
  readonly #isExact: boolean;
  #now = 0;

  constructor(isExact = true) {
    this.#isExact = isExact;
  }

  run(each: Step): void {
    const { setups } = this;
    const naive = this.#naive;
    const now = instantAt(this.#now);
    switch (each.type) {
      case 'request':
        setups.request(each.key, [PROXY], now);
        naive.request(each.key);
        break;
      case 'hold':
        setups.hold(each.key, [PROXY], Uint8Array.of(each.packet), now);
        naive.hold(each.key, each.packet);
        break;
      case 'status':
        setups.handleStatus(each.key, each.status, now);
        naive.handleStatus(each.key, each.status);
        break;
      case 'answers':
        for (const key of KEYS.filter(({ peer }) => peer === each.peer)) {
          setups.handleStatus(key, 'active', now);
          naive.handleStatus(key, 'active');
        }
        break;
      case 'requests':
        for (const key of KEYS.filter(({ peer }) => peer === each.peer)) {
          setups.request(key, [PROXY], now);
          naive.request(key);
        }
        break;
      case 'unreachable': {
        const isAsked = setups.handleUnreachable(each.key, [PROXY], now);
        if (isAsked !== naive.handleUnreachable(each.key)) throw new Error('who need not hear');
        break;
      }
      case 'lost':
        setups.handlePeerLost(each.peer, now);
        naive.handlePeerLost(each.peer);
        break;
      case 'remove-peer':
        setups.removePeer(each.peer);
        naive.removeWhere(({ peer }) => peer === each.peer);
        break;
      case 'remove-resource':
        setups.removeWhere(({ resource }) => resource === each.resource);
        naive.removeWhere(({ resource }) => resource === each.resource);
        break;
      case 'wait':
        for (let i = 0; i < each.ms; i++) this.#tick();
        break;
    }
    this.check();
  }

  check(): void {
    const { setups } = this;
    const happened = this.#happened();
    same(happened, this.#naive.takeHappenings(), 'events');
    same(setups.pollTimeout()?.at, this.#naive.next(), 'deadline');
    same(
      setups
        .statuses()
        .map(({ state, why, ...key }) => `${text(key)} ${state} ${why ?? ''}`)
        .sort(),
      this.#naive.statuses().slice().sort(),
      'statuses',
    );
    for (const key of KEYS) same(setups.isHeld(key), this.#naive.isHeld(key), text(key));
  }

  #tick(): void {
    this.#now++;
    this.#naive.tick();
    const at = this.setups.pollTimeout()?.at;
    const isLooking = !this.#isExact && this.#now % 10 === 0;
    if ((at !== undefined && at <= this.#now) || isLooking) {
      this.setups.handleTimeout(instantAt(this.#now));
      same(this.#happened(), this.#naive.takeHappenings(), `events at ${this.#now}`);
    }
  }

  #happened(): Happenings {
    const sent: Record<number, string[]> = {};
    const told: Record<string, string[]> = {};
    for (let event = this.setups.pollEvent(); event; event = this.setups.pollEvent()) {
      this.trace.push(`${this.#now} ${JSON.stringify(event)}`);
      switch (event.type) {
        case 'send': {
          if (event.message.type !== 'assigned-ips') throw new Error(event.message.type);
          (sent[event.peer] ??= []).push(text({ ...event.message, peer: event.peer }));
          break;
        }
        case 'released':
          (told[text(event.key)] ??= []).push(
            `released ${event.packets.map(([byte]) => byte).join()}`,
          );
          break;
        case 'failed':
          (told[text(event.key)] ??= []).push(`failed ${event.why}`);
          break;
      }
    }
    return { sent, told };
  }
}

await t.test('any sequence of events has the outcome of the rules', async (t) => {
  let steps = 0;
  fc.assert(
    fc.property(fc.array(step(), { maxLength: 80, size: 'max' }), (sequence) => {
      const world = new World();
      for (const each of sequence) world.run(each);
      // In the end nothing is awaited any more, and no deadline is left.
      for (let i = 0; i < 100 && world.setups.pollTimeout() !== undefined; i++) {
        world.run({ type: 'wait', ms: 1000 });
      }
      world.check();
      if (world.setups.pollTimeout() !== undefined) throw new Error('a deadline without end');
      steps += sequence.length;
    }),
    { numRuns: 120 },
  );
  t.ok(steps > 1000, `${steps} steps`);
});

await t.test(
  'a driver that looks each 10 ms sees what one sees that obeys deadlines',
  async (t) => {
    fc.assert(
      fc.property(fc.array(step(), { maxLength: 60, size: 'max' }), (sequence) => {
        const traces = [true, false].map((isExact) => {
          const world = new World(isExact);
          for (const each of sequence) world.run(each);
          return world.trace;
        });
        return JSON.stringify(traces[0]) === JSON.stringify(traces[1]);
      }),
      { numRuns: 40 },
    );
    t.pass();
  },
);

function step(): fc.Arbitrary<Step> {
  // Mostly the first ones, so that the same name is met again.
  const key = fc.oneof(fc.constantFrom(...KEYS.slice(0, 3)), fc.constantFrom(...KEYS));
  const peer = fc.constantFrom(1, 2);
  const ms = fc.oneof(fc.constantFrom(0, 1, 125, 1999, 2000, 10_000), fc.nat(3000));
  const status = fc.constantFrom<DomainStatus>('active', 'refused', 'not-resolved');
  return fc.oneof(
    { weight: 6, arbitrary: fc.record({ type: fc.constant('request' as const), key }) },
    {
      weight: 6,
      arbitrary: fc.record({ type: fc.constant('hold' as const), key, packet: fc.nat(60) }),
    },
    { weight: 5, arbitrary: fc.record({ type: fc.constant('status' as const), key, status }) },
    { weight: 2, arbitrary: fc.record({ type: fc.constant('answers' as const), peer }) },
    { weight: 2, arbitrary: fc.record({ type: fc.constant('requests' as const), peer }) },
    { weight: 3, arbitrary: fc.record({ type: fc.constant('unreachable' as const), key }) },
    { weight: 2, arbitrary: fc.record({ type: fc.constant('lost' as const), peer }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant('remove-peer' as const), peer }) },
    {
      weight: 1,
      arbitrary: fc.record({
        type: fc.constant('remove-resource' as const),
        resource: fc.constantFrom('crm', 'git'),
      }),
    },
    { weight: 7, arbitrary: fc.record({ type: fc.constant('wait' as const), ms }) },
  );
}

function same(actual: unknown, expected: unknown, what: string): void {
  const [a, b] = [inOrder(actual), inOrder(expected)];
  if (a !== b) throw new Error(`${what}: ${a} instead of ${b}`);
}

/** As JSON, with the members of objects in one order. */
function inOrder(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) =>
    typeof each === 'object' && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1)))
      : each,
  );
}

function ip(text: string): IpAddress {
  const address = parseIpAddress(text);
  if (!address.ok) throw new Error(text);
  return address.value;
}
