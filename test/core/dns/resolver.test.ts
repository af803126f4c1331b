import t from 'tap';
import type { DnsTransmit } from '../../../core/dns/forwarder.ts';
import { decodeQuery } from '../../../core/dns/message.ts';
import { ProxyPool } from '../../../core/dns/proxy-pool.ts';
import { Resolver, type ResolverEvent } from '../../../core/dns/resolver.ts';
import { localNames, UpstreamRules } from '../../../core/dns/upstream-rules.ts';
import { after, instantAt, type Instant } from '../../../core/sansio/instant.ts';
import { SeededRandom } from '../../sim/seeded-random.ts';
import { udp, tcp } from './forwarder-scene.ts';
import {
  decode,
  nameOf,
  pool,
  prefixOf,
  question,
  RANGES,
  record,
  reply,
  resources,
  type TestResource,
} from './messages.ts';
import { mutatedQuery, queryTemplates } from './mutated-queries.ts';

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
/** Queries of the long test; a million takes about ten times as long. */
const QUERIES = Number(process.env['DNS_QUERIES'] ?? 100_000);

const PATTERNS = { '*.corp.example': 'dual', 'v4.example': 'ipv4-only' } as const;
const PUBLIC = '192.0.2.1:53';
const ROUTER = '127.0.0.1:53';
const SITE = '100.64.0.7:53535';

/** One label before `corp.example` or none, and underscored ones before that. */
const PRIVATE = /^(_[^.]*\.)*([^.]+\.)?corp\.example$/;

/** One A record of the question's name. */
const ANSWER_TAIL = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 1];

await t.test('each name is asked where it belongs', async (t) => {
  const { resolver, now } = scene();
  const upstreamOf = (name: string, type: string) => {
    resolver.handleQuery(udp(`${name} ${type}`), question(name, type), now);
    return drain(resolver).transmits.map(({ upstream }) => upstream.id);
  };
  t.same(upstreamOf('www.example', 'A'), [PUBLIC]);
  t.same(upstreamOf('nas.lan', 'A'), [ROUTER]);
  t.same(upstreamOf('7.1.168.192.in-addr.arpa', 'PTR'), [ROUTER]);
  t.same(upstreamOf('printer', 'A'), [ROUTER]);
  t.same(upstreamOf('_sip._tcp.crm.corp.example', 'SRV'), [SITE]);
  t.same(upstreamOf('crm.corp.example', 'TXT'), [SITE]);
  for (const type of ['A', 'AAAA', 'HTTPS', 'MX', 'NS', 'ANY']) {
    t.same(upstreamOf('crm.corp.example', type), [], type);
  }
  t.match(resolver.stats, { forward: 4, 'ask-site': 2, proxies: 3, 'no-data': 3 });
  t.equal(resolver.forwarding.queries, 6);
});

await t.test('a query for a resource tells that its proxies are about to be used', async (t) => {
  const { resolver, now } = scene();
  const ask = (name: string, type = 'A') => {
    resolver.handleQuery(udp('c1'), question(name, type), now);
    return drain(resolver).events;
  };
  t.match(ask('Crm.corp.example'), [
    { type: 'response', client: { source: 'c1' } },
    { type: 'resource-lookup', name: 'crm.corp.example', resources: [{ id: '*.corp.example' }] },
    { type: 'proxies-assigned' },
  ]);
  t.match(ask('crm.corp.example', 'AAAA'), [{ type: 'response' }, { type: 'resource-lookup' }]);
  t.equal(ask('crm.corp.example', 'AAAA').length, 2, 'each query tells, nothing new is to be kept');
  t.match(ask('crm.corp.example', 'MX'), [{ type: 'response' }]);
});

await t.test('a question of our own is forwarded by the rules, whatever it is about', async (t) => {
  const { resolver, now } = scene();
  const ask = (name: string) => {
    resolver.ask(tcp(`own ${name}`), question(name, 'A'), now);
    const { transmits } = drain(resolver);
    for (const transmit of transmits) answer(resolver, transmit, now);
    return { asked: transmits.map(({ upstream }) => upstream.id), ...drain(resolver) };
  };
  for (const name of ['www.example', 'crm.corp.example', '4.0.96.100.in-addr.arpa']) {
    const { asked, events } = ask(name);
    t.same(asked, [PUBLIC], name);
    t.match(events, [{ type: 'response', client: tcp(`own ${name}`) }]);
  }
  t.same(ask('nas.lan').asked, [ROUTER]);
  t.same(ask('www.example').asked, [], 'kept');
  t.match(resolver.stats, { proxies: 0, 'proxy-name': 0, forward: 0 });
});

await t.test('a pool that is used up is told', async (t) => {
  const small = new ProxyPool({ ipv4: prefixOf('100.96.0.0/29'), ipv6: RANGES.ipv6 });
  const { resolver, now } = scene(small);
  resolver.handleQuery(udp('c1'), question('a.corp.example', 'A'), now);
  drain(resolver);
  resolver.handleQuery(udp('c1'), question('b.corp.example', 'A'), now);
  t.match(drain(resolver).events, [{ type: 'response' }, { type: 'proxies-exhausted' }]);
});

await t.test(
  'a name that becomes a resource is answered as one at once, and the other way',
  async (t) => {
    const { resolver, now } = scene();
    const answered = (at: Instant) => {
      resolver.handleQuery(udp('c1'), question('www.example', 'A'), at);
      const { transmits, events } = drain(resolver);
      for (const transmit of transmits) answer(resolver, transmit, at);
      const all = [...events, ...drain(resolver).events];
      const [response] = all.filter(({ type }) => type === 'response');
      if (response?.type !== 'response') throw new Error('no response');
      const [first] = decode(response.bytes).answers ?? [];
      return { data: first && 'data' in first && first.data, asked: transmits.length };
    };
    t.same(answered(now), { data: '198.51.100.1', asked: 1 });
    t.same(answered(now), { data: '198.51.100.1', asked: 0 }, 'kept');
    const rules = new UpstreamRules([], 'public');
    const others = { rules, siteRules: rules };
    resolver.setTables({ resources: resources({ 'www.example': 'dual' }), ...others });
    t.same(answered(now), { data: '100.96.0.4', asked: 0 });
    resolver.setTables({ resources: resources({}), ...others });
    t.same(answered(now), { data: '198.51.100.1', asked: 1 }, 'asked anew');
  },
);

await t.test(
  `${QUERIES.toLocaleString('en')} random and mutated queries and answers: no exception, ` +
    `one answer each, nothing private leaves (SEED=${SEED})`,
  async (t) => {
    const random = new SeededRandom(SEED);
    const { resolver } = scene();
    const queries = queryTemplates();
    const waiting: DnsTransmit[] = [];
    let now = instantAt(0);
    let responses = 0;
    let dropped = 0;
    const onOutputs = () => {
      const { transmits, events } = drain(resolver);
      for (const transmit of transmits) {
        const asked = decodeQuery(transmit.bytes);
        const name = asked.ok ? asked.value.question.name : '';
        if (PRIVATE.test(name) && transmit.upstream.id !== SITE) {
          t.fail(`${name} went to ${transmit.upstream.id}`);
        }
        waiting.push(transmit);
        if (waiting.length > 60) waiting.shift();
      }
      for (const event of events) if (event.type === 'response') responses++;
    };
    const start = performance.now();
    for (let i = 0; i < QUERIES; i++) {
      const bytes = mutatedQuery(queries, random);
      const client = random.next() % 4 === 0 ? tcp(`t${i}`) : udp(`u${i}`);
      resolver.handleQuery(client, bytes, now);
      onOutputs();
      const transmit = waiting[random.next() % (waiting.length + 1)];
      if (transmit !== undefined) {
        const { upstream, transport, port } = transmit;
        const said = serverSays(transmit.bytes, random);
        resolver.handleAnswer({ upstream: upstream.id, transport, port, bytes: said }, now);
        onOutputs();
        if (random.next() % 3 === 0) waiting.splice(waiting.indexOf(transmit), 1);
      }
      if (random.next() % 500 === 0) {
        resolver.handleFailure({ upstream: PUBLIC, transport: 'udp' }, now);
        onOutputs();
      }
      now = after(now, random.next() % 20);
      const due = resolver.pollTimeout();
      if (due !== undefined && due.at <= now) {
        resolver.handleTimeout(now);
        onOutputs();
        if ((resolver.pollTimeout()?.at ?? Infinity) <= now) t.fail('it spins');
      }
    }
    const took = performance.now() - start;
    now = after(now, 10_000);
    resolver.handleTimeout(now);
    onOutputs();
    dropped = resolver.stats.drop;
    // A client that repeats itself is answered once, but none of these does.
    t.equal(responses, QUERIES - dropped);
    const perQuery = ((took / QUERIES) * 1000).toFixed(1);
    t.comment(`${took.toFixed(0)} ms, ${perQuery} us each with its answers`);
    t.comment(JSON.stringify([resolver.stats, resolver.forwarding]));
    for (const count of Object.values(resolver.stats)) t.ok(count >= 0);
    t.ok(resolver.stats.proxies > 0 && resolver.stats['ask-site'] > 0);
  },
);

await t.test('what a query costs is printed', async (t) => {
  const { resolver, now } = scene();
  const client = udp('192.168.1.7:40000');
  const time = (what: string, once: () => void) => {
    const rounds = 40_000;
    for (let i = 0; i < rounds / 4; i++) once();
    const start = performance.now();
    for (let i = 0; i < rounds; i++) once();
    t.comment(`${what}: ${(((performance.now() - start) / rounds) * 1e6).toFixed(0)} ns`);
  };
  const ask = (query: Uint8Array, ttl: number) => {
    const said = reply(query, { answers: [record('www.example', 'A', '198.51.100.1', ttl)] });
    return () => {
      resolver.handleQuery(client, query, now);
      const transmit = resolver.pollTransmit();
      if (transmit !== undefined) {
        said.set(transmit.bytes.subarray(0, 2));
        const { upstream, transport, port } = transmit;
        resolver.handleAnswer({ upstream: upstream.id, transport, port, bytes: said }, now);
      }
      while (resolver.pollEvent() !== undefined);
    };
  };
  time('a resource, answered', ask(question('crm.corp.example', 'A', { udpSize: 1232 }), 1));
  // What lives for no second is asked each time.
  time('forwarded there and back', ask(question('www.example', 'A', { udpSize: 1232 }), 0));
  t.equal(resolver.forwarding.queries, 50_000);
  time('answered from the cache', ask(question('www.example', 'ANY', { udpSize: 1232 }), 60));
  t.ok(resolver.cache.hits > 49_000);
});

function scene(proxies: ProxyPool = pool()) {
  const rules = new UpstreamRules(
    [localNames([nameOf('lan')], [prefixOf('192.168.1.0/24')], 'router')],
    'public',
  );
  const now = instantAt(0);
  const resolver = new Resolver<TestResource>(
    { resources: resources(PATTERNS), rules, siteRules: rules },
    { pool: proxies, random: new SeededRandom(SEED) },
    now,
  );
  const plain = (id: string) => [{ id, protocol: 'plain' as const }];
  resolver.setGroup('public', { upstreams: plain(PUBLIC), isCached: true });
  resolver.setGroup('router', { upstreams: plain(ROUTER), isCached: false });
  resolver.setGroup('site', { upstreams: plain(SITE), isCached: false });
  return { resolver, now };
}

function drain(resolver: Resolver<TestResource>) {
  const transmits: DnsTransmit[] = [];
  const events: ResolverEvent<TestResource>[] = [];
  for (let event; (event = resolver.pollEvent()) !== undefined;) events.push(event);
  for (let one; (one = resolver.pollTransmit()) !== undefined;) transmits.push(one);
  return { transmits, events };
}

function answer(resolver: Resolver<TestResource>, transmit: DnsTransmit, now: Instant): void {
  const { upstream, transport, port, bytes } = transmit;
  const name = decode(bytes).questions?.[0]?.name ?? '.';
  const said = reply(bytes, { answers: [record(name, 'A', '198.51.100.1')] });
  resolver.handleAnswer({ upstream: upstream.id, transport, port, bytes: said }, now);
}

/** A right answer, one with some bytes changed, or nothing that makes sense. */
function serverSays(query: Uint8Array, random: SeededRandom): Uint8Array {
  const bytes = Uint8Array.from([...query, ...ANSWER_TAIL]);
  bytes[2] = (bytes[2] ?? 0) | 0x80;
  bytes[3] = random.next() % 4 === 0 ? random.next() & 15 : 0x80;
  const hasTail = query.length > 17 && query[11] === 0;
  if (hasTail) bytes[7] = 1;
  const whole = hasTail ? bytes : bytes.slice(0, query.length);
  for (let n = random.next() % 3; n > 0 && random.next() % 2 === 0; n--) {
    whole[random.next() % whole.length] = random.next() & 0xff;
  }
  return random.next() % 20 === 0 ? whole.slice(0, random.next() % whole.length) : whole;
}
